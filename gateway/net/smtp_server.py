"""Serves SMTP on trio listeners: moves bytes and time for the machine in `gateway.smtp.server`.

Three rules hold throughout:

1. The Handler decides. Whatever it raises is logged and answered with 451, and ends neither its connection
   nor another one; only cancellation passes.
2. Message data goes to the Sink that the handler made, a chunk at a time, and the client is read no faster
   than the sink takes it. So a slow client holds one chunk of memory; where the rest lies is up to the sink.
3. Every wait for the client ends at a time limit, and bytes that come in drips do not extend it.
4. With the first byte of a TLS handshake a new session begins, for the machine and for the handler.
"""

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

import trio
from OpenSSL import SSL

from gateway.accounts import Login
from gateway.net.smtp_handler import Exchange, Handler, Logins, Session, Sink
from gateway.net.tls import TlsError, TlsStream
from gateway.smtp.commands import Auth, Data, Mail, Rcpt, StartTls
from gateway.smtp.events import (
    AuthResponse,
    Closed,
    Connected,
    DataChunk,
    DataEnd,
    DataRefused,
    Envelope,
    NeedData,
)
from gateway.smtp.replies import Reply
from gateway.smtp.server import SEND_DATA, Offer, ServerLimits, SmtpServer, State, nothing_more

logger = logging.getLogger(__name__)

_CHUNK = 65536  # octets read at once
_LAST_WORDS = 5.0  # seconds to turn a connection away, and for a sink to clean up
_MAX_TURNING_AWAY = 100  # connections at a time that are told why; more are just closed

_MAIL_OK = Reply(250, "2.1.0", ("Sender OK",))
_RCPT_OK = Reply(250, "2.1.5", ("Recipient OK",))
_FAILURE = Reply(451, "4.3.0", ("Internal error, try again later",))
_LOGIN_FAILURE = Reply(454, "4.7.0", ("Logins can't be checked now, try again later",))
_LOGGED_IN = Reply(235, "2.7.0", ("Authentication successful",))
_STOPPING = Reply(421, "4.3.2", ("Service is shutting down",))
_IDLE = Reply(421, "4.4.2", ("No command in time",))
_SLOW_DATA = Reply(421, "4.4.2", ("Message data is too slow",))
_FULL = Reply(421, "4.3.2", ("Too many connections, try again later",))
_NETWORK_FULL = Reply(421, "4.7.0", ("Too many connections from your network",))


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How one service is run. Times are in seconds."""

    limits: ServerLimits
    tls: SSL.Context | None = None
    tls_at_once: bool = False  # before the greeting (RFC 8314); else by STARTTLS
    more_extensions: Callable[[], tuple[str, ...]] = nothing_more  # lines of EHLO: see `Offer.more`
    login_without_tls: bool = False  # passwords in the clear: on this machine only
    tls_timeout: float = 60.0  # for the handshake
    max_connections: int = 1000
    max_connections_per_network: int | None = 50  # of a /24 (IPv4) or a /64 (IPv6); None is unlimited
    command_timeout: float = 300.0  # from a reply to the whole next command (RFC 5321 section 4.5.3.2.7)
    data_timeout: float = 180.0  # without any message data (RFC 5321 section 4.5.3.2.5)
    min_data_rate: float = 1024.0  # octets a second of message data that the client owes on the whole
    send_timeout: float = 60.0  # for the client to take our replies
    grace: float = 30.0  # for transactions under way when the service stops


_AnyStream = TypeVar("_AnyStream", bound=trio.abc.Stream)


async def serve_smtp(
    listeners: Sequence[trio.abc.Listener[_AnyStream]],
    settings: ServerSettings,
    handler: Handler,
    logins: Logins | None = None,
    *,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[_AnyStream]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping` is set, and then until the last transaction ends or `settings.grace` is over.

    With `logins` mail is taken from those only who are logged in.

    Resource handling: the listeners are closed when accepting ends. Error handling: an error of a connection
    is logged and stays in it; an error in accepting, other than a passing lack of resources, is raised.
    Cancellation ends all connections at once.
    """
    server = _Server(settings, handler, logins)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            await accepting.start(
                partial(trio.serve_listeners, server.serve, list(listeners), handler_nursery=connections)
            )
            task_status.started(listeners)
            await (trio.Event() if stopping is None else stopping).wait()
            accepting.cancel_scope.cancel()
        connections.cancel_scope.deadline = trio.current_time() + settings.grace
        server.stop()


