"""Servers for the transports to deliver to: the real SMTP server on loopback, and scripted ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway import Address, Delivery, DsnRequest, Outcome, testing
from gateway.accounts.logins import Login
from gateway.config.accounts import AccountSettings
from gateway.net.certificates import load_certificate, self_signed
from gateway.net.shaping import Shaper
from gateway.net.smtp_connection import TlsContext
from gateway.net.smtp_handler import Exchange, Session, Sink
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.net.tls_contexts import server_context
from gateway.outbound.transports import make_transports, read_transports
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from gateway.smtp.scram import ScramServer, derive
from gateway.smtp.server import ServerLimits
from gateway_smtp.fail import Fail
from gateway_smtp.smtp import Smtp
from gateway_smtp.transport import NextHopTransport
from tests.networks import a_network

USER, PASSWORD = "gateway@example.org", "correct horse battery"
CONTENT = b"Subject: hi\r\n\r\n.private words\r\n"


def delivery(
    *recipients: str, data: bytes = CONTENT, dsn: tuple[DsnRequest, ...] = (), **changes: Any
) -> Delivery:
    made = testing.delivery(*(recipients or ("b@example.net",)), data=data, **changes)
    return replace(made, dsn=dsn)


@asynccontextmanager
async def transport(config_dir: Path, **settings: Any) -> AsyncIterator[NextHopTransport]:
    """As [transports.relay] makes it, while its own work runs."""
    async with shaped_transport(config_dir, Shaper(), **settings) as made:
        yield made


@asynccontextmanager
async def shaped_transport(
    config_dir: Path, limits: Shaper, /, **settings: Any
) -> AsyncIterator[NextHopTransport]:
    """The same, with others at the same next hops."""
    types = Smtp().transports() | Fail().transports()
    network = a_network(shaper=limits)
    made = make_transports(read_transports({"relay": settings}, types, config_dir), network)["relay"]
    assert isinstance(made, NextHopTransport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.serve)
        yield made
        nursery.cancel_scope.cancel()


@dataclass
class Server:
    """A handler and what it was given. `decide` may refuse: it gets the step and a recipient's localpart."""

    decide: Callable[[str, str], Reply | None] = lambda step, localpart: None
    port: int = 0
    sessions: dict[str, Session] = field(default_factory=dict)  # by ID
    transactions: list[tuple[Envelope, bytes]] = field(default_factory=list)

    async def connected(self, session: Session) -> Reply | None:
        return self.decide("connect", "")

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        self.sessions[session.id] = session
        return self.decide("mail", "")

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        return self.decide("rcpt", recipient.localpart)

    async def open_data(self, session: Session, envelope: Envelope) -> Sink | Reply:
        return _Sink(self, envelope)

    @property
    def recipients(self) -> list[list[str]]:
        """Of each transaction."""
        return [[one.localpart for one in envelope.recipients] for envelope, _ in self.transactions]


@dataclass
class _Sink:
    server: Server
    envelope: Envelope
    data: bytes = b""

    async def write(self, data: bytes) -> Reply | None:
        self.data += data
        return None

    async def commit(self) -> Reply:
        if (refused := self.server.decide("dot", "")) is not None:
            return refused
        self.server.transactions.append((self.envelope, self.data))
        return Reply(250, "2.0.0", ("Stored",))

    async def abort(self) -> None:
        pass


class OneLogin:
    """Logins that know USER, by mechanisms given; `refuse` answers any login that is right."""

    def __init__(self, *mechanisms: str, refuse: Reply | None = None, stall: bool = False) -> None:
        self._mechanisms, self._refuse, self._stall = mechanisms, refuse, stall
        self.used: list[str] = []

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return self._mechanisms

    def begin(self, session: Session, mechanism: str) -> Exchange:
        self.used.append(mechanism)
        return _Exchange(session, mechanism, self._refuse, self._stall)


class _Exchange:
    def __init__(self, session: Session, mechanism: str, refuse: Reply | None, stall: bool) -> None:
        self._mechanism, self._refuse, self._stall = mechanism, refuse, stall
        self._steps = 0
        digest = "sha1" if "SHA-1" in mechanism else "sha256"
        self._secret = derive(PASSWORD, b"salt", 10, digest)
        plus = mechanism.endswith("-PLUS")
        self._scram = ScramServer(session.binding if plus else None, plus=plus, digest=digest)

    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        if self._stall:
            await trio.sleep_forever()
        self._steps += 1
        if self._mechanism == "PLAIN":
            good = response == f"\0{USER}\0{PASSWORD}".encode()
            return self._yes() if good else Reply(535, "5.7.8", ("Wrong",))
        assert response is not None
        match self._steps:
            case 1:
                assert self._scram.read_first(response) == USER
                return self._scram.first(self._secret)
            case 2:
                return self._scram.read_final(response) or Reply(535, "5.7.8", ("Wrong",))
        return self._yes()

    def _yes(self) -> Reply | Login:
        account = AccountSettings(addresses=(Address.parse(USER),))
        return self._refuse or Login("app", Address.parse(USER), account)


@asynccontextmanager
async def serving(
    server: Server | None = None,
    logins: OneLogin | None = None,
    *,
    host: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Server]:
    """The real SMTP server."""
    server = server or Server()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        server.port = listeners[0].socket.getsockname()[1]
        how = ServerSettings(ServerLimits("mx.example.org"), **settings)
        await nursery.start(partial(serve_smtp, listeners, how, server, logins))
        yield server
        nursery.cancel_scope.cancel()


def smtp_transport(server: Server, **settings: Any) -> dict[str, Any]:
    """The table of a transport that delivers to it."""
    return {"type": "smtp", "host": "127.0.0.1", "port": server.port, "tls": "none", **settings}


@asynccontextmanager
async def scripted(*connections: Callable[[trio.SocketStream], Any]) -> AsyncIterator[int]:
    """The port of a server that does this with one connection after the other."""
    left = list(connections)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await left.pop(0)(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@dataclass(frozen=True)
class Tls:
    """A certificate of its own authority, as a file to trust and for a server."""

    ca_file: str
    context: TlsContext


def make_tls(directory: Path, name: str, made: datetime | None = None) -> Tls:
    """Self-signed, for this machine, made now (or long ago: then it has expired)."""
    pem, key = self_signed(made or datetime.now(UTC))
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    for path, data in zip(paths, (pem, key), strict=True):
        path.write_bytes(data)
    context = server_context(load_certificate(*paths))
    return Tls(str(paths[0]), lambda: context)


def results(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    return [(outcome.result.value, outcome.code) for outcome in outcomes]
