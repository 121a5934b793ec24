"""Parameters of Content-Type and Content-Disposition (RFC 2045, 5.1; RFC 2231), read and written."""

from __future__ import annotations

import binascii
import re

from gateway.mail.charset import decode_text
from gateway.mail.encoded_words import decode_words

MAX_PARAMETERS = 100  # more than any real field has; what follows is left out
_MAX_SECTIONS = 1000  # of one value cut in pieces (RFC 2231, 3)

# One parameter, or what can't be one up to the next ";". Quotes that never close end with the value: each
# character is looked at once or twice.
_PARAMETER = re.compile(
    r""";?\s*+(?:
        ([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)|([^\s;"]*+))[^;"]*+
        |"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)
        |[^;"]*+
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_SECTION = re.compile(r"(.+?)\*(?:(\d{1,4})(\*?))?")

_FILE_NAMES = frozenset({"filename", "name"})

_PIECE = 50  # characters of one section that is written; with its name within a line of 78
_ATTRIBUTE_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_FALLBACK = re.compile(r"[^!#-.0-9;-\[\]-~]")


def parse_parameters(value: str) -> tuple[str, dict[str, str]]:
    """Splits `text/plain; charset=utf-8` into `("text/plain", {"charset": "utf-8"})`.

    What stands before the first ";" is in lower case and without comments or spaces around; names of
    parameters are in lower case; values are decoded by RFC 2231 and joined from their pieces. The first of
    two with one name wins, and the form of RFC 2231 before the plain one. In plain file names encoded words
    are decoded: RFC 2047 forbids them there, but many senders write them. Never raises.
    """
    head = without_parameters(value)
    _, semicolon, rest = value.partition(";")
    if not semicolon:
        return head, {}
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[bool, str]]] = {}
    for count, match in enumerate(_PARAMETER.finditer(rest)):
        if count >= _MAX_SECTIONS:
            break
        name, quoted, token = match.groups()
        if name is None:
            continue
        name = name.lower()
        text = _ESCAPED.sub(r"\1", quoted) if quoted is not None else token
        section = _SECTION.fullmatch(name) if "*" in name else None
        if section is None:
            if len(plain) < MAX_PARAMETERS:
                plain.setdefault(name, decode_words(text) if name in _FILE_NAMES else text)
        elif section[1] in pieces or len(pieces) < MAX_PARAMETERS:
            # "name*" is all there is; "name*0" and "name*0*" are the first of several, with "*" if escaped.
            number = section[2]
            part = (number is None or section[3] == "*", text)
            pieces.setdefault(section[1], {}).setdefault(-1 if number is None else int(number), part)
    for name, sections in pieces.items():
        extended = _join(sections)
        if extended is not None:
            plain[name] = extended
    return head, plain


def without_parameters(value: str) -> str:
    """What `parse_parameters` answers first."""
    return value.partition(";")[0].partition("(")[0].strip().lower()


def format_parameter(name: str, value: str) -> str:
    """`; name="value"`, or in the form of RFC 2231 if the value is long, not ASCII or would not read back as
    it is, with a plain ASCII approximation for readers that don't know that. The value must be free of
    control characters."""
    if value.isascii() and len(value) <= _PIECE and "=?" not in value and value == value.strip():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'; {name}="{escaped}"'
    pieces: list[str] = []
    piece = "utf-8''"
    for byte in value.encode():
        char = chr(byte) if byte in _ATTRIBUTE_CHARS else f"%{byte:02X}"
        if len(piece) + len(char) > _PIECE:
            pieces.append(piece)
            piece = ""
        piece += char
    pieces.append(piece)
    if len(pieces) == 1:
        extended = f"; {name}*={pieces[0]}"
    else:
        extended = "".join([f"; {name}*{number}*={text}" for number, text in enumerate(pieces)])
    return f'{extended}; {name}="{_FALLBACK.sub("_", value)[-_PIECE:]}"'


def _join(sections: dict[int, tuple[bool, str]]) -> str | None:
    if -1 in sections:
        ordered = [sections[-1]]
    else:
        ordered = []
        while len(ordered) in sections:
            ordered.append(sections[len(ordered)])
        if not ordered:
            return None
    charset = ""
    if ordered[0][0] and ordered[0][1].count("'") >= 2:
        charset, _language, text = ordered[0][1].split("'", 2)
        ordered[0] = (True, text)
    data = b"".join(
        [
            _PERCENT.sub(lambda match: binascii.unhexlify(match[1]), text.encode("utf-8", "replace"))
            if escaped
            else text.encode("utf-8", "replace")
            for escaped, text in ordered
        ]
    )
    return decode_text(data, charset)
