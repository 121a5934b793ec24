"""Direct delivery through a SOCKS5 proxy, and proxies that do something else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Outcome
from tests.commands import PATIENCE
from tests.plugins.mx_hosts import MxHosts, issued, mx_hosts
from tests.plugins.smtp_servers import delivery

MX = "mx.example.org"


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX)
        hosts.address(MX, "127.0.0.2")
        yield hosts


@dataclass
class Proxy:
    """One that connects, with a login if it is told one."""

    port: int = 0
    login: tuple[bytes, bytes] | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            _, count = await read(stream, 2)
            methods = await read(stream, count)
            wanted = 0 if self.login is None else 2
            await stream.send_all(bytes((5, wanted if wanted in methods else 0xFF)))
            if self.login is not None:
                _, size = await read(stream, 2)
                username = await read(stream, size)
                [size] = await read(stream, 1)
                good = (username, await read(stream, size)) == self.login
                await stream.send_all(bytes((1, not good)))
                if not good:
                    return
            _, _, _, kind = await read(stream, 4)
            address = str(ip_address(await read(stream, 4 if kind == 1 else 16)))
            port = int.from_bytes(await read(stream, 2))
            self.asked.append((address, port))
            try:
                server = await trio.open_tcp_stream(address, port)
            except OSError:
                await stream.send_all(b"\x05\x05\x00\x01" + bytes(6))
                return
            await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(copy, stream, server, nursery.cancel_scope)
                nursery.start_soon(copy, server, stream, nursery.cancel_scope)


async def read(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        assert more
        data += more
    return data


async def copy(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    async for data in source:
        await target.send_all(data)
    scope.cancel()


@asynccontextmanager
async def proxy(serve: Callable[[trio.SocketStream], Awaitable[Any]]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def deliver(hosts: MxHosts, at: str, **settings: Any) -> Outcome:
    async with hosts.transport("socks", proxy=at, hostname="far.example", **settings) as socks:
        [outcome] = await socks.deliver(delivery("b@example.org"))
    return outcome


@pytest.mark.parametrize("login", [None, (b"user", b"secret words")])
async def test_through_the_proxy(hosts: MxHosts, login: tuple[bytes, bytes] | None) -> None:
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    hosts.policy("example.org", MX)
    middle = Proxy(login=login)
    more = {} if login is None else {"auth": {"username": "user", "password": "secret words"}}
    async with proxy(middle.serve) as at:
        outcome = await deliver(hosts, at, **more)
    assert (outcome.result.value, outcome.tls) == ("delivered", "TLSv1.3, verified by MTA-STS")
    assert (outcome.remote_mta, outcome.remote_ip) == (MX, "127.0.0.2")
    assert middle.asked == [("127.0.0.2", hosts.port)]
    [session] = server.sessions.values()
    assert session.hello
    assert session.hello.name == "far.example"
    [result] = outcome.tls_results
    assert (result.remote_ip, result.local_ip) == ("127.0.0.2", "")  # nobody knows


async def test_a_host_that_is_down(hosts: MxHosts) -> None:
    async with proxy(Proxy().serve) as at:
        outcome = await deliver(hosts, at)
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    where = f"127.0.0.2 port {hosts.port}"
    assert outcome.error == (
        f"{MX}: can't connect to {where}: the proxy {at}: connection refused, for {where}"
    )


async def test_a_wrong_password(hosts: MxHosts) -> None:
    server = await hosts.server("127.0.0.2")
    async with proxy(Proxy(login=(b"user", b"right")).serve) as at:
        outcome = await deliver(hosts, at, auth={"username": "user", "password": "not so"})
    assert outcome.result.value == "temporary"
    assert outcome.error.endswith(f"the proxy {at}: the login was refused")
    assert "not so" not in repr(outcome)
    assert server.sessions == {}


async def garbage(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b"SSH-2.0-OpenSSH\r\n" * 1000)


async def hangs(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


async def drips(stream: trio.SocketStream) -> None:
    """An octet now and then, for ever: a name of 255 octets as its own address."""
    async with stream:
        await stream.send_all(b"\x05\x00\x05\x00\x00\x03\xff")
        while True:
            await trio.sleep(0.05)
            await stream.send_all(b"x")


@pytest.mark.parametrize(
    ("serve", "error"),
    [
        (garbage, "what it says is not SOCKS5"),
        (hangs, "within 0.3 seconds"),
        (drips, "within 0.3 seconds"),
    ],
)
async def test_proxies_that_do_something_else(
    hosts: MxHosts, serve: Callable[[trio.SocketStream], Awaitable[Any]], error: str
) -> None:
    async with proxy(serve) as at:
        with trio.fail_after(PATIENCE):
            outcome = await deliver(hosts, at, connect_timeout=0.3)
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert outcome.error.endswith(error)


class NoNames(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *args: object, **options: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *args: object, **options: object) -> Any:
        raise NotImplementedError


async def test_a_proxy_that_cannot_be_looked_up(hosts: MxHosts) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    outcome = await deliver(hosts, "proxy.example:1080")
    assert outcome.error == (
        f"{MX}: can't connect to 127.0.0.2 port {hosts.port}:"
        " the proxy proxy.example:1080 cannot be looked up (Name or service not known)"
    )


async def test_no_proxy_there(hosts: MxHosts) -> None:
    async with proxy(hangs) as at:
        pass
    outcome = await deliver(hosts, at)
    assert outcome.result.value == "temporary"
    assert outcome.error.endswith(f"the proxy {at} cannot be reached (Connection refused)")
