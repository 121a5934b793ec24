"""Hashes of a body for DKIM (RFC 6376, 3.4), in pieces as it comes."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal

Canonicalization = Literal["simple", "relaxed"]

_SPACES = re.compile(rb"[ \t]{2,}+|\t")
_LINE_ENDS: Final = b"\r\n" * 32768


class BodyHash:
    """SHA-256 of a body that comes in pieces, canonicalized (RFC 6376, 3.4.3, 3.4.4). Lines end in CRLF."""

    def __init__(self, canonicalization: Canonicalization) -> None:
        self._canonical = _relaxed_lines if canonicalization == "relaxed" else bytes
        self._relaxed = canonicalization == "relaxed"
        self._hash = hashlib.sha256()
        self._line = bytearray()  # the last line, as far as it has come
        self._ends = 0  # octets of line ends that count only if something follows
        self._empty = True

    def update(self, piece: bytes) -> None:
        cut = piece.rfind(b"\n") + 1
        if cut:
            self._add(bytes(self._line) + piece[:cut])
            self._line = bytearray(piece[cut:])
        else:
            self._line += piece

    def digest(self) -> bytes:
        """After the last piece, once."""
        if self._line:
            self._add(bytes(self._line) + b"\r\n")
        if not (self._empty and self._relaxed):
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _add(self, lines: bytes) -> None:
        lines = self._canonical(lines)
        end = len(lines.rstrip(b"\r\n"))
        end = lines.rfind(b"\r\r", end) + 1 or end  # a lone CR is no line end
        if end:
            while self._ends > 0:  # in pieces: a body may have millions of empty lines
                some = min(self._ends, len(_LINE_ENDS))
                self._hash.update(_LINE_ENDS[:some])
                self._ends -= some
            self._hash.update(lines[:end])
            self._empty = False
        self._ends += len(lines) - end


def _relaxed_lines(lines: bytes) -> bytes:
    """Whole lines: space in one, none at their ends."""
    if b"  " in lines or b"\t" in lines:
        lines = _SPACES.sub(b" ", lines)
    if b" \r\n" in lines:
        lines = lines.replace(b" \r\n", b"\r\n")
    return lines
