"""One SMTP connection: moves bytes and time for the machine in `gateway.smtp.server`.

Four rules hold throughout:

1. The Handler decides. Whatever it raises is logged and answered with 451, and ends neither its connection
   nor another one; only cancellation passes.
2. Message data goes to the Sink that the handler made, a chunk at a time, and the client is read no faster
   than the sink takes it. So a slow client holds one chunk of memory; where the rest lies is up to the sink.
3. Every wait for the client ends at a time limit, and bytes that come in drips do not extend it.
4. With the first byte of a TLS handshake a new session begins, for the machine and for the handler.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias, TypeVar

import trio
from OpenSSL import SSL

from gateway.accounts.logins import Login
from gateway.net.deadlines import Deadlines
from gateway.net.smtp_handler import Exchange, Handler, Logins, Session, Sink
from gateway.net.tls import TlsError, TlsStream
from gateway.smtp.commands import Auth, Bdat, Data, Mail, Rcpt, StartTls
from gateway.smtp.events import (
    AuthResponse,
    Closed,
    Connected,
    DataChunk,
    DataDropped,
    DataEnd,
    DataRefused,
    Envelope,
    NeedData,
)
from gateway.smtp.replies import Reply
from gateway.smtp.server import SEND_DATA, Offer, ServerLimits, SmtpServer, State, nothing_more
from gateway.turns import Turns

logger = logging.getLogger(__name__)

_CHUNK = 65536  # octets read at once
_CLEAN_UP = 5.0  # seconds for a sink

_MAIL_OK = Reply(250, "2.1.0", ("Sender OK",))
_RCPT_OK = Reply(250, "2.1.5", ("Recipient OK",))
_FAILURE = Reply(451, "4.3.0", ("Internal error, try again later",))
_LOGIN_FAILURE = Reply(454, "4.7.0", ("Logins can't be checked now, try again later",))
_LOGGED_IN = Reply(235, "2.7.0", ("Authentication successful",))
_STOPPING = Reply(421, "4.3.2", ("Service is shutting down",))
_IDLE = Reply(421, "4.4.2", ("No command in time",))
_SLOW_DATA = Reply(421, "4.4.2", ("Message data is too slow",))

_T = TypeVar("_T")


TlsContext: TypeAlias = Callable[[], SSL.Context]  # asked for each connection: certificates are renewed


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How one service is run. Times are in seconds."""

    limits: ServerLimits
    tls: TlsContext | None = None
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


class Shared:
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
        self.deadlines = Deadlines()
        self.stopping = False
        self.idle: set[trio.CancelScope] = set()  # of connections that `stop` ends by cancelling them

    def stop(self) -> None:
        self.stopping = True
        for scope in self.idle:
            scope.cancel()

    @contextmanager
    def ended_by_stop(self, scope: trio.CancelScope) -> Iterator[None]:
        """Run something that nobody has to wait for when the service stops."""
        with scope:
            self.idle.add(scope)
            if self.stopping:
                scope.cancel()
            try:
                yield
            finally:
                self.idle.discard(scope)


