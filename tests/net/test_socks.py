"""The client of SOCKS5 proxies against one of the tests' own, and against hostile ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from gateway.net.socks import SocksError, SocksLogin, ask, connect_through

LOGIN = SocksLogin("user", "pässword")
GRANTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"


async def talk(*says: bytes, login: SocksLogin | None = None, address: str = "192.0.2.1") -> bytes:
    """What the client sent to a proxy that says this, one thing for each thing it was sent."""
    ours, theirs = trio.testing.memory_stream_pair()
    heard = b""

    async def proxy() -> None:
        nonlocal heard
        for one in says:
            heard += await theirs.receive_some()
            await theirs.send_all(one)
        await theirs.send_eof()

    fault: SocksError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy)
        try:
            await ask(ours, address, 25, login)
        except SocksError as exc:
            fault = exc
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
    return heard


async def test_without_a_login() -> None:
    assert await talk(b"\x05\x00", GRANTED) == b"\x05\x01\x00" + b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"


async def test_with_a_login() -> None:
    heard = await talk(b"\x05\x02", b"\x01\x00", GRANTED, login=LOGIN, address="2001:db8::1")
    password = "pässword".encode()
    assert heard == (
        b"\x05\x02\x00\x02"
         b"\x01\x04user\x09" + password
        + b"\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000001") + b"\x00\x19"
    )  # fmt: skip


@pytest.mark.parametrize(
    "granted",
    [
        GRANTED,
        b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x19",
        b"\x05\x00\x00\x03\x00\x00\x19",
        b"\x05\x00\x00\x03\xff" + b"x" * 255 + b"\x00\x19",
    ],
)
async def test_nothing_is_read_beyond_the_answer(granted: bytes) -> None:
    """In one piece and in single octets; what follows is the server's."""
    for pieces in ([granted + b"220 mx\r\n"], [bytes([octet]) for octet in granted + b"220 mx\r\n"]):
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"\x05\x00")

        async def rest(stream: trio.abc.SendStream = theirs, pieces: list[bytes] = pieces) -> None:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest)
            await ask(ours, "192.0.2.1", 25)
        assert await ours.receive_some() == b"220 mx\r\n"


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "what it says is not SOCKS5"),
        ([b"\x04\x5a"], "what it says is not SOCKS5"),
        ([b"\x05\xff"], "it wants a login"),
        ([b"\x05\x02"], "it chose a method that was not offered (2)"),
        ([b"\x05\x01"], "it chose a method that was not offered (1)"),
        ([b"\x05"], "it closed the connection"),
        ([b""], "it closed the connection"),
        ([b"\x05\x00", b"\x05\x00\x00"], "it closed the connection"),
        ([b"\x05\x00", b"\x04\x00\x00\x01"], "what it says is not SOCKS5"),
        ([b"\x05\x00", b"\x05\x00\x00\x09"], "an answer with an unknown kind of address (9)"),
        ([b"\x05\x00", GRANTED[:-1]], "it closed the connection"),
        ([b"\x05\x00", b"\x05\x02\x00\x01"], "not allowed by its rules, for 192.0.2.1 port 25"),
        ([b"\x05\x00", b"\x05\x04\x00\x01"], "host unreachable, for 192.0.2.1 port 25"),
        ([b"\x05\x00", b"\x05\x05\x00\x01"], "connection refused, for 192.0.2.1 port 25"),
        ([b"\x05\x00", b"\x05\xaa\x00\x01"], "unknown failure 170, for 192.0.2.1 port 25"),
    ],
)
async def test_proxies_that_do_not_connect_us(says: list[bytes], error: str) -> None:
    with pytest.raises(SocksError) as raised:
        await talk(*says)
    assert str(raised.value) == error


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ([b"\x05\xff"], "it wants another kind of login"),
        ([b"\x05\x02", b"\x01\x01"], "the login was refused"),
        ([b"\x05\x02", b""], "it closed the connection"),
    ],
)
async def test_logins_that_fail(says: list[bytes], error: str) -> None:
    with pytest.raises(SocksError) as raised:
        await talk(*says, login=LOGIN)
    assert str(raised.value) == error
    assert LOGIN.password not in repr(LOGIN)


@pytest.mark.parametrize(("username", "password"), [("", "x"), ("x", ""), ("x" * 256, "x"), ("x", "ü" * 128)])
def test_logins_that_cannot_be_said(username: str, password: str) -> None:
    with pytest.raises(ValueError, match="is to have 1 to 255 bytes"):
        SocksLogin(username, password)


async def test_errors_name_the_proxy() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"\x05\xff")

    serve: Callable[[trio.SocketStream], Awaitable[object]] = refuse
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with pytest.raises(SocksError, match=rf"^the proxy 127\.0\.0\.1:{port}: it wants a login$"):
            await connect_through(("127.0.0.1", port), "192.0.2.1", 25)
        nursery.cancel_scope.cancel()
    with pytest.raises(
        SocksError, match=r"^the proxy 127\.0\.0\.1:\d+ cannot be reached \(Connection refused\)"
    ):
        await connect_through(("127.0.0.1", port), "192.0.2.1", 25)
