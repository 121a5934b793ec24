"""Decoding in pieces is decoding at once."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mail.transfer import Decoder, decode, decoded_size

PIECES = st.lists(st.text("=\r\n A4/f\t\x00-z", max_size=12).map(str.encode), max_size=12)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", ""])
@given(PIECES)
@example([b"QU", b"JD\r\nR", b"EV", b"G=", b"=QUJD"])
@example([b"QUJDR"])
@example([b"a=", b"\r\nb=4", b"1=\r", b"junk\n", b"c=\n=", b"\n=4", b"\n"])
@example([b"no line end=", b"4", b"1"])
def test_pieces(encoding: str, pieces: list[bytes]) -> None:
    decoder = Decoder(encoding)
    got = b"".join(decoder.feed(piece) for piece in pieces) + decoder.end()
    whole = b"".join(pieces)
    assert got == decode(whole, encoding)
    assert len(got) == decoded_size(whole, 0, len(whole), encoding)


def test_little_is_kept() -> None:
    decoder = Decoder("base64")
    assert len(decoder.feed(b"QUJDR" * 1000)) == 3750
    decoder = Decoder("quoted-printable")
    assert decoder.feed(b"line=20\n" * 1000 + b"rest=") == b"line \n" * 1000
    assert decoder.feed(b"\nmore") == b"rest"
    assert decoder.end() == b"more"
