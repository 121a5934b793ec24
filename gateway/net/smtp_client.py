"""An SMTP client connection: moves bytes and time for the machine in `gateway.smtp.client`.

Nothing that the network or the server does is raised: a connection that could not be made, or broke, gives
each recipient a Result that says so. Raised are cancellation and what the message's own chunks raise, and
both leave the connection closed.
"""

import math
import os
import socket
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from functools import lru_cache, partial
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import trio
from cryptography.hazmat.primitives import hashes

from gateway.net import streams
from gateway.net.certificates import UNREADABLE
from gateway.net.smtp_client_settings import ClientSettings, Dial, TlsPolicy
from gateway.net.tls import TlsError, TlsStream
from gateway.net.tls_contexts import ClientContext, client_context
from gateway.net.tls_results import TlsFault
from gateway.smtp.client import AskForTls, Event, SmtpClient
from gateway.smtp.client_auth import ChannelBinding
from gateway.smtp.client_session import CLOSED
from gateway.smtp.events import Failed, Finished, LoginStep, NeedData, Ready, SendData, TlsStarting
from gateway.smtp.results import Result
from gateway.smtp.transaction import Capabilities, Transaction

_BLOCK = 65536  # octets sent, or read, at once
_SHORT = 16384  # octets: less than any system takes without waiting, when nothing else is on its way
_LAST_WORDS = 5.0  # seconds to read what a server said before it closed the connection
TLS_AT_ONCE = "no greeting: the server expects TLS from the first byte"
_NETWORK_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


_STARTTLS: Mapping[TlsPolicy, AskForTls] = {
    TlsPolicy.NONE: AskForTls.NEVER,
    TlsPolicy.OPPORTUNISTIC: AskForTls.IF_OFFERED,
    TlsPolicy.REQUIRED: AskForTls.REQUIRED,
    TlsPolicy.VERIFIED: AskForTls.REQUIRED,
}


