"""Bytes of a message to text, whatever their label says. Nothing here raises."""

from __future__ import annotations

# Labels and codecs. Only these: Python's registry also has codecs that are no charsets or take quadratic time
# (idna, punycode, unicode_escape). As in the WHATWG Encoding Standard, 4.2, a few labels mean a superset.
_CODECS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "unicode-1-1-utf-8": "utf-8",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "l1": "cp1252",
    "cp1252": "cp1252",
    "x-cp1252": "cp1252",
    "iso-8859-8-i": "iso8859-8",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "iso-8859-11": "cp874",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "ibm866": "cp866",
    "cp866": "cp866",
    "cp437": "cp437",
    "ibm437": "cp437",
    "cp850": "cp850",
    "ibm850": "cp850",
    "cp852": "cp852",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "x-gbk": "gb18030",
    "hz-gb-2312": "hz",
    "big5": "big5hkscs",
    "big5-hkscs": "big5hkscs",
    "euc-jp": "euc-jp",
    "iso-2022-jp": "iso-2022-jp-2",
    "iso-2022-jp-1": "iso-2022-jp-2",
    "iso-2022-jp-2": "iso-2022-jp-2",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "windows-31j": "cp932",
    "cp932": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "cp949": "cp949",
    "iso-2022-kr": "iso-2022-kr",
}
_CODECS.update({f"iso-8859-{n}": f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)})
_CODECS.update({"iso-8859-9": "cp1254"})
_CODECS.update({f"{prefix}{n}": f"cp{n}" for prefix in ("windows-", "cp") for n in range(1250, 1259)})

# In these, ASCII octets may mean something else.
_OTHER_ASCII = frozenset({"utf-16", "utf-16-le", "utf-16-be", "hz", "iso-2022-jp-2", "iso-2022-kr"})


def decode_text(data: bytes, label: str = "") -> str:
    """Decodes by the charset `label`; if it is missing, unknown or plainly wrong, as UTF-8 if that fits, else
    as windows-1252. What fits nothing becomes U+FFFD."""
    codec = _CODECS.get(label.strip().lower()) if label else None
    if codec not in _OTHER_ASCII and data.isascii():
        return data.decode("ascii")
    if codec is not None:
        # "replace" from the start where the label is certain to be meant, so that one bad byte stays one.
        return data.decode(codec, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
