"""Hosts of recipients' domains on loopback: in DNS, with certificates, and with whatever they do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from gateway.net.certificates import Certificate
from gateway.net.find_hosts import Policies
from gateway.net.mta_sts import StsAnswer, parse_policy
from gateway.net.shaping import Shaper
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.net.tls import TlsError, TlsStream
from gateway.net.tls_contexts import server_context
from gateway.outbound.transports import make_transports, read_transports
from gateway.smtp.server import ServerLimits
from gateway_smtp.direct import Direct
from gateway_smtp.mx import MxTransport
from tests.dns_server import DnsServer, dns_server
from tests.net.authority import Issued, new_root, root
from tests.networks import KnownPolicies, a_network
from tests.plugins.smtp_servers import Server
from tests.ports import free_port

Script = Callable[[trio.SocketStream], Awaitable[Any]]


def issued(kind: str, name: str) -> Issued:
    """A certificate that is "good" for a host, or what is wrong with it."""
    match kind:
        case "good":
            return root().issue(name)
        case "expired":
            return root().issue(name, days=-1)
        case "wrong name":
            return root().issue("other.example")
    assert kind == "self-signed"
    return new_root(name)


def server_tls(of: Issued) -> SSL.Context:
    assert isinstance(of.key, ec.EllipticCurvePrivateKey)
    return server_context(Certificate(tuple(of.chain), of.key))


def wanting_a_certificate(of: Issued) -> SSL.Context:
    """That of a server which ends the connection with an alert where the client has none."""
    context = server_tls(of)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    return context


@dataclass
class MxHosts:
    """All listen on one port, each on an address of its own."""

    dns: DnsServer
    directory: Path
    nursery: trio.Nursery
    policies: KnownPolicies = field(default_factory=KnownPolicies)
    real_policies: Policies | None = None  # in place of those
    port: int = 0
    connections: dict[str, int] = field(default_factory=dict)  # by address

    def domain(self, name: str, *hosts: str, secure: bool = False) -> None:
        """MX records, in the order given."""
        records = [f"{number} {host}." for number, host in enumerate(hosts, 1)]
        self.dns.add(name, "MX", *records, secure=secure)

    def address(self, name: str, *addresses: str, secure: bool = False) -> None:
        for rdtype, of_type in (("A", "."), ("AAAA", ":")):
            texts = [address for address in addresses if of_type in address]
            if texts:
                self.dns.add(name, rdtype, *texts, secure=secure)

    def tlsa(self, name: str, of: Issued, *, usage: int = 3) -> None:
        self.tlsa_of(name, of.certificate, usage=usage)

    def tlsa_of(self, name: str, certificate: x509.Certificate, *, usage: int = 3) -> None:
        data = certificate.public_bytes(Encoding.DER).hex()
        self.dns.add(f"_{self.port}._tcp.{name}", "TLSA", f"{usage} 0 0 {data}", secure=True)

    def policy(self, domain: str, mx: str, mode: str = "enforce") -> None:
        text = f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n"
        self.policies.of[domain] = StsAnswer(parse_policy(text.encode()))

    def table(self, type: str = "direct", **settings: Any) -> dict[str, Any]:  # noqa: A002
        """[transports.NAME] for these."""
        return {"type": type, "port": self.port, "allow_networks": ["127.0.0.0/8", "::1/128"]} | settings

    async def server(
        self,
        address: str,
        server: Server | None = None,
        *,
        tls: Issued | None = None,
        name: str = "mx.example.org",
    ) -> Server:
        """The real SMTP server."""
        server = server or Server()
        [listener] = await trio.open_tcp_listeners(self.port, host=address)
        how = ServerSettings(ServerLimits(name), tls=None if tls is None else partial(server_tls, tls))
        await self.nursery.start(partial(serve_smtp, [listener], how, server, None))
        return server

    async def script(self, address: str, *connections: Script) -> None:
        """A server that does this with one connection after the other, and then the last again."""
        scripts = list(connections)

        async def serve(stream: trio.SocketStream) -> None:
            self.connections[address] = self.connections.get(address, 0) + 1
            async with stream:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await (scripts.pop(0) if len(scripts) > 1 else scripts[0])(stream)

        [listener] = await trio.open_tcp_listeners(self.port, host=address)
        self.nursery.start_soon(trio.serve_listeners, serve, [listener])

    @asynccontextmanager
    async def transport(
        self,
        type: str = "direct",  # noqa: A002
        *,
        shaper: Shaper | None = None,
        **settings: Any,
    ) -> AsyncIterator[MxTransport]:
        """With all that runs beside it; it trusts the tests' authority."""
        ca_file = self.directory / "ca.pem"
        ca_file.write_bytes(root().pem)
        table = self.table(type, ca_file=str(ca_file), tls_timeout=5.0) | settings
        policies = self.real_policies or self.policies
        # The server answers; on a busy machine that may take a while.
        network = a_network(self.dns.settings(timeout=20.0), policies, shaper)
        read = read_transports({"out": table}, Direct().transports(), self.directory)
        made = make_transports(read, network)["out"]
        assert isinstance(made, MxTransport)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.serve)
            yield made
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def mx_hosts(directory: Path) -> AsyncIterator[MxHosts]:
    async with dns_server() as dns, trio.open_nursery() as nursery:
        dns.secure_denial = True
        yield MxHosts(dns, directory, nursery, port=free_port())
        nursery.cancel_scope.cancel()


