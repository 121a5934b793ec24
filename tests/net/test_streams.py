"""A stream of a socket, as trio's own where it does not say otherwise."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gateway.net.streams import Listener, NotHere, Stream, connect

LARGE = bytes(range(256)) * 40_000  # more than a socket's buffers hold


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Stream, Stream]]:
    one, other = socket.socketpair()
    streams = [Stream(trio.socket.from_stdlib_socket(end)) for end in (one, other)]
    try:
        yield streams[0], streams[1]
    finally:
        for stream in streams:
            await stream.aclose()


async def everything(stream: Stream) -> bytes:
    received = b""
    while piece := await stream.receive_some():
        received += piece
    return received


async def test_what_is_sent_arrives_whether_it_is_waited_for_or_there_already() -> None:
    async with connected() as (one, other), trio.open_nursery() as nursery:
        await one.send_all(b"there already")
        assert await other.receive_some(5) == b"there"
        assert await other.receive_some() == b" already"

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await one.send_all(b"waited for")

        nursery.start_soon(later)
        assert await other.receive_some() == b"waited for"


def has_input(stream: Stream) -> bool:
    """As it is now: a type checker takes an attribute for what it was."""
    return stream.has_input


async def test_whether_there_is_something_is_seen_without_taking_it() -> None:
    async with connected() as (one, other):
        assert not has_input(other)
        await one.send_all(b"there")
        assert has_input(other)
        assert await other.receive_some() == b"there"
        assert not has_input(other)
        await one.send_eof()
        assert has_input(other)  # the end
        await other.aclose()
        assert has_input(other)  # an error


async def test_more_than_the_system_takes_at_once_is_sent_to_the_end() -> None:
    async with connected() as (one, other), trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(LARGE), 10_000):  # short pieces into a full buffer
                await one.send_all(LARGE[start : start + 10_000])
            await one.send_all(LARGE)
            await one.send_eof()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert await everything(other) == 2 * LARGE


async def test_receiving_is_a_checkpoint_and_sending_little_only_a_place_to_be_cancelled_at() -> None:
    async with connected() as (one, other), trio.open_nursery() as nursery:
        others = trio.Event()
        nursery.start_soon(_set, others)
        await one.send_all(b"x")
        assert not others.is_set()
        with trio.testing.assert_checkpoints():
            await other.receive_some()
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.send_all(b"never")
        assert scope.cancelled_caught
        await one.send_all(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.receive_some()
        assert scope.cancelled_caught
        assert await other.receive_some() == b"kept"  # neither sent what was cancelled, nor lost this


async def _set(event: trio.Event) -> None:
    event.set()


async def test_a_peer_that_is_gone() -> None:
    async with connected() as (one, other):
        await other.aclose()
        assert await one.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await one.send_all(b"to nobody")


async def test_a_connection_that_was_reset() -> None:
    async with trio.open_nursery() as nursery, _listening() as listener:
        peer = socket.create_connection(listener.socket.getsockname())
        stream = await listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        async def reset() -> None:
            await trio.testing.wait_all_tasks_blocked()
            peer.close()

        nursery.start_soon(reset)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await stream.aclose()


async def test_a_stream_that_we_closed() -> None:
    async with connected() as (one, _), trio.open_nursery() as nursery:

        async def close() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()

        nursery.start_soon(close)
        with pytest.raises(trio.ClosedResourceError):  # also for who waits meanwhile
            await one.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")


async def test_nothing_is_sent_behind_the_end() -> None:
    async with connected() as (one, other):
        await one.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        assert await everything(other) == b""
        await other.send_all(b"the other way")
        assert await one.receive_some() == b"the other way"


@asynccontextmanager
async def _listening() -> AsyncIterator[Listener]:
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener = Listener(sock)
    try:
        yield listener
    finally:
        await listener.aclose()


async def test_a_listener_accepts_streams() -> None:
    async with _listening() as listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        async with client, await listener.accept() as stream:
            assert stream.socket.getpeername() == client.socket.getsockname()
            await client.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


@pytest.mark.parametrize(
    ("host", "local_address", "ours"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("localhost", None, "127.0.0.1"),
        ("127.0.0.1", "127.0.0.9", "127.0.0.9"),
    ],
)
async def test_a_connection_to_an_address_or_a_name(host: str, local_address: str | None, ours: str) -> None:
    async with _listening() as listener:
        port = listener.socket.getsockname()[1]
        client = await connect(host, port, local_address=local_address)
        async with client, await listener.accept() as stream:
            assert client.socket.getsockname()[0] == ours
            await client.send_all(b"hello")
            assert await stream.receive_some() == b"hello"


async def test_an_address_that_this_machine_does_not_have() -> None:
    async with _listening() as listener:
        with pytest.raises(NotHere, match=r"^192\.0\.2\.25 is no address of this machine$"):
            await connect(*listener.socket.getsockname(), local_address="192.0.2.25")


async def test_a_refusal_is_one_also_with_an_address_of_ours() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", unheard.getsockname()[1], local_address="127.0.0.9")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_nobody_listens(host: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            await connect(host, unheard.getsockname()[1])


@pytest.mark.parametrize("name", ["bü_x.example", "ü" * 70 + ".example", "a" * 70 + ".example"])
async def test_a_name_that_dns_cannot_have(name: str) -> None:
    with pytest.raises(socket.gaierror, match="it is no name in DNS"):
        await connect(name, 25)