class Connection:
    """Serves one client; `run` returns when the session is over."""

    def __init__(
        self, shared: Shared, stream: trio.abc.Stream, peer: IPv4Address | IPv6Address | None
    ) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._handler = shared.handler
        self._stream = stream
        self._session = Session(secrets.token_hex(6), peer)
        self._machine = self._new_machine()
        self._exchange: Exchange | None = None  # a login under way
        self._sink: Sink | None = None
        self._turns = Turns()  # for what a client sent at once
        # Around the whole session, with a deadline only while the client is waited for: a scope for each wait
        # would cost a tenth of all that is done for a message.
        self._patience = trio.CancelScope()
        self._last_word: Reply | None = None  # when that is over; None where the client does not read
        self._command_deadline = 0.0
        self._data_received = 0  # octets of the message under way, as they came
        self._data_waited = 0.0  # seconds waited for them

    def _new_machine(self) -> SmtpServer:
        return SmtpServer(
            self._settings.limits,
            self._shared.offer,
            in_tls=bool(self._session.tls),
            mechanisms=self._mechanisms(),
        )

    async def run(self) -> None:
        if self._settings.tls_at_once:
            if not await self._start_tls():
                return
            self._machine = self._new_machine()
        try:
            with self._patience:
                await self._serve()
            if self._patience.cancelled_caught:
                await self._give_up()
        finally:
            await self._abort()
        if isinstance(self._stream, TlsStream):
            await self._stream.aclose()  # the end was no cut

    async def _serve(self) -> None:
        while True:
            event = self._machine.next_event()
            match event:
                case NeedData():
                    if not await self._flush():
                        return
                    await self._receive()
                case Mail() | Rcpt() | Data() | Bdat() | DataEnd():
                    await self._turns.give()
                    self._machine.answer(await self._decide(event))
                case DataChunk(data):
                    await self._write(data)
                case DataRefused() | DataDropped():
                    await self._abort()
                case Connected():
                    reply = await self._ask(self._machine.greeting, self._handler.connected, self._session)
                    self._machine.answer(reply)
                case StartTls():
                    if not (await self._flush() and await self._start_tls()):
                        return
                    self._machine.tls_started(self._mechanisms())
                case Auth(mechanism, initial):
                    await self._begin_login(mechanism, initial)
                case AuthResponse(response):
                    await self._step_login(response)
                case Closed():
                    await self._flush()
                    return

    # --- TLS and login ---

    async def _start_tls(self) -> bool:
        """The handshake, and a session that remembers nothing of what was before; False without success."""
        settings = self._settings
        assert settings.tls is not None
        stream = None
        with self._shared.ended_by_stop(trio.CancelScope()):
            try:
                stream = await TlsStream.accept(self._stream, settings.tls(), timeout=settings.tls_timeout)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
                why = str(exc) if isinstance(exc, TlsError) else "connection lost in the TLS handshake"
                logger.info("%s: %s (peer %s)", self._session.id, why, self._session.peer)
        if stream is None:
            return False
        self._stream = stream
        self._session = Session(
            self._session.id, self._session.peer, tls=stream.version, binding=stream.channel_binding
        )
        self._command_deadline = trio.current_time() + settings.command_timeout
        return True

    def _mechanisms(self) -> tuple[str, ...]:
        logins = self._shared.logins
        if logins is None or not (self._session.tls or self._settings.login_without_tls):
            return ()
        return logins.mechanisms(self._session)

    async def _begin_login(self, mechanism: str, initial: bytes | None) -> None:
        assert self._shared.logins is not None
        self._exchange = self._shared.logins.begin(self._session, mechanism)
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

    async def _decide(self, event: Mail | Rcpt | Data | Bdat | DataEnd) -> Reply:
        envelope = self._machine.envelope
        assert envelope is not None
        match event:
            case Mail():
                if self._shared.stopping:
                    return _STOPPING
                if self._session.hello is not self._machine.hello:
                    self._session = replace(self._session, hello=self._machine.hello)
                return await self._ask(_MAIL_OK, self._handler.mail, self._session, envelope)
            case Rcpt(recipient):
                return await self._ask(_RCPT_OK, self._handler.rcpt, self._session, envelope, recipient)
            case Data() | Bdat():
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
        with trio.CancelScope(deadline=trio.current_time() + _CLEAN_UP, shield=True) as scope:
            try:
                await sink.abort()
            except Exception:
                logger.exception("%s: sink failed to clean up", self._session.id)
        if scope.cancelled_caught:
            logger.error("%s: sink took over %g s to clean up", self._session.id, _CLEAN_UP)

    # --- The client ---

    async def _flush(self) -> bool:
        """Send what there is; False when the client is gone."""
        data = self._machine.data_to_send()
        if not data:
            return True
        try:
            await self._wait(
                trio.current_time() + self._settings.send_timeout, None, self._stream.send_all(data)
            )
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return False
        # The time for a command starts with the reply to the last one, and nothing else sets it back.
        self._command_deadline = trio.current_time() + self._settings.command_timeout
        return True

    async def _receive(self) -> None:
        """Give the machine what the client sends."""
        machine, started = self._machine, trio.current_time()
        if machine.state in (State.DATA, State.CHUNKS):
            deadline, last_word = self._data_deadline(started), _SLOW_DATA
        else:
            deadline, last_word = self._command_deadline, _IDLE
        idle = machine.envelope is None
        if idle:
            self._shared.idle.add(self._patience)
            if self._shared.stopping:
                self._patience.cancel()
        try:
            data = bytes(await self._wait(deadline, last_word, self._stream.receive_some(_CHUNK)))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            data = b""
        finally:
            if idle:
                self._shared.idle.discard(self._patience)
        if last_word is _SLOW_DATA:
            self._data_received += len(data)
            self._data_waited += trio.current_time() - started
        machine.receive_data(data)
        self._turns = Turns()

    async def _wait(self, deadline: float, last_word: Reply | None, what: Awaitable[_T]) -> _T:
        """What the client is waited for; it is the end of the session when that takes too long."""
        self._last_word = last_word
        self._shared.deadlines.set(self._patience, deadline)
        try:
            result = await what
        finally:
            self._shared.deadlines.clear(self._patience)
        await trio.lowlevel.checkpoint_if_cancelled()  # in the same moment: nothing else is to be cancelled
        return result

    async def _give_up(self) -> None:
        """Say why the session ends, to a client that reads."""
        if self._last_word is None:
            return
        stopping = self._shared.stopping and self._machine.envelope is None
        self._machine.close(_STOPPING if stopping else self._last_word)
        self._patience = trio.CancelScope()
        with self._patience:
            await self._flush()

    def _data_deadline(self, now: float) -> float:
        """Each wait is limited, and so are all waits for a message together: by how much of it came."""
        timeout = self._settings.data_timeout
        owed = timeout + self._data_received / self._settings.min_data_rate - self._data_waited
        return now + min(timeout, owed)
