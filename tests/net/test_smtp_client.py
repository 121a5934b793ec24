"""The client driver: scripted servers over memory streams, and the real server over a loopback socket."""

import contextlib
import hashlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from gateway.net.smtp_client import SmtpConnection, connect_smtp, open_smtp
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.net.smtp_handler import Session, Sink
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.net.tls import TlsStream
from gateway.net.tls_contexts import server_context
from gateway.smtp.addresses import Mailbox
from gateway.smtp.client_auth import Credentials
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from gateway.smtp.results import Result
from gateway.smtp.server import ServerLimits
from gateway.smtp.transaction import Transaction
from tests.commands import PATIENCE
from tests.net.certificates import certificate

SETTINGS = ClientSettings("client.example")
TWO = Transaction(Mailbox("a", "x"), (Mailbox("b", "x"), Mailbox("c", "x")))
ONE = Transaction(Mailbox("a", "x"), (Mailbox("b", "x"),))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def fates(results: tuple[Result, ...]) -> list[tuple[str, str, int | None]]:
    return [(result.fate.value, result.stage, result.code) for result in results]


class Script:
    """The server's end: says what the test tells it, once the client has said what it waits for."""

    client: trio.StapledStream[Any, Any]
    stream: trio.StapledStream[Any, Any]

    def __init__(self) -> None:
        self.client, self.stream = trio.testing.memory_stream_pair()
        self.heard = b""

    async def say(self, text: bytes) -> None:
        await self.stream.send_all(text)

    async def hear(self, end: bytes) -> None:
        while not self.heard.endswith(end):
            data = await self.stream.receive_some()
            assert data, f"closed after {self.heard!r}"
            self.heard += data

    async def open(self, capabilities: bytes = b"250 mx\r\n") -> None:
        await self.say(b"220 mx\r\n")
        await self.hear(b"EHLO client.example\r\n")
        await self.say(capabilities)

    async def until_data(self) -> None:
        await self.open(b"250-mx\r\n250 PIPELINING\r\n")
        await self.hear(b"DATA\r\n")
        await self.say(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")


async def run(
    server: Callable[[Script], Any], transaction: Transaction = TWO, *parts: bytes
) -> tuple[tuple[Result, ...], SmtpConnection, Script]:
    """Deliver a message to a scripted server."""
    script = Script()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, script)
        connection = await open_smtp(script.client, SETTINGS)
        results = await connection.deliver(transaction, chunks(*(parts or (b"x\r\n",))))
    return results, connection, script


async def test_a_message() -> None:
    async def server(script: Script) -> None:
        await script.until_data()
        await script.hear(b"\r\n.\r\n")
        await script.say(b"250 2.0.0 ok\r\n")
        await script.hear(b"QUIT\r\n")
        await script.say(b"221 bye\r\n")
        assert not await script.stream.receive_some()

    script = Script()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, script)
        async with await open_smtp(script.client, SETTINGS) as connection:
            assert "PIPELINING" in connection.capabilities
            results = await connection.deliver(TWO, chunks(b"one\r\n.", b"two\r\n"))
            assert fates(results) == [("accepted", "dot", 250)] * 2
            assert connection.failure is None
            await connection.quit()
    assert b"DATA\r\none\r\n..two\r\n.\r\nQUIT" in script.heard
    assert "> MAIL FROM:<a@x>" in connection.transcript
    assert "two" not in connection.transcript


async def test_large_parts_are_sent_in_blocks() -> None:
    async def server(script: Script) -> None:
        await script.until_data()
        await script.hear(b"\r\n.\r\n")
        await script.say(b"250 ok\r\n")

    line = b"x" * 98 + b"\r\n"
    results, _, script = await run(server, TWO, line * 10_000, line, line * 3_000)
    assert fates(results) == [("accepted", "dot", 250)] * 2
    assert script.heard.endswith(b"DATA\r\n" + line * 13_001 + b".\r\n")


async def opening_fails(script: Script, *, greeting: bytes) -> None:
    if greeting:
        await script.say(greeting)
    await script.stream.send_eof()


@pytest.mark.parametrize(
    ("greeting", "fate"),
    [
        (b"", ("broken", "connect", None)),
        (b"554 go away\r\n", ("refused", "connect", 554)),
        (b"421 later\r\n", ("refused", "connect", 421)),
        (b"220 mx\r\n", ("broken", "ehlo", None)),
    ],
)
async def test_opening_fails(greeting: bytes, fate: tuple[str, str, int | None]) -> None:
    results, connection, _ = await run(partial(opening_fails, greeting=greeting))
    assert fates(results) == [fate] * 2
    assert connection.failure == results[0]
    await connection.quit()


