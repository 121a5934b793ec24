"""HTTP/1.1 without sockets: what becomes of a client's bytes, and what an application may answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.http1 import Answer, Body, Head, Refused, RequestReader

MAX_HEAD = 1000
HOST = b"Host: x\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


def read(*pieces: bytes) -> list[tuple[str, bytes] | int]:
    """Each request's method and body, and the status of a refusal."""
    reader = RequestReader(MAX_HEAD)
    found: list[tuple[str, bytes] | int] = []
    method, body = "", b""
    for piece in pieces:
        for event in reader.feed(piece):
            if isinstance(event, Refused):
                return [*found, event.status]
            if isinstance(event, Head):
                method, body = event.method, b""
                continue
            body += event.data
            if not event.more:
                found.append((method, body))
    return found


def head(data: bytes) -> Head:
    first = RequestReader(MAX_HEAD).feed(data)[0]
    assert isinstance(first, Head)
    return first


REQUESTS = (
    b"GET /one HTTP/1.1\r\n%s\r\n" % HOST
    + b"POST /two HTTP/1.1\r\n%sContent-Length: 3\r\n\r\ntwo" % HOST
    + b"\r\n"  # RFC 9112, 2.2
    + b"POST /three HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % HOST
    + b"2;x=y\r\nth\r\n3\r\nree\r\n0\r\nTrailer: z\r\n\r\n"
    # Clients that would like HTTP/2 ask for it with any request (RFC 7540, 3.2).
    + b"POST /four HTTP/1.1\r\n%s%sContent-Length: 4\r\n\r\nfour" % (HOST, H2C)
    + b"POST /five HTTP/1.1\r\n%s%sTransfer-Encoding: chunked\r\n\r\n4\r\nfive\r\n0\r\n\r\n" % (HOST, H2C)
    + b"DELETE /six HTTP/1.1\r\n%s%s\r\n" % (HOST, H2C)
    + b"GET /seven HTTP/1.1\r\n%s\r\n" % HOST
)
READ = [
    ("GET", b""), ("POST", b"two"), ("POST", b"three"), ("POST", b"four"), ("POST", b"five"), ("DELETE", b""),
    ("GET", b""),
]  # fmt: skip


def test_requests_however_they_are_cut() -> None:
    assert read(REQUESTS) == READ
    assert read(*[bytes([byte]) for byte in REQUESTS]) == READ
    for cut in range(len(REQUESTS)):
        assert read(REQUESTS[:cut], REQUESTS[cut:]) == READ


def test_many_upgrades_at_once() -> None:
    assert len(read(b"GET / HTTP/1.1\r\n%s%s\r\n" % (HOST, H2C) * 500)) == 500


