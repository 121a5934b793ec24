"""The content type of data that came without one, after the WHATWG MIME Sniffing Standard (6, 7)."""

from __future__ import annotations

import re
from typing import Final

SNIFFED = 512  # octets looked at

_SIGNATURES: Final = (
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"Rar!\x1a\x07", "application/x-rar-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"OggS\x00", "application/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"\x00asm", "application/wasm"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
)
_RIFF: Final = {b"WEBPVP": "image/webp", b"WAVE": "audio/wave", b"AVI ": "video/avi"}

_HTML = re.compile(
    rb"\s*<(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[ >]|\s*<!--",
    re.IGNORECASE,
)
_XML = re.compile(rb"\s*<\?xml")
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # 3, "binary data byte"

# Where the data says no more than this, the name may say which kind. Nothing here can become active content.
_BY_NAME: Final = {
    "text/plain": {
        "csv": "text/csv",
        "ics": "text/calendar",
        "vcf": "text/vcard",
        "md": "text/markdown",
        "json": "application/json",
    },
    "application/zip": {
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "odt": "application/vnd.oasis.opendocument.text",
        "ods": "application/vnd.oasis.opendocument.spreadsheet",
        "odp": "application/vnd.oasis.opendocument.presentation",
        "epub": "application/epub+zip",
    },
}


def sniff(data: bytes, name: str = "") -> str:
    """The content type of `data` by its first 512 octets, with a charset where text is UTF-8 or UTF-16.

    The extension of `name` only tells kinds of text and of zip files apart. Unknown binary data is
    application/octet-stream.
    """
    head = data[:SNIFFED]
    found = _by_data(head, len(data) > SNIFFED)
    base, semicolon, parameters = found.partition(";")
    refined = _BY_NAME.get(base, {}).get(name.rpartition(".")[2].lower())
    if refined is None:
        return found
    return refined + semicolon + parameters if refined.startswith("text/") else refined


def _by_data(head: bytes, cut: bool) -> str:
    for signature, content_type in _SIGNATURES:
        if head.startswith(signature):
            return content_type
    if head.startswith(b"RIFF"):
        for form, content_type in _RIFF.items():
            if head.startswith(form, 8):
                return content_type
    if head[4:8] == b"ftyp":
        return "video/mp4"
    if _BINARY.search(head):
        return "application/octet-stream"
    charset = "; charset=utf-8" if _is_utf8(head, cut) else ""
    text = head.removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(text):
        return "text/html" + charset
    if _XML.match(text):
        return "text/xml" + charset
    return "text/plain" + charset


def _is_utf8(head: bytes, cut: bool) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        # A character may be cut by the limit, but nothing before it may be wrong.
        return cut and exc.start > len(head) - 4 and exc.reason == "unexpected end of data"
    return True