async def test_closed_after_the_dot_is_unknown() -> None:
    async def server(script: Script) -> None:
        await script.until_data()
        await script.hear(b"\r\n.\r\n")
        await script.stream.aclose()

    results, connection, _ = await run(server)
    assert fates(results) == [("unknown", "dot", None)] * 2
    assert connection.failure is not None
    again = await connection.deliver(ONE, chunks(b"never read"))
    assert fates(again) == [("broken", "connect", None)]


async def test_last_words_of_a_server_that_closes_while_we_send() -> None:
    async def server(script: Script) -> None:
        await script.until_data()
        await script.stream.receive_some(10)
        await script.say(b"552 5.3.4 too large\r\n")
        await script.stream.send_eof()
        await script.stream.receive_stream.aclose()

    results, connection, _ = await run(server, TWO, *[b"x" * 998 + b"\r\n"] * 1000)
    assert fates(results) == [("refused", "data", 552)] * 2
    assert connection.failure is not None


async def test_broken_while_we_send() -> None:
    async def server(script: Script) -> None:
        await script.until_data()
        await script.stream.receive_some(10)
        await script.stream.aclose()

    results, _, _ = await run(server, TWO, *[b"x" * 998 + b"\r\n"] * 1000)
    assert fates(results) == [("broken", "data", None)] * 2