def test_head() -> None:
    one = head(b"GET /a?b HTTP/1.1\r\nHost:  x \r\nX-Two: 1\r\nx-two: \t2\r\nExpect: 100-Continue\r\n\r\n")
    assert (one.target, one.version, one.keep_alive, one.expects_continue) == (b"/a?b", "1.1", True, True)
    assert one.headers == [
        (b"host", b"x"), (b"x-two", b"1"), (b"x-two", b"2"), (b"expect", b"100-Continue")
    ]  # fmt: skip
    assert not one.is_websocket
    assert head(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive is False
    assert head(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").keep_alive is False
    assert head(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    ).is_websocket


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 1\r\nContent-Length: 1", 400),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Content-Length: +1", 400),
        (b"Content-Length: 1_0", 400),
        (b"Content-Length: 99999999999999999999999", 400),
        (b"X: a\r\n b", 400),
        (b"X: a\nContent-Length: 1", 400),
        (b"X: a\rb", 400),
        (b"X: a\0b", 400),
        (b"X : a", 400),
        (b": a", 400),
        (b"Host: y", 400),
        (b"X: " + b"a" * MAX_HEAD, 431),
        (b"X: a\r\n" * (MAX_HEAD // 6) + b"X: a", 431),
    ],
)
def test_refused(lines: bytes, status: int) -> None:
    request = b"POST / HTTP/1.1\r\n%s%s\r\n\r\n" % (HOST, lines)
    assert read(request + b"x" * 10)[-1] == status
    assert read(*[bytes([byte]) for byte in request + b"x" * 10])[-1] == status
    assert read(b"GET / HTTP/1.1\r\n%s\r\n" % HOST + request) == [("GET", b""), status]


@pytest.mark.parametrize("target", [b"example.com:443", b"//", b"//x", b"/", b"*", b"http://x/"])
@pytest.mark.parametrize("lines", [b"", H2C, b"Content-Length: 1\r\n"])
def test_this_is_no_proxy(target: bytes, lines: bytes) -> None:
    # The parser calls what follows a CONNECT another protocol, however often it is asked.
    request = b"CONNECT %s HTTP/1.1\r\n%s%s\r\n" % (target, HOST, lines)
    assert read(request) in ([501], [400])
    assert read(b"GET / HTTP/1.1\r\n%s\r\n" % HOST + request)[0] == ("GET", b"")


def test_nothing_is_without_end() -> None:
    start = b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % HOST
    for endless in (b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX", start + b"1;"):
        assert read(endless, *[b"a" * 100] * (MAX_HEAD // 100 + 2)) == [431]
    assert read(start + b"0\r\n", *[b"X: y\r\n"] * MAX_HEAD) == [431]


def test_websocket_takes_nothing_before_the_answer() -> None:
    upgrade = b"GET / HTTP/1.1\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % HOST
    assert read(upgrade) == []
    assert read(upgrade + b"x") == [400]


@given(
    st.lists(
        st.one_of(st.binary(), st.sampled_from([REQUESTS, HOST, H2C, b"\r\n\r\n", b"GET / HTTP/1.1\r\n"]))
    )
)
def test_anything_at_all(pieces: list[bytes]) -> None:
    read(*pieces)


# Answers ------------------------------------------------------------------------------------------------


def answered(
    answer: Answer, *pieces: bytes, status: int = 200, **headers: bytes
) -> tuple[list[bytes], bytes]:
    """Header lines without Date, and the body as it is sent."""
    given = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    answer.start(status, given, is_last=False)
    data = b"".join(answer.piece(piece, more=True) for piece in pieces) + answer.piece(b"", more=False)
    lines, _, body = data.partition(b"\r\n\r\n")
    start, *rest = lines.split(b"\r\n")
    assert start == b"HTTP/1.1 %d " % status
    assert sum(line.startswith(b"date: ") for line in rest) == 1
    return sorted(line for line in rest if not line.startswith(b"date: ")), body


def request(method: str = "GET", version: str = "1.1") -> Answer:
    asked = Head(method, b"/", version, [], version == "1.1", expects_continue=False, is_websocket=False)
    return Answer(asked)


def test_length_and_chunks() -> None:
    assert answered(request(), b"he", b"llo", content_length=b"5") == ([b"content-length: 5"], b"hello")
    assert answered(request(), b"he", b"", b"llo") == (
        [b"transfer-encoding: chunked"],
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    )
    last = request(version="1.0")
    assert answered(last, b"hello") == ([b"connection: close"], b"hello")
    assert last.is_last
    assert answered(request("HEAD"), b"hello", content_length=b"5") == ([b"content-length: 5"], b"")
    assert answered(request(), b"hello", status=204) == ([], b"")
    asked = request()
    assert answered(asked, connection=b"Close", content_length=b"0", x=b" y ") == (
        [b"connection: close", b"content-length: 0", b"x: y"],
        b"",
    )
    assert asked.is_last


@pytest.mark.parametrize(
    ("name", "value"), [(b"x", b"a\r\ny: b"), (b"x", b"a\nb"), (b"x", b"\0"), (b"x: y", b""), (b"", b"")]
)
def test_no_header_becomes_two(name: bytes, value: bytes) -> None:
    with pytest.raises(RuntimeError, match="cannot be sent"):
        request().start(200, [(name, value)], is_last=False)


def test_mistakes_of_applications() -> None:
    for pieces in ((b"x",), (b"x" * 3,)):
        with pytest.raises(RuntimeError, match="Content-Length"):
            answered(request(), *pieces, content_length=b"2")
    twice = request()
    twice.start(200, [], is_last=False)
    with pytest.raises(RuntimeError, match="already"):
        twice.start(200, [], is_last=False)
    twice.piece(b"", more=False)
    with pytest.raises(RuntimeError):
        twice.piece(b"", more=False)
    with pytest.raises(RuntimeError):
        request().piece(b"", more=False)


def test_pieces_of_a_body() -> None:
    reader = RequestReader(MAX_HEAD)
    start = b"POST / HTTP/1.1\r\n%sContent-Length: 3\r\n\r\n" % HOST
    _, first = reader.feed(start + b"ab")
    assert first == Body(b"ab", more=True)
    assert reader.in_body
    assert reader.feed(b"c") == [Body(b"c", more=False)]
    assert not reader.in_body
