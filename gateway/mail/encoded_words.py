"""Encoded words: text that is not ASCII in header fields (RFC 2047)."""

from __future__ import annotations

import binascii
import re

from gateway.mail.charset import decode_text
from gateway.mail.transfer import decode_base64

# RFC 2047, 2 allows 75. At 64, "Subject: " and one word still fit a line of 78.
_MAX_WORD = 64
_OVERHEAD = len("=?utf-8?q??=")
_ROOM = _MAX_WORD - _OVERHEAD
_BASE64_BYTES = _ROOM // 4 * 3

# What a Q word in a phrase may hold as it is (RFC 2047, 5 (3)); a space is written "_".
_Q = {byte: f"={byte:02X}" for byte in range(256)}
_Q.update({ord(c): c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"})
_Q[0x20] = "_"

# Text inside a word may hold spaces: not allowed, but seen. Each part ends at the next "?": linear.
_WORD = re.compile(r"=\?([^?\s]++)\?([bBqQ])\?([^?]*+)\?=")
_Q_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")
# Decoded text goes on one line; what was smuggled in by encoding is made visible as space.
_CONTROLS = dict.fromkeys((*range(0x20), 0x7F), " ")


def encode_words(text: str) -> str:
    """`text` as encoded words in UTF-8 with single spaces between them, each at most 64 characters long and
    holding whole characters. Raises UnicodeEncodeError for lone surrogates."""
    data = text.encode()
    q_size = sum(len(_Q[byte]) for byte in data)
    if q_size <= len(data) * 4 // 3 + 4:
        return " ".join([f"=?utf-8?q?{word}?=" for word in _q_words(text)])
    return " ".join([f"=?utf-8?b?{word}?=" for word in _b_words(text)])


def decode_words(text: str) -> str:
    """`text` with its encoded words decoded and control characters replaced by spaces. Never raises; what is
    no encoded word is kept."""
    if "=?" not in text:
        return text if text.isprintable() else text.translate(_CONTROLS)
    out: list[str] = []
    pending: list[bytes] = []  # words in one charset, joined first: a character may be cut between two
    charset = ""
    end = 0
    for word in _WORD.finditer(text):
        between = text[end : word.start()]
        label = word[1].partition("*")[0].lower()  # RFC 2231, 5: a language may follow
        adjacent = bool(end) and not between.strip()
        if not adjacent or label != charset:
            out.append(decode_text(b"".join(pending), charset))
            pending = []
        if not adjacent:
            out.append(between)
        charset = label
        pending.append(_decode_word(word[2], word[3]))
        end = word.end()
    out.append(decode_text(b"".join(pending), charset))
    out.append(text[end:])
    return "".join(out).translate(_CONTROLS)


def _decode_word(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if encoding in "bB":
        return decode_base64(data)
    return _Q_ESCAPE.sub(lambda match: binascii.unhexlify(match[1]), data.replace(b"_", b" "))


def _q_words(text: str) -> list[str]:
    words: list[str] = []
    word: list[str] = []
    size = 0
    for char in text:
        encoded = "".join([_Q[byte] for byte in char.encode()])
        if size + len(encoded) > _ROOM:
            words.append("".join(word))
            word = []
            size = 0
        word.append(encoded)
        size += len(encoded)
    words.append("".join(word))
    return words


def _b_words(text: str) -> list[str]:
    words: list[str] = []
    word = bytearray()
    for char in text:
        encoded = char.encode()
        if len(word) + len(encoded) > _BASE64_BYTES:
            words.append(binascii.b2a_base64(word, newline=False).decode("ascii"))
            word = bytearray()
        word += encoded
    words.append(binascii.b2a_base64(word, newline=False).decode("ascii"))
    return words