# --- What servers do ---


async def smtp(
    stream: trio.abc.Stream,
    *,
    tls: Issued | None = None,
    capabilities: tuple[str, ...] = (),
    replies: dict[str, bytes] | None = None,
    greeting: bytes = b"220 mx\r\n",
) -> None:
    """A server that takes messages. `replies` has other answers, by command or by whole line ("." is the
    final dot); an empty one closes the connection."""
    replies = replies or {}
    if greeting:
        await stream.send_all(greeting)
    buffer, data = b"", False
    while True:
        while b"\r\n" not in buffer:
            received = await stream.receive_some()
            if not received:
                return
            buffer += received
        line, _, buffer = buffer.partition(b"\r\n")
        if data and line != b".":
            continue
        word = (
            "." if data else line.decode() if line.decode() in replies else line.partition(b" ")[0].decode()
        )
        data = word == "DATA" and word not in replies
        if word in replies:
            if not replies[word]:
                return
            await stream.send_all(replies[word])
        elif word == "EHLO":
            words = [*capabilities, *(["STARTTLS"] if tls is not None else []), "8BITMIME"]
            lines = "".join(f"250-{one}\r\n" for one in ("mx", *words[:-1])) + f"250 {words[-1]}\r\n"
            await stream.send_all(lines.encode())
        elif word == "STARTTLS" and tls is not None:
            await stream.send_all(b"220 go\r\n")
            inner = await TlsStream.accept(stream, server_tls(tls), timeout=5)
            await smtp(inner, capabilities=capabilities, replies=replies, greeting=b"")
            return
        elif word == "QUIT":
            await stream.send_all(b"221 bye\r\n")
            return
        else:
            await stream.send_all(b"354 go\r\n" if data else b"250 2.0.0 ok\r\n")


def that(**how: Any) -> Script:
    """A script for `MxHosts.script`: `smtp` with these arguments."""

    async def serve(stream: trio.SocketStream) -> None:
        await smtp(stream, **how)

    return serve


def sends(data: bytes, *, then_waits: bool = True) -> Script:
    """A server that sends this as its greeting."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        if then_waits:
            await trio.sleep_forever()

    return serve


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def hangs_in_handshake(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 mx\r\n")
    await stream.receive_some()
    await stream.send_all(b"250-mx\r\n250 STARTTLS\r\n")
    await stream.receive_some()
    await stream.send_all(b"220 go\r\n")
    await trio.sleep_forever()


# What becomes of TLS when the client has done its part, and no word has come.
BREAKS = ("alert", "cut", "closed")


def breaks_in_tls(how: str, of: Issued, *, version: int = SSL.TLS1_3_VERSION) -> Script:
    """A server that ends it: with an alert, for it wants a certificate of the client, which TLS 1.3 lets it
    say only behind the handshake; by a cut, or in good order."""
    context = wanting_a_certificate(of) if how == "alert" else server_tls(of)
    context.set_max_proto_version(version)

    async def end(stream: TlsStream) -> None:
        assert how != "alert"
        await stream.receive_some()
        await (stream.aclose() if how == "closed" else stream.transport_stream.aclose())

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(TlsError):
            await in_tls(context, end)(stream)

    return serve


def says_in_tls(words: bytes, of: Issued, *, then_waits: bool = False) -> Script:
    """A server whose answer to the EHLO within TLS is this, and the last that it says."""

    async def say(stream: TlsStream) -> None:
        await stream.receive_some()
        if words:
            await stream.send_all(words)
        if then_waits:
            await trio.sleep_forever()

    return in_tls(server_tls(of), say)


def in_tls(context: SSL.Context, then: Callable[[TlsStream], Awaitable[None]]) -> Script:
    async def serve(stream: trio.SocketStream) -> None:
        for line in (b"220 mx\r\n", b"250-mx\r\n250 STARTTLS\r\n", b"220 go\r\n"):
            await stream.send_all(line)
            if not line.endswith(b"go\r\n"):
                await stream.receive_some()
        await then(await TlsStream.accept(stream, context, timeout=5))

    return serve
