from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.webhooks.answers import MAX_EXCERPT, AnswerReader, NotHttp, Received

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
)
INFORMATIONAL = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

# The answer; then its status, the start of its body, whether it is complete, whether its connection can be
# used again.
GOOD = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True, True),
    (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"", True, True),
    (b"HTTP/1.1 503 \r\ncontent-length:0\r\n\r\n", 503, b"", True, True),
    (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, b"", True, True),
    (CHUNKED, 200, b"ok!", True, True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 200, b"ok", True, False),
    (b"HTTP/1.1 200 OK\r\nConnection: Foo, Close\r\nContent-Length: 0\r\n\r\n", 200, b"", True, False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True, False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, b"", True, True),
    (INFORMATIONAL + b"HTTP/1.1 201 Ok\r\nContent-Length: 1\r\n\r\n.", 201, b".", True, True),
    # The end of the connection is the end of these, and never comes to the reader.
    (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end", False, False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", 200, b"ok", False, False),
    # Not proper, but clear.
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, b"ok", True, True),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True, True),
    (CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 7\r\n\r\n", 1), 200, b"ok!", True, True),
]

BAD = [
    (b"SSH-2.0-OpenSSH_9.0\r\n", "Expected HTTP/"),
    (b"\x15\x03\x01\x00\x02\x02\x46", "Expected HTTP/"),
    (b"<html>hello</html>", "Expected HTTP/"),
    (b"HTTP/3.7 200 OK\r\n", "Invalid HTTP version"),
    (b"HTTP/1.1 2000 OK\r\n", "Invalid response status"),
    (b"HTTP/1.1 000 None\r\n\r\n", "there is no status 000"),
    (b"HTTP/1.1 101 Switching\r\n\r\n", "it switches to another protocol"),
    (
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        "it switches to another protocol",
    ),
    (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "Invalid header token"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n", "Content-Length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", "Content-Length"),
]


def pieces(answer: bytes) -> Iterator[list[bytes]]:
    """Whole, cut in two at each place, and byte by byte."""
    yield [answer]
    for at in range(1, len(answer)):
        yield [answer[:at], answer[at:]]
    yield [answer[i : i + 1] for i in range(len(answer))]


def feed(reader: AnswerReader, parts: list[bytes]) -> None:
    for part in parts:
        reader.feed(part)


@pytest.mark.parametrize(("answer", "status", "excerpt", "complete", "reusable"), GOOD)
def test_an_answer_is_read_in_pieces_of_any_size(
    answer: bytes, status: int, excerpt: bytes, complete: bool, reusable: bool
) -> None:
    for parts in pieces(answer):
        reader, received = AnswerReader(), Received()
        reader.expect(received)
        for part in parts:
            assert not received.complete
            reader.feed(part)
        assert received == Received(len(answer), status, bytearray(excerpt), complete, reusable)


@pytest.mark.parametrize(("answer", "reason"), BAD)
def test_what_is_no_answer_is_refused_with_a_reason(answer: bytes, reason: str) -> None:
    for parts in pieces(answer):
        reader, received = AnswerReader(), Received()
        reader.expect(received)
        with pytest.raises(NotHttp, match=reason):
            feed(reader, parts)
        assert (received.status, received.reusable) == (0, False)


def test_one_reader_reads_one_answer_after_the_other() -> None:
    reader = AnswerReader()
    for answer, status, excerpt, _, reusable in GOOD:
        if reusable:
            received = Received()
            reader.expect(received)
            reader.feed(answer)
            assert received == Received(len(answer), status, bytearray(excerpt), True, True)


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP", b"x"])
@pytest.mark.parametrize(
    ("answer", "status"), [(answer, status) for answer, status, _, complete, _ in GOOD if complete]
)
def test_after_more_than_was_asked_for_a_connection_is_not_used_again(
    answer: bytes, status: int, more: bytes
) -> None:
    for parts in pieces(answer + more):
        reader, received = AnswerReader(), Received()
        reader.expect(received)
        with suppress(NotHttp):
            feed(reader, parts)
        assert (received.status, received.complete, received.reusable) == (status, True, False)


def test_only_the_start_of_a_body_is_kept() -> None:
    reader, received = AnswerReader(), Received()
    reader.expect(received)
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(10):
        reader.feed(b"x" * 10_000)
    assert bytes(received.excerpt) == b"x" * MAX_EXCERPT
    assert received.complete


_FRAMING = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 ",
        b"101",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Upgrade: x\r\n",
        b"\r\n",
        b"3\r\n",
        b"abc",
        b"0\r\n",
    ]
)


@given(st.lists(_FRAMING | st.binary(max_size=20), max_size=20))
def test_nothing_else_is_raised_whatever_comes(parts: list[bytes]) -> None:
    reader, received = AnswerReader(), Received()
    reader.expect(received)
    with suppress(NotHttp):
        feed(reader, parts)
    assert received.status == 0 or 200 <= received.status <= 999
    assert received.complete or not received.reusable
