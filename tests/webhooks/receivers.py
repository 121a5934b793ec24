"""HTTP receivers on loopback, as well-behaved or as hostile as a test wants them."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
import trio

LOOPBACK = [ip_network("127.0.0.0/8")]
Names = Callable[[str], list[str]]  # a name's addresses, IPv4 and IPv6; may raise OSError
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Conversation = Callable[[trio.SocketStream], Awaitable[None]]


def resolve_by(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, names have these addresses; addresses are what they are."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if more or named.get("flags"):  # of trio, or for an address
            return real(host, port, *more, **named)
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
            for ip in names(host)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@asynccontextmanager
async def listening(conversation: Conversation) -> AsyncIterator[str]:
    """Gives the URL of a server that has `conversation` on each connection; broken connections end it."""
    async with all_listening([conversation]) as (url,):
        yield url


@asynccontextmanager
async def all_listening(conversations: Iterable[Conversation]) -> AsyncIterator[list[str]]:
    """`listening` for several."""

    async def handle(conversation: Conversation, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await conversation(stream)

    async with trio.open_nursery() as nursery:
        urls = []
        for conversation in conversations:
            listeners: list[trio.SocketListener] = await nursery.start(
                partial(trio.serve_tcp, partial(handle, conversation), 0, host="127.0.0.1")
            )
            urls.append(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hook?a=b")
        yield urls
        nursery.cancel_scope.cancel()


async def read_request(stream: trio.SocketStream) -> tuple[bytes, bytes] | None:
    """Head and body of the next request; None when the client has closed."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        if not data:
            return None
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    while length and len(body) < int(length[1]):
        body += await stream.receive_some()
    return head, body


def answering(response: bytes) -> Conversation:
    """Answers each request with these bytes, over and over on one connection."""

    async def conversation(stream: trio.SocketStream) -> None:
        while await read_request(stream):
            await stream.send_all(response)

    return conversation


def once(response: bytes) -> Conversation:
    """Answers one request with these bytes and closes."""

    async def conversation(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(response)

    return conversation