# --- Within TLS ---


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_what_a_login_is_bound_to(version: int) -> None:
    context = server_context(certificate())
    context.set_max_proto_version(version)
    client_end, server_end = trio.testing.memory_stream_pair()
    streams: list[TlsStream] = []

    async def server() -> None:
        tls = await TlsStream.accept(server_end, context, timeout=5)
        streams.append(tls)
        await tls.send_all(b"220 mx\r\n")
        assert await tls.receive_some() == b"EHLO client.example\r\n"
        await tls.send_all(b"250-mx\r\n250 AUTH SCRAM-SHA-256-PLUS\r\n")
        _, mechanism, initial = (await tls.receive_some()).split()
        assert mechanism == b"SCRAM-SHA-256-PLUS"
        first = b64decode(initial)
        nonce = first.rpartition(b"r=")[2]
        challenge = b"r=" + nonce + b"x,s=AAAA,i=1"
        await tls.send_all(b"334 " + b64encode(challenge) + b"\r\n")
        final = b64decode(await tls.receive_some())
        kind, data = b64decode(final.split(b",")[0].removeprefix(b"c=")).split(b",,", 1)
        if version == SSL.TLS1_3_VERSION:
            assert (kind, data) == (b"p=tls-exporter", tls.channel_binding)
        else:
            der = certificate().chain[0].public_bytes(Encoding.DER)
            assert (kind, data) == (b"p=tls-server-end-point", hashlib.sha256(der).digest())
        await tls.send_all(b"454 4.7.0 later\r\n")
        with contextlib.suppress(trio.BrokenResourceError):  # closed at once: it is of no more use
            assert not await tls.receive_some()

    settings = replace(
        SETTINGS, tls=TlsPolicy.REQUIRED, tls_at_once=True, credentials=Credentials("me", "password")
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        connection = await open_smtp(client_end, settings, "localhost")
        assert connection.failure is not None
        assert (connection.failure.stage, connection.failure.permanent) == ("auth", False)
        await streams[0].aclose()


async def test_a_login_with_a_certificate_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bound to nothing then."""

    def peer_chain(stream: TlsStream) -> list[x509.Certificate]:
        raise x509.InvalidVersion("no", 3)

    monkeypatch.setattr(TlsStream, "peer_chain", property(peer_chain))
    context = server_context(certificate())
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client_end, server_end = trio.testing.memory_stream_pair()

    async def server() -> None:
        tls = await TlsStream.accept(server_end, context, timeout=5)
        await tls.send_all(b"220 mx\r\n")
        assert await tls.receive_some() == b"EHLO client.example\r\n"
        await tls.send_all(b"250-mx\r\n250 AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256\r\n")
        assert (await tls.receive_some()).split()[1] == b"SCRAM-SHA-256"
        await tls.send_all(b"454 4.7.0 later\r\n")

    settings = replace(
        SETTINGS, tls=TlsPolicy.REQUIRED, tls_at_once=True, credentials=Credentials("me", "password")
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        connection = await open_smtp(client_end, settings, "localhost")
        assert connection.failure is not None
        assert connection.failure.text == "login with SCRAM-SHA-256 failed: remote answered 454 4.7.0 later"


async def test_a_server_that_stalls_in_the_login(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    settings = replace(SETTINGS, credentials=Credentials("me", "password", without_tls=True))

    async def server() -> None:
        await script.open(b"250-mx\r\n250 AUTH CRAM-MD5\r\n")
        await script.hear(b"AUTH CRAM-MD5\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        connection = await open_smtp(script.client, settings)
    assert connection.failure is not None
    assert connection.failure.text == "no reply within 300 seconds"
    assert connection.failure.stage == "auth"
    assert trio.current_time() == pytest.approx(300)


# --- Time ---


@pytest.mark.parametrize(
    ("replies", "seconds", "fate"),
    [
        ([], 300, ("broken", "connect", None)),
        ([b"220 mx\r\n"], 300, ("broken", "ehlo", None)),
        ([b"220 mx\r\n", b"250 mx\r\n"], 300, ("broken", "mail", None)),
        ([b"220 mx\r\n", b"250 mx\r\n", b"250 ok\r\n"], 300, ("broken", "rcpt", None)),
        ([b"220 mx\r\n", b"250 mx\r\n", *[b"250 ok\r\n"] * 3], 120, ("broken", "data", None)),
        ([b"220 mx\r\n", b"250 mx\r\n", *[b"250 ok\r\n"] * 3, b"354 go\r\n"], 600, ("unknown", "dot", None)),
    ],
)
async def test_time_limits(
    autojump_clock: trio.testing.MockClock,
    replies: list[bytes],
    seconds: float,
    fate: tuple[str, str, int | None],
) -> None:
    async def server(script: Script) -> None:
        for reply in replies:
            await script.say(reply)
            await script.hear(b"\r\n")
            script.heard = b""

    results, _, _ = await run(server)
    assert fates(results) == [fate] * 2
    assert f"within {seconds} seconds" in results[0].text
    assert trio.current_time() == pytest.approx(seconds)


async def test_a_reply_in_drips(autojump_clock: trio.testing.MockClock) -> None:
    async def server(script: Script) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await script.say(b"2")
                await trio.sleep(70)

    await run(server)
    assert trio.current_time() == pytest.approx(350)


async def test_a_server_that_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    """What is short has the time of its reply; a long message, below, its own."""
    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"220 mx\r\n")
        connection = await open_smtp(client, SETTINGS)
    assert connection.failure is not None
    assert "did not read within 300 seconds" in connection.failure.text


async def test_last_words_of_a_server_that_stops_to_read(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    script.client, script.stream = trio.testing.lockstep_stream_pair()

    async def server() -> None:
        await script.open(b"250-mx\r\n250 CHUNKING\r\n")
        for end in (b"MAIL FROM:<a@x>\r\n", b"RCPT TO:<b@x>\r\n"):
            await script.hear(end)
            await script.say(b"250 ok\r\n")
        await script.stream.receive_some(10)
        await script.say(b"552 5.3.4 too large\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        connection = await open_smtp(script.client, SETTINGS)
        message = [b"x" * 998 + b"\r\n"] * 1000
        results = await connection.deliver(replace(ONE, size=1_000_000), chunks(*message))
    assert fates(results) == [("refused", "data", 552)]
    assert trio.current_time() == pytest.approx(180)


async def test_quit_does_not_wait_for_long(autojump_clock: trio.testing.MockClock) -> None:
    script = Script()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.open)
        connection = await open_smtp(script.client, SETTINGS)
        await connection.quit()
    assert trio.current_time() == pytest.approx(5)


# --- What is raised ---


async def test_errors_of_the_message_are_raised_and_close_the_connection() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one\r\n"
        raise KeyError("content is gone")

    script = Script()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.until_data)
        connection = await open_smtp(script.client, SETTINGS)
        with pytest.raises(KeyError):
            await connection.deliver(TWO, broken())
    with trio.fail_after(PATIENCE):
        while data := await script.stream.receive_some():
            script.heard += data
    assert script.heard.endswith(b"DATA\r\n")
    assert connection.failure is not None


async def test_cancelled_in_the_message() -> None:
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield b"one\r\n"
            await trio.sleep_forever()
        finally:
            closed = True

    script = Script()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script.until_data)
            connection = await open_smtp(script.client, SETTINGS)
            nursery.start_soon(connection.deliver, TWO, endless())
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert closed
    assert connection.failure is not None
    with trio.fail_after(PATIENCE):
        while data := await script.stream.receive_some():
            script.heard += data
    assert not script.heard.endswith(b".\r\n")


async def test_cancelled_when_there_is_an_answer() -> None:
    """What the server said counts, though the caller does not get it."""

    class SlowToClose:
        def __init__(self) -> None:
            self.parts = [b"one\r\n"]

        def __aiter__(self) -> "SlowToClose":
            return self

        async def __anext__(self) -> bytes:
            if not self.parts:
                raise StopAsyncIteration
            return self.parts.pop()

        async def aclose(self) -> None:
            await trio.sleep_forever()

    async def server(script: Script) -> None:
        await script.until_data()
        await script.hear(b"\r\n.\r\n")
        await script.say(b"250 2.0.0 ok\r\n")

    connection = await cancelled(server, TWO, SlowToClose())
    assert fates(connection.results) == [("accepted", "dot", 250)] * 2
    assert connection.failure is not None


async def cancel_when_all_wait(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def cancelled(
    server: Callable[[Script], Awaitable[None]], transaction: Transaction, chunks: AsyncIterable[bytes]
) -> SmtpConnection:
    """A connection whose transaction was cancelled when all waited."""
    script = Script()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server, script)
        connection = await open_smtp(script.client, SETTINGS)
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_all_wait, scope)
            await connection.deliver(transaction, chunks)
    assert scope.cancelled_caught
    return connection


async def test_cancelled_while_opening() -> None:
    script = Script()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_smtp, script.client, SETTINGS)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert not await script.stream.receive_some()


# --- Over sockets ---


class Mailboxes:
    """A handler that knows one recipient."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def connected(self, session: Session) -> Reply | None:
        return None

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        return None

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        return None if recipient.localpart == "b" else Reply(550, "5.1.1", ("No such user",))

    async def open_data(self, session: Session, envelope: Envelope) -> Sink | Reply:
        return Message(self)


class Message:
    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes
        self._data = b""

    async def write(self, data: bytes) -> Reply | None:
        self._data += data
        return None

    async def commit(self) -> Reply:
        self._mailboxes.messages.append(self._data)
        return Reply(250, "2.0.0", ("Stored",))

    async def abort(self) -> None:
        self._data = b""


async def test_against_the_real_server() -> None:
    mailboxes, stopping = Mailboxes(), trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        settings = ServerSettings(ServerLimits("mx.example.org"))
        await nursery.start(partial(serve_smtp, listeners, settings, mailboxes, stopping=stopping))
        async with await connect_smtp("127.0.0.1", port, SETTINGS) as connection:
            messages = [b"", b".\r\n" * 50_000, b"x\r\n"]
            for message in messages:
                for what in (TWO, replace(TWO, size=len(message))):  # by DATA, and by BDAT
                    results = await connection.deliver(what, chunks(message[:7], message[7:]))
                    assert fates(results) == [("accepted", "dot", 250), ("refused", "rcpt", 550)]
            assert f"> BDAT {len(messages[-1])} LAST" in connection.transcript
            await connection.quit()
        stopping.set()
    assert mailboxes.messages == [message for message in messages for _ in range(2)]


async def test_a_message_that_is_a_whole_number_of_blocks_is_not_all_out_before_its_end() -> None:
    """Who is cancelled at its end may have had it taken, and says so; before that, nobody has it."""
    sent = 0

    async def two_blocks() -> AsyncIterator[bytes]:
        yield b"x" * 65536
        yield b"x" * 65534 + b"\r\n"
        await trio.sleep_forever()

    async def server(script: Script) -> None:
        nonlocal sent
        await script.open(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        await script.hear(b"RCPT TO:<b@x>\r\n")
        await script.say(b"250 ok\r\n250 ok\r\n")
        script.heard = b""
        while data := await script.stream.receive_some():
            sent += len(data)

    connection = await cancelled(server, replace(ONE, size=2 * 65536), two_blocks())
    assert fates(connection.results) == [("broken", "data", None)]
    assert sent < 2 * 65536


async def test_nobody_listens() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        connection = await connect_smtp("127.0.0.1", unused.getsockname()[1], SETTINGS)
    (result,) = await connection.deliver(ONE, chunks(b""))
    assert fates((result,)) == [("broken", "connect", None)]
    assert "can't connect to 127.0.0.1 port" in result.text
    assert "refused" in result.text
    await connection.quit()
