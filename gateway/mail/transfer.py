"""Content transfer encodings (RFC 2045, 6), at the speed of C."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from struct import Struct

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_ALPHABET = bytes(set(range(256)) - set(_ALPHABET))
_CHUNK = 1024 * 1024  # octets looked at in one go where no copy of the whole is wanted

_LINE = 76  # RFC 2045, 6.8
_LINES = Struct(f"{_LINE}s" * 1024)  # cuts 1,024 lines at once: three times as fast as slicing each

_MAX_LINE = 998  # octets without CRLF, RFC 5322, 2.1.1


def encode_text(text: str) -> tuple[str, bytes]:
    """The transfer encoding and the encoded body of a text, whose lines end in "\\n", "\\r\\n" or "\\r".

    Lines end in CRLF, the last one too. The result is always 7bit: ASCII, without NUL, and no line over 998
    octets. Text that is not is quoted-printable, or base64 where most of it is not ASCII. Raises
    UnicodeEncodeError for lone surrogates.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    data = text.replace("\n", "\r\n").encode()
    if data.isascii():
        if b"\0" not in data and (len(data) <= _MAX_LINE or max(map(len, data.split(b"\r\n"))) <= _MAX_LINE):
            return "7bit", data
        return "quoted-printable", binascii.b2a_qp(data)
    # Each octet that is not ASCII takes three in quoted-printable; base64 takes four for three of all.
    encoded = len(data) - len(data.decode("ascii", "ignore"))
    if encoded * 6 <= len(data):
        return "quoted-printable", binascii.b2a_qp(data)
    return "base64", encode_base64(data)


def encode_base64(data: bytes) -> bytes:
    """Base64 in lines of 76 that end in CRLF, the last one too; nothing for nothing."""
    encoded = binascii.b2a_base64(data, newline=False)
    lines: list[bytes] = []
    whole = len(encoded) // _LINES.size * _LINES.size
    for start in range(0, whole, _LINES.size):
        lines.extend(_LINES.unpack_from(encoded, start))
    lines.extend([encoded[start : start + _LINE] for start in range(whole, len(encoded), _LINE)])
    if lines:
        lines.append(b"")
    return b"\r\n".join(lines)


def decode(data: bytes, encoding: str) -> bytes:
    """Decodes a body; an encoding that is not known (or is none) leaves it as it is. Never raises."""
    if encoding == "base64":
        return decode_base64(data)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(data)
    return data


class Decoder:
    """Decodes a body that comes in pieces: all that `feed` and `end` answer is what `decode` answers.

    Keeps at most a digit group, or a line of quoted-printable.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._rest = bytearray()
        self._padded = False  # what follows the first "=" of base64 is not decoded

    def feed(self, data: bytes) -> bytes:
        if self._encoding == "base64":
            if self._padded:
                return b""
            digits, padding, _ = data.partition(b"=")
            self._padded = bool(padding)
            self._rest += digits.translate(None, _NOT_ALPHABET)
            return self._take(len(self._rest) // 4 * 4, binascii.a2b_base64)
        if self._encoding == "quoted-printable":
            # Nothing in quoted-printable goes over a line end, but a soft break, which ends there.
            line_end = data.rfind(b"\n") + 1
            ready = len(self._rest) + line_end if line_end else 0
            self._rest += data
            return self._take(ready, binascii.a2b_qp)
        return data

    def end(self) -> bytes:
        """What is left."""
        return decode(bytes(self._rest), self._encoding)

    def _take(self, count: int, decoder: Callable[[bytes], bytes]) -> bytes:
        ready = bytes(self._rest[:count])
        del self._rest[:count]
        return decoder(ready)


def decoded_size(data: bytes, start: int, end: int, encoding: str) -> int:
    """`len(decode(data[start:end], encoding))`, for base64 without decoding."""
    if encoding == "base64":
        padding = data.find(b"=", start, end)
        end = end if padding < 0 else padding
        digits = end - start
        for at in range(start, end, _CHUNK):
            digits -= len(data[at : min(at + _CHUNK, end)].translate(None, _ALPHABET))
        return digits * 3 // 4
    if encoding == "quoted-printable":
        return len(binascii.a2b_qp(data[start:end]))
    return end - start


def decode_base64(data: bytes) -> bytes:
    """Decodes up to the first "=", skipping what is not of the alphabet and a last digit on its own."""
    digits = data.partition(b"=")[0].translate(None, _NOT_ALPHABET)
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