class SmtpConnection:
    """A connection, from `connect_smtp` or `open_smtp`. For one task at a time."""

    def __init__(self, stream: trio.abc.Stream | None, settings: ClientSettings, host: str) -> None:
        self._stream = stream
        self._settings = settings
        self._host = host
        starttls = AskForTls.NEVER if settings.tls_at_once else _STARTTLS[settings.tls]
        self._machine = SmtpClient(
            settings.hello_name, starttls, settings.credentials, chunking=settings.chunking
        )
        self._limit = trio.CancelScope()  # one for a whole exchange; its deadline moves with what is done
        self._patience = math.inf  # seconds: what the deadline came of
        self._sending = False  # what the deadline is for; else for the next reply
        self._replies = -1  # read when it was set
        self.remote_ip = ""  # connected to; "" when it is not known
        self.local_ip = ""  # connected from; likewise
        self.transactions = 0  # begun on it
        self.timed_out = False  # it was given up, and not ended by the server
        self.tls_fault: TlsFault | None = None  # why there is no TLS, though the server had offered it
        self._tls_unproven = False  # our side of the handshake is done, and nothing has come within TLS yet
        # Of the last transaction, also when `deliver` raised: its caller was cancelled, or its chunks raised.
        self.results: tuple[Result, ...] = ()

    @property
    def failure(self) -> Result | None:
        """Why the connection is of no more use; None while it can be used."""
        return self._machine.failure

    @property
    def disturbed(self) -> bool:
        """The server has said something that nobody asked for, or closed the connection, since the last
        transaction: what is there would be taken for the answers to the next one."""
        stream = self.tls.transport_stream if self.tls is not None else self._stream
        return isinstance(stream, streams.Stream) and stream.has_input

    @property
    def capabilities(self) -> Capabilities:
        return self._machine.capabilities

    @property
    def tls(self) -> TlsStream | None:
        """What the connection runs within; None without TLS."""
        return self._stream if isinstance(self._stream, TlsStream) else None

    @property
    def tls_used(self) -> str:
        """The version, and how far the server was verified; "" without TLS."""
        if self.tls is None or self.tls_fault is not None:
            return ""
        verified = "verified" if self._settings.tls is TlsPolicy.VERIFIED else "not verified"
        return f"{self.tls.version}, {verified}"

    @property
    def transcript(self) -> str:
        """The opening and the last transaction, bounded, without message data."""
        return self._machine.transcript

    async def deliver(self, transaction: Transaction, chunks: AsyncIterable[bytes]) -> tuple[Result, ...]:
        """Send a message; return a result for each recipient, in order.

        The chunks are read only when the server takes the message for somebody, and closed at the end if
        they are a generator. After it, look at `failure` before the next one.
        """
        self.transactions += 1
        self.results = ()
        machine = self._machine
        try:
            try:
                machine.begin(transaction)
                with trio.CancelScope() as self._limit:
                    event = await self._next_event()
                    if isinstance(event, SendData):
                        await self._send_message(chunks)
                        event = await self._next_event()
                if self._limit.cancelled_caught:
                    event = await self._late()
                assert isinstance(event, Finished)
                self.results = event.results
            finally:
                close_chunks = getattr(chunks, "aclose", None)
                if close_chunks is not None:
                    await close_chunks()
            if machine.failure is not None:
                await self._close_stream()
        except BaseException:
            machine.connection_lost("connection closed before there was an answer")
            if isinstance(event := machine.next_event(), Finished):
                self.results = event.results
            await self.aclose()
            raise
        return self.results

    async def quit(self) -> None:
        """Say QUIT, wait a little for the answer, and close the connection."""
        try:
            with trio.move_on_after(self._settings.quit_timeout):
                self._machine.quit()
                while not self._machine.closed:
                    await self._next_event()
                if self.tls is not None:
                    await self.tls.aclose()  # says that nothing was cut off
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection at once."""
        self._machine.connection_lost("connection closed")
        await self._close_stream()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        try:
            with trio.CancelScope() as self._limit:
                await self._greet()
            if self._limit.cancelled_caught:
                await self._late()
            if self._machine.closed:
                await self._close_stream()
        except BaseException:
            await self.aclose()
            raise

    async def _look_for_tls(self, after: float, speaks_tls: Callable[[], Awaitable[bool]]) -> None:
        """End the connection if there is no greeting because the server waits for TLS."""
        await trio.sleep(after)
        if not (self._machine.replies or self._machine.closed) and await speaks_tls():
            self._machine.connection_lost(TLS_AT_ONCE)
            self._limit.cancel()

    async def _greet(self) -> None:
        if self._settings.tls_at_once and self._stream is not None:
            await self._start_tls()
        while not isinstance(event := await self._next_event(), Ready | Failed):
            match event:
                case TlsStarting():
                    await self._start_tls()
                case LoginStep(answer):
                    self._limit.deadline = math.inf
                    response = await trio.to_thread.run_sync(answer, abandon_on_cancel=True)
                    self._machine.answer_challenge(response)

    async def _start_tls(self) -> None:
        """Do the handshake; without success the connection is lost."""
        assert self._stream is not None
        settings = self._settings
        context = settings.tls_context or _context(settings.tls is TlsPolicy.VERIFIED, settings.ca_file)
        self._limit.deadline = math.inf  # the handshake has its own
        try:
            self._stream = tls = await TlsStream.connect(
                self._stream, context, self._host, timeout=settings.tls_timeout
            )
        except _NETWORK_ERRORS as error:
            kind = error.failure if isinstance(error, TlsError) else "validation-failure"
            self._no_tls(TlsFault(kind, _explain(error)))
            return
        self._tls_unproven = True
        self._machine.tls_started(_binding(tls) if settings.credentials is not None else None)

    def _no_tls(self, fault: TlsFault) -> None:
        self.tls_fault = fault
        self._machine.tls_failed(fault.text)

    def _ended(self, reason: str) -> None:
        """The connection has ended by itself: no time limit of ours is over."""
        if self._tls_unproven:
            # Under TLS 1.3 our side is done before the server has looked at what we sent. That it does not go
            # on, perhaps for want of a certificate of ours, shows only where its first reply is due.
            self._no_tls(TlsFault("validation-failure", f"no TLS: right after the handshake: {reason}"))
        else:
            self._machine.connection_lost(reason)

    async def _close_stream(self) -> None:
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)

    async def _next_event(self) -> Event:
        """The next event but NeedData; while there is none, send and receive."""
        machine = self._machine
        while isinstance(event := machine.next_event(), NeedData):
            data = machine.data_to_send()
            if data or self._replies != machine.replies:
                self._replies = machine.replies
                self._wait_for_reply()
            if data:
                await self._send(data)
            if machine.failure is None:
                await self._receive()
        return event

    async def _receive(self) -> None:
        assert self._stream is not None
        try:
            data = await self._stream.receive_some(_BLOCK)
        except _NETWORK_ERRORS as error:
            self._ended(f"connection broken: {_explain(error)}")
            return
        # A server that is within TLS from the first byte may be away behind it: it ends that in good order.
        if data or self._settings.tls_at_once:
            self._tls_unproven = False
            self._machine.receive_data(data if isinstance(data, bytes) else bytes(data))
        else:
            self._ended(CLOSED)

    async def _send(self, data: bytes) -> None:
        """Send, within a time: what is short goes out at once nearly always, and has that of its reply."""
        assert self._stream is not None
        self._sending = True
        long = len(data) > _SHORT
        if long:
            self._wait_at_most(self._settings.block_timeout)
        try:
            await self._stream.send_all(data)
        except _NETWORK_ERRORS as error:
            self._limit.deadline = math.inf
            reason = f"connection broken while sending: {_explain(error)}"
            await self._read_last_words()
            self._ended(reason)
        self._sending = False
        if long:
            self._wait_for_reply()

    def _wait_for_reply(self) -> None:
        # A server may keep its replies to the envelope until it is done with a message that came with it.
        stage = "dot" if self._machine.message_sent else self._machine.stage
        self._wait_at_most(self._settings.reply_timeout(stage))

    def _wait_at_most(self, seconds: float) -> None:
        self._patience = seconds
        self._limit.deadline = trio.current_time() + seconds

    async def _late(self) -> Event:
        """The time for what was under way is over, and so is the connection: the event that says so."""
        if self._sending:
            await self._read_last_words()  # some stop to read once they have refused the message
        self.timed_out = True
        what = "server did not read" if self._sending else "no reply"
        self._machine.connection_lost(f"{what} within {self._patience:g} seconds")
        return self._machine.next_event()

    async def _read_last_words(self) -> None:
        """A server that does not take what we send, or closes the connection, has mostly said why."""
        assert self._stream is not None
        with trio.move_on_after(_LAST_WORDS):
            try:
                while not self._machine.closed and (data := await self._stream.receive_some(_BLOCK)):
                    self._tls_unproven = False
                    self._machine.receive_data(bytes(data))
            except _NETWORK_ERRORS:
                pass

    async def _send_message(self, chunks: AsyncIterable[bytes]) -> None:
        if self._limit.deadline < math.inf:  # to set what is set already has its price
            self._limit.deadline = math.inf  # the message's own source takes its time
        unsent = 0
        async for chunk in chunks:
            for start in range(0, len(chunk), _BLOCK):
                block = chunk[start : start + _BLOCK]
                if unsent + len(block) > _BLOCK:  # the last one waits for `end_message`: all is out only then
                    await self._send(self._machine.data_to_send())
                    self._limit.deadline = math.inf
                    unsent = 0
                if self._machine.closed:
                    return
                self._machine.send_message(block)
                unsent += len(block)
        if not self._machine.closed:
            self._machine.end_message()


async def connect_smtp(
    host: str,
    port: int,
    settings: ClientSettings,
    *,
    server_name: str = "",
    dial: Dial = streams.connect,
) -> SmtpConnection:
    """Connect to a host name or IP address, and greet the server. `failure` tells whether that worked.

    `server_name` is asked for in TLS (SNI), and verified if anything is, in place of `host`.
    """
    connection = SmtpConnection(None, settings, server_name or host)
    with trio.move_on_after(settings.connect_timeout) as scope:
        try:
            connection._stream = await dial(host, port)
            connection.local_ip, connection.remote_ip = _addresses(connection._stream, host)
        except socket.gaierror as error:
            # RFC 3463: a directory server failed (4.4.3), or has nothing that says where to go (4.4.4).
            status = "4.4.3" if error.errno == socket.EAI_AGAIN else "4.4.4"
            connection._machine.connection_lost(f"can't look up {host}: {error.strerror}", status)
        except OSError as error:
            connection._machine.connection_lost(f"can't connect to {host} port {port}: {_explain(error)}")
    if scope.cancelled_caught:
        connection._machine.connection_lost(
            f"no connection to {host} port {port} within {settings.connect_timeout:g} seconds"
        )
    if settings.look_for_tls_after is None or settings.tls_at_once:
        await connection._open()
    else:
        async with trio.open_nursery() as nursery:
            look = partial(_speaks_tls, host, port, settings, dial)
            nursery.start_soon(connection._look_for_tls, settings.look_for_tls_after, look)
            await connection._open()
            nursery.cancel_scope.cancel()
    return connection


async def _speaks_tls(host: str, port: int, settings: ClientSettings, dial: Dial) -> bool:
    """Whether a TLS handshake is what the server expects, as far as can be seen."""
    with trio.move_on_after(settings.connect_timeout):
        try:
            async with await dial(host, port) as stream:
                await TlsStream.connect(stream, _context(False, None), host, timeout=settings.tls_timeout)
                return True
        except _NETWORK_ERRORS:
            pass
    return False


async def open_smtp(stream: trio.abc.Stream, settings: ClientSettings, host: str = "") -> SmtpConnection:
    """Greet the server at the other end of a stream, which then belongs to the connection. `host` is whom the
    certificate has to be for."""
    connection = SmtpConnection(stream, settings, host)
    await connection._open()
    return connection


@lru_cache(maxsize=16)
def _context(verified: bool, ca_file: str | None) -> ClientContext:
    return client_context(verified=verified, ca_file=ca_file)


def _addresses(stream: trio.abc.Stream, host: str) -> tuple[str, str]:
    """Ours and the server's. Raises OSError if the connection is gone already."""
    ours, theirs = "", ""
    if isinstance(stream, streams.Stream):
        ours, theirs = str(stream.socket.getsockname()[0]), str(stream.socket.getpeername()[0])
    try:
        asked = str(ip_address(host))
    except ValueError:
        return ours, theirs
    return (ours if asked == theirs else ""), asked  # else a proxy has connected us, from wherever it is


def _binding(tls: TlsStream) -> ChannelBinding | None:
    """What a login can be tied to: under TLS 1.2, where an exporter is not safe without an extension
    (RFC 7627) that OpenSSL does not tell of, the server's certificate (RFC 5929 section 4)."""
    exported = tls.channel_binding
    if exported is not None:
        return ChannelBinding("tls-exporter", exported)
    try:
        chain = tls.peer_chain
        algorithm = chain[0].signature_hash_algorithm if chain else None
    except UNREADABLE:
        return None
    if algorithm is None:
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return ChannelBinding("tls-server-end-point", chain[0].fingerprint(algorithm))


def _explain(error: BaseException) -> str:
    """The innermost cause in words: trio puts the operating system's error behind its own."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or type(error).__name__