class _Server:
    """What the connections of a service share."""

    def __init__(self, settings: ServerSettings, handler: Handler, logins: Logins | None) -> None:
        self.settings = settings
        self.handler = handler
        self.logins = logins
        self.offer = Offer(
            starttls=settings.tls is not None,
            login=logins is not None,
            require_tls=True,
            more=settings.more_extensions,
        )
        self.stopping = False
        self._idle: set[trio.CancelScope] = set()
        self._connections = 0
        self._turning_away = 0
        self._networks: Counter[tuple[int, int] | None] = Counter()

    def stop(self) -> None:
        self.stopping = True
        for scope in self._idle:
            scope.cancel()

    @contextmanager
    def idle(self, scope: trio.CancelScope) -> Iterator[None]:
        """A wait that `stop` ends by cancelling the scope."""
        if self.stopping:
            scope.cancel()
        self._idle.add(scope)
        try:
            yield
        finally:
            self._idle.discard(scope)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection. Raises nothing but cancellation."""
        try:
            peer = _peer(stream)
            refusal = self._room(peer)
            if refusal is None:
                with self._counted(peer):
                    await _Connection(self, stream, peer).run()
            else:
                await self._turn_away(stream, refusal)
        except* Exception:  # never Cancelled, not even when a group has both
            logger.exception("SMTP connection failed")

    def _room(self, peer: IPv4Address | IPv6Address | None) -> Reply | None:
        if self._connections >= self.settings.max_connections:
            return _FULL
        limit = self.settings.max_connections_per_network
        if limit is not None and peer is not None and self._networks[_network(peer)] >= limit:
            return _NETWORK_FULL
        return None

    @contextmanager
    def _counted(self, peer: IPv4Address | IPv6Address | None) -> Iterator[None]:
        network = _network(peer)
        self._connections += 1
        self._networks[network] += 1
        try:
            yield
        finally:
            self._connections -= 1
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    async def _turn_away(self, stream: trio.abc.Stream, reply: Reply) -> None:
        if self._turning_away >= _MAX_TURNING_AWAY:
            return
        self._turning_away += 1
        try:
            with trio.move_on_after(_LAST_WORDS):
                if not self.settings.tls_at_once:  # there, it would be no word that the client knows
                    await stream.send_all(reply.render())
                await stream.aclose()
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            self._turning_away -= 1


class _Connection:
    def __init__(
        self, server: _Server, stream: trio.abc.Stream, peer: IPv4Address | IPv6Address | None
    ) -> None:
        self._server = server
        self._settings = server.settings
        self._handler = server.handler
        self._stream = stream
        self._session = Session(secrets.token_hex(6), peer)
        self._machine = self._new_machine()
        self._exchange: Exchange | None = None  # a login under way
        self._sink: Sink | None = None
        self._command_deadline = 0.0
        self._data_received = 0  # octets of the message under way, as they came
        self._data_waited = 0.0  # seconds waited for them

    def _new_machine(self) -> SmtpServer:
        return SmtpServer(
            self._settings.limits,
            self._server.offer,
            in_tls=bool(self._session.tls),
            mechanisms=self._mechanisms(),
        )

    async def run(self) -> None:
        if self._settings.tls_at_once:
            if not await self._start_tls():
                return
            self._machine = self._new_machine()
        await self._serve()
        if isinstance(self._stream, TlsStream):
            await self._stream.aclose()  # the end was no cut

    async def _serve(self) -> None:
        async with self._sink_aborted():
            while True:
                event = self._machine.next_event()
                match event:
                    case NeedData():
                        if not await self._flush():
                            return
                        await self._receive()
                    case Closed():
                        await self._flush()
                        return
                    case StartTls():
                        if not (await self._flush() and await self._start_tls()):
                            return
                        self._machine.tls_started(self._mechanisms())
                    case Auth(mechanism, initial):
                        await self._begin_login(mechanism, initial)
                    case AuthResponse(response):
                        await self._step_login(response)
                    case DataChunk(data):
                        await self._write(data)
                    case DataRefused():
                        await self._abort()
                    case Connected():
                        reply = await self._ask(
                            self._machine.greeting, self._handler.connected, self._session
                        )
                        self._machine.answer(reply)
                    case Mail() | Rcpt() | Data() | DataEnd():
                        self._machine.answer(await self._decide(event))

    # --- TLS and login ---

    async def _start_tls(self) -> bool:
        """The handshake, and a session that remembers nothing of what was before; False without success."""
        settings = self._settings
        assert settings.tls is not None
        try:
            stream = await TlsStream.accept(self._stream, settings.tls, timeout=settings.tls_timeout)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            why = str(exc) if isinstance(exc, TlsError) else "connection lost in the TLS handshake"
            logger.info("%s: %s (peer %s)", self._session.id, why, self._session.peer)
            return False
        self._stream = stream
        self._session = Session(
            self._session.id, self._session.peer, tls=stream.version, binding=stream.channel_binding
        )
        self._command_deadline = trio.current_time() + settings.command_timeout
        return True

    def _mechanisms(self) -> tuple[str, ...]:
        logins = self._server.logins
        if logins is None or not (self._session.tls or self._settings.login_without_tls):
            return ()
        return logins.mechanisms(self._session)

    async def _begin_login(self, mechanism: str, initial: bytes | None) -> None:
        assert self._server.logins is not None
        self._exchange = self._server.logins.begin(self._session, mechanism)
        await self._step_login(initial)

    async def _step_login(self, response: bytes | None) -> None:
        assert self._exchange is not None
        try:
            answer = await self._exchange.step(response)
        except Exception:
            logger.exception("%s: login failed, answered with 454", self._session.id)
            answer = _LOGIN_FAILURE
        match answer:
            case bytes():
                self._machine.challenge(answer)
                return
            case Login():
                self._session = replace(self._session, login=answer)
                logger.info(
                    "login session=%s account=%s address=%s peer=%s",
                    self._session.id,
                    answer.account,
                    answer.address,
                    self._session.peer,
                )
                self._machine.answer(_LOGGED_IN)
            case Reply():
                self._machine.answer(answer)
        self._exchange = None

    async def _decide(self, event: Mail | Rcpt | Data | DataEnd) -> Reply:
        envelope = self._machine.envelope
        assert envelope is not None
        match event:
            case Mail():
                if self._server.stopping:
                    return _STOPPING
                self._session = replace(self._session, hello=self._machine.hello)
                return await self._ask(_MAIL_OK, self._handler.mail, self._session, envelope)
            case Rcpt(recipient):
                return await self._ask(_RCPT_OK, self._handler.rcpt, self._session, envelope, recipient)
            case Data():
                return await self._open(envelope)
            case DataEnd():
                return await self._commit()

    # --- The handler and its sink ---

    async def _ask(
        self, usual: Reply | None, method: Callable[..., Awaitable[object]], *arguments: object
    ) -> Reply:
        """The handler's reply, the usual one for None, or 451 when there is none that can be given."""
        try:
            reply = await method(*arguments)
        except Exception:
            logger.exception("%s: handler failed, answered with 451", self._session.id)
            return _FAILURE
        if reply is None and usual is not None:
            return usual
        if isinstance(reply, Reply) and reply.code // 100 != 3:
            return reply
        logger.error("%s: handler answered with %.200r, answered with 451", self._session.id, reply)
        return _FAILURE

    async def _open(self, envelope: Envelope) -> Reply:
        try:
            answer: object = await self._handler.open_data(self._session, envelope)
        except Exception:
            logger.exception("%s: handler failed, answered with 451", self._session.id)
            return _FAILURE
        if isinstance(answer, Reply):
            if answer.code >= 400:
                return answer
        elif all(hasattr(answer, method) for method in ("write", "commit", "abort")):
            self._sink = answer  # type: ignore[assignment]  # as far as can be seen, it is one
            self._data_received, self._data_waited = 0, 0.0
            return SEND_DATA
        logger.error("%s: handler answered DATA with %.200r", self._session.id, answer)
        return _FAILURE

    async def _write(self, data: bytes) -> None:
        if self._sink is None:
            return
        try:
            reply = await self._sink.write(data)
        except Exception:
            logger.exception("%s: message data can't be stored", self._session.id)
            reply = _FAILURE
        if reply is not None:
            self._machine.refuse_data(reply)
            await self._abort()

    async def _commit(self) -> Reply:
        sink = self._sink
        assert sink is not None
        committed = False

        async def commit() -> Reply:
            nonlocal committed
            reply = await sink.commit()
            committed = True
            return reply

        reply = await self._ask(None, commit)
        if committed:
            self._sink = None
        else:
            await self._abort()
        return reply

    async def _abort(self) -> None:
        """Tell the sink, if there is one, that its message is not to be; also when cancelled."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        with trio.CancelScope(deadline=trio.current_time() + _LAST_WORDS, shield=True) as scope:
            try:
                await sink.abort()
            except Exception:
                logger.exception("%s: sink failed to clean up", self._session.id)
        if scope.cancelled_caught:
            logger.error("%s: sink took over %g s to clean up", self._session.id, _LAST_WORDS)

    @asynccontextmanager
    async def _sink_aborted(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._abort()

    # --- The client ---

    async def _flush(self) -> bool:
        """Send what there is; False when the client is gone or does not read."""
        data = self._machine.data_to_send()
        if not data:
            return True
        with trio.move_on_after(self._settings.send_timeout) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                return False
        # The time for a command starts with the reply to the last one, and nothing else sets it back.
        self._command_deadline = trio.current_time() + self._settings.command_timeout
        return not scope.cancelled_caught

    async def _receive(self) -> None:
        """Give the machine what the client sends, or end the session when it takes too long."""
        machine, started = self._machine, trio.current_time()
        in_data = machine.state is State.DATA
        with trio.CancelScope() as scope:
            scope.deadline = self._data_deadline(started) if in_data else self._command_deadline
            try:
                if machine.envelope is None:
                    with self._server.idle(scope):
                        data = bytes(await self._stream.receive_some(_CHUNK))
                else:
                    data = bytes(await self._stream.receive_some(_CHUNK))
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                data = b""
        if scope.cancelled_caught:
            idle = machine.envelope is None
            machine.close(_STOPPING if idle and self._server.stopping else _SLOW_DATA if in_data else _IDLE)
            return
        if in_data:
            self._data_received += len(data)
            self._data_waited += trio.current_time() - started
        machine.receive_data(data)

    def _data_deadline(self, now: float) -> float:
        """Each wait is limited, and so are all waits for a message together: by how much of it came."""
        timeout = self._settings.data_timeout
        owed = timeout + self._data_received / self._settings.min_data_rate - self._data_waited
        return now + min(timeout, owed)


def _peer(stream: trio.abc.Stream) -> IPv4Address | IPv6Address | None:
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
        address = ip_address(str(name[0]).partition("%")[0])
    except (OSError, ValueError, IndexError):  # gone already, or a Unix socket
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(peer: IPv4Address | IPv6Address | None) -> tuple[int, int] | None:
    if peer is None:
        return None
    return (peer.version, int(peer) >> (8 if peer.version == 4 else 64))
