"""The server driver: over memory streams with a clock that jumps, and with smtplib over a loopback socket."""

import contextlib
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
import trio
import trio.testing

from gateway.net import smtp_server
from gateway.net.smtp_handler import Session, Sink
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.net.tls import TlsStream
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import DsnWish, Envelope
from gateway.smtp.replies import Reply
from gateway.smtp.server import ServerLimits
from tests.commands import PATIENCE
from tests.net.certificates import client_tls, server_tls

SETTINGS = ServerSettings(ServerLimits("mx.example.org"))
HELLO = b"EHLO client.example\r\n"
BEGIN = HELLO + b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n"
SEND = BEGIN + b"DATA\r\n"


@dataclass
class Memory:
    """A handler that keeps messages, and does at each step what a test wants."""

    step: Callable[[str], Any] = lambda name: None
    messages: list[tuple[Session, Envelope, bytes]] = field(default_factory=list)
    aborted: int = 0
    steps: list[str] = field(default_factory=list)

    async def _do(self, name: str) -> Any:
        self.steps.append(name)
        await trio.lowlevel.checkpoint()
        answer = self.step(name)
        return await answer if hasattr(answer, "__await__") else answer

    async def connected(self, session: Session) -> Reply | None:
        reply: Reply | None = await self._do("connected")
        return reply

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        reply: Reply | None = await self._do("mail")
        return reply

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        reply: Reply | None = await self._do("rcpt")
        return reply

    async def open_data(self, session: Session, envelope: Envelope) -> Sink | Reply:
        return await self._do("open_data") or MemorySink(self, session, envelope)


@dataclass
class MemorySink:
    handler: Memory
    session: Session
    envelope: Envelope
    data: bytes = b""

    async def write(self, data: bytes) -> Reply | None:
        self.data += data
        reply: Reply | None = await self.handler._do("write")
        return reply

    async def commit(self) -> Reply:
        answer = await self.handler._do("commit")
        if answer is None:
            self.handler.messages.append((self.session, self.envelope, self.data))
        return answer or Reply(250, "2.0.0", ("Stored",))

    async def abort(self) -> None:
        self.handler.aborted += 1
        await self.handler._do("abort")


class MemoryListener(trio.abc.Listener[trio.testing.MemorySendStream]):
    """Hands out one end of memory streams; `connect` gives the other."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](100)

    async def connect(self) -> Any:
        ours, theirs = trio.testing.memory_stream_pair()
        await self._send.send(theirs)
        return ours

    async def accept(self) -> Any:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()


@dataclass
class Service:
    listener: MemoryListener
    handler: Memory
    stopping: trio.Event
    nursery: trio.Nursery
    ends: int = 0

    async def talk(self, *scripts: bytes) -> "Talk":
        talk = Talk(await self.listener.connect())
        for script in scripts:
            await talk.stream.send_all(script)
        return talk


class Talk:
    """The client's end of a connection."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.received = b""

    async def expect(self, code: bytes) -> None:
        """Read until a reply with this code ends."""
        while not any(line.startswith(code + b" ") for line in self.received.split(b"\r\n")[:-1]):
            data = await self.stream.receive_some()
            assert data, f"closed after {self.received!r}"
            self.received += data

    async def rest(self) -> bytes:
        """Read until the connection is closed; return the last reply."""
        while data := await self.stream.receive_some():
            self.received += data
        return self.received.rstrip(b"\r\n").rpartition(b"\r\n")[2]


@asynccontextmanager
async def service(
    step: Callable[[str], Any] = lambda name: None, settings: ServerSettings = SETTINGS
) -> AsyncIterator[Service]:
    async with trio.open_nursery() as nursery:
        service = Service(MemoryListener(), Memory(step), trio.Event(), nursery)

        async def serve(task_status: trio.TaskStatus[Any]) -> None:
            await serve_smtp(
                [service.listener],
                settings,
                service.handler,
                stopping=service.stopping,
                task_status=task_status,
            )
            service.ends += 1

        await nursery.start(serve)
        yield service
        nursery.cancel_scope.cancel()


def on(wanted: str, action: Callable[[], Any]) -> Callable[[str], Any]:
    return lambda name: action() if name == wanted else None


def fail() -> None:
    raise KeyError("a bug")


async def test_a_message() -> None:
    async with service() as it:
        talk = await it.talk(SEND, b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n")
        assert await talk.rest() == b"221 2.0.0 Bye"
        ((session, envelope, data),) = it.handler.messages
        assert data == b"Subject: x\r\n\r\n.\r\n"
        assert envelope == Envelope(Mailbox("a", "x"), (Mailbox("b", "x"),), dsn=(DsnWish(),))
        assert session.hello is not None
        assert session.hello.name == "client.example"
        assert session.peer is None
        assert b"250 2.0.0 Stored" in talk.received
        assert it.handler.aborted == 0


@pytest.mark.parametrize("name", ["connected", "mail", "rcpt", "open_data", "write", "commit"])
@pytest.mark.parametrize("mistake", [fail, lambda: "250 OK", lambda: Reply(354, None)])
async def test_a_bug_in_the_handler_is_a_451(
    name: str, mistake: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    if name == "write" and mistake is not fail:
        mistake = partial(fail)
    async with service() as it:
        other = await it.talk(HELLO)
        await other.expect(b"250")
        it.handler.step = on(name, mistake)
        talk = await it.talk()
        if name == "connected":
            await talk.expect(b"451")
        else:
            await talk.expect(b"220")
            await talk.stream.send_all(SEND)
            if name in ("write", "commit"):
                await talk.expect(b"354")
                await talk.stream.send_all(b"x\r\n.\r\n")
            await talk.expect(b"451")
        assert b"4.3.0" in talk.received
        assert b"a bug" not in talk.received
        assert caplog.records
        assert it.handler.messages == []
        assert it.handler.aborted == (1 if name == "write" or (name == "commit" and mistake is fail) else 0)
        it.handler.step = lambda name: None
        await other.stream.send_all(SEND.removeprefix(HELLO) + b".\r\nQUIT\r\n")
        await other.rest()
        assert len(it.handler.messages) == 1


async def test_a_bug_that_raises_a_group() -> None:
    async def crash() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            fail()

    async with service(on("rcpt", crash)) as it:
        talk = await it.talk(BEGIN)
        await talk.expect(b"451")


async def test_replies_of_the_handler() -> None:
    for name, code in (("mail", b"550"), ("rcpt", b"550"), ("open_data", b"452"), ("commit", b"554")):
        async with service(on(name, partial(Reply, int(code), None))) as it:
            talk = await it.talk(SEND)
            if name == "commit":
                await talk.expect(b"354")
                await talk.stream.send_all(b"x\r\n.\r\n")
            await talk.expect(code)
            assert it.handler.messages == []
            assert it.handler.aborted == 0


async def test_a_sink_can_refuse_the_rest() -> None:
    async with service(on("write", lambda: Reply(452, "4.3.1", ("Disk full",)))) as it:
        talk = await it.talk(SEND)
        await talk.expect(b"354")
        for _ in range(5):
            await talk.stream.send_all(b"x\r\n")
            await trio.testing.wait_all_tasks_blocked()
        await talk.stream.send_all(b".\r\nQUIT\r\n")
        await talk.rest()
        assert b"452 4.3.1 Disk full\r\n221" in talk.received
        assert it.handler.steps.count("write") == 1
        assert it.handler.aborted == 1


async def test_refused_data_is_aborted_at_once() -> None:
    async with service() as it:
        talk = await it.talk(SEND, b"one\r\ntwo\nthree\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert it.handler.aborted == 1
        await talk.stream.send_all(b".\r\n")
        await talk.expect(b"550")
        assert it.handler.steps.count("abort") == 1


async def test_a_message_in_chunks() -> None:
    async with service() as it:
        talk = await it.talk(BEGIN, b"BDAT 3\r\none", b"BDAT 5\r\ntwo\r\nBDAT 0 LAST\r\nQUIT\r\n")
        assert await talk.rest() == b"221 2.0.0 Bye"
        assert [data for _, _, data in it.handler.messages] == [b"onetwo\r\n"]
        assert b"250 2.0.0 Stored" in talk.received
        assert it.handler.aborted == 0


@pytest.mark.parametrize(
    ("name", "code"), [("open_data", b"452 4.3.1"), ("write", b"452 4.3.1"), ("commit", b"452 4.3.1")]
)
async def test_chunks_are_refused(name: str, code: bytes) -> None:
    async with service(on(name, lambda: Reply(452, "4.3.1", ("Disk full",)))) as it:
        talk = await it.talk(BEGIN, b"BDAT 5 LAST\r\none\r\nQUIT\r\n")
        await talk.rest()
        assert code in talk.received
        assert it.handler.messages == []
        assert it.handler.aborted == (name == "write")


async def test_a_message_in_chunks_that_is_taken_back() -> None:
    async with service() as it:
        talk = await it.talk(BEGIN, b"BDAT 5\r\none\r\n")
        await talk.expect(b"250")
        await trio.testing.wait_all_tasks_blocked()
        assert it.handler.aborted == 0
        await talk.stream.send_all(b"RSET\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert it.handler.aborted == 1
        await talk.stream.send_all(BEGIN.removeprefix(HELLO) + b"BDAT 2 LAST\r\nx\nQUIT\r\n")
        await talk.rest()
        assert b"550 5.6.0" in talk.received
        assert it.handler.messages == []


async def test_client_gone_in_the_middle() -> None:
    async with service() as it:
        for script in (b"", HELLO, BEGIN, SEND, SEND + b"x\r\n"):
            talk = await it.talk(script)
            await talk.expect(b"220")
            await trio.testing.wait_all_tasks_blocked()
            await talk.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert it.handler.messages == []
        assert it.handler.aborted == 2


# --- Time ---


async def test_idle(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        talk = await it.talk(HELLO)
        assert (await talk.rest()).startswith(b"421 4.4.2")
        assert trio.current_time() == pytest.approx(300)


async def test_a_command_in_drips(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        talk = await it.talk()
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await talk.stream.send_all(b"N")
                await trio.sleep(60)
        assert (await talk.rest()).startswith(b"421 4.4.2")
        assert trio.current_time() == pytest.approx(360)  # found out with the next drip


async def test_each_command_has_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        talk = await it.talk()
        for _ in range(5):
            await trio.sleep(250)
            await talk.stream.send_all(b"NOOP\r\n")
        await talk.stream.send_all(b"QUIT\r\n")
        assert await talk.rest() == b"221 2.0.0 Bye"


async def test_no_data(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        talk = await it.talk(SEND)
        assert (await talk.rest()).startswith(b"421 4.4.2")
        assert trio.current_time() == pytest.approx(180)
        assert it.handler.aborted == 1


async def test_data_in_drips(autojump_clock: trio.testing.MockClock) -> None:
    async with service(settings=replace(SETTINGS, min_data_rate=1.0)) as it:
        talk = await it.talk(SEND)
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await trio.sleep(10)
                await talk.stream.send_all(b"x\r\n")  # 0.3 octets a second
        assert trio.current_time() == pytest.approx(180 / 0.7, abs=11)
        assert it.handler.aborted == 1


async def test_chunks_in_drips(autojump_clock: trio.testing.MockClock) -> None:
    async with service(settings=replace(SETTINGS, min_data_rate=1.0)) as it:
        talk = await it.talk(BEGIN)
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await trio.sleep(30)
                await talk.stream.send_all(b"BDAT 3\r\nx\r\n")  # 0.4 octets a second, with the commands
        assert trio.current_time() == pytest.approx(180 / (1 - 11 / 30), abs=31)
        assert it.handler.aborted == 1


async def test_slow_but_steady_data(autojump_clock: trio.testing.MockClock) -> None:
    async with service(settings=replace(SETTINGS, min_data_rate=1.0)) as it:
        talk = await it.talk(SEND)
        for _ in range(200):
            await trio.sleep(10)
            await talk.stream.send_all(b"x" * 8 + b"\r\n")
        await talk.stream.send_all(b".\r\nQUIT\r\n")
        await talk.rest()
        assert len(it.handler.messages) == 1


async def test_a_slow_sink_is_not_the_clients_fault(autojump_clock: trio.testing.MockClock) -> None:
    async with service(on("write", partial(trio.sleep, 1000))) as it:
        talk = await it.talk(SEND, b"one\r\n")
        await trio.sleep(1)
        await talk.stream.send_all(b"two\r\n")
        await trio.sleep(1500)
        await talk.stream.send_all(b".\r\nQUIT\r\n")
        await talk.rest()
        assert [data for _, _, data in it.handler.messages] == [b"one\r\ntwo\r\n"]


async def test_client_that_does_not_read(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        ours, theirs = trio.testing.lockstep_stream_pair()  # a write waits for its reader
        await it.listener._send.send(theirs)
        await trio.sleep(59)
        assert it.handler.steps == ["connected"]
        await trio.sleep(2)
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(HELLO)


# --- Limits on connections ---


async def test_connections_are_limited() -> None:
    async with service(settings=replace(SETTINGS, max_connections=2)) as it:
        talks = [await it.talk() for _ in range(2)]
        for talk in talks:
            await talk.expect(b"220")
        assert (await (await it.talk()).rest()).startswith(b"421 4.3.2")
        await talks[0].stream.send_all(b"QUIT\r\n")
        await talks[0].rest()
        await trio.testing.wait_all_tasks_blocked()
        await (await it.talk()).expect(b"220")
        assert it.handler.steps == ["connected"] * 3


async def test_connections_of_a_network_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = iter(
        ["192.0.2.1", "192.0.2.200", "192.0.3.1", "2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"]
    )
    monkeypatch.setattr(smtp_server, "_peer", lambda stream: ip_address(next(peers)))
    async with service(settings=replace(SETTINGS, max_connections_per_network=1)) as it:
        replies = []
        for _ in range(6):
            talk = await it.talk()
            await trio.testing.wait_all_tasks_blocked()
            replies.append(bytes(await talk.stream.receive_some())[:9])
        full = b"421 4.7.0"
        assert [reply == full for reply in replies] == [False, True, False, False, True, False]


# --- The end ---


async def test_stopping_ends_idle_sessions() -> None:
    async with service() as it:
        fresh, idle, stuck = await it.talk(), await it.talk(HELLO), await it.talk(SEND, b"x\r\n")
        await idle.expect(b"250")
        await stuck.expect(b"354")
        await trio.testing.wait_all_tasks_blocked()
        it.stopping.set()
        assert (await fresh.rest()).startswith(b"421 4.3.2")
        assert (await idle.rest()).startswith(b"421 4.3.2")
        assert it.ends == 0
        await stuck.stream.send_all(b".\r\n")
        assert (await stuck.rest()).startswith(b"421 4.3.2")
        assert b"250 2.0.0 Stored" in stuck.received
        await trio.testing.wait_all_tasks_blocked()
        assert it.ends == 1
        assert len(it.handler.messages) == 1
        with pytest.raises(trio.BrokenResourceError):
            await it.talk()


@pytest.mark.parametrize("at_once", [True, False])
async def test_stopping_waits_for_no_handshake(at_once: bool) -> None:
    async with service(settings=replace(SETTINGS, tls=server_tls, tls_at_once=at_once)) as it:
        talk = await it.talk()
        if not at_once:
            await talk.stream.send_all(HELLO + b"STARTTLS\r\n")
            await talk.expect(b"220")
        await trio.testing.wait_all_tasks_blocked()
        it.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.ends == 1


async def test_stopping_takes_no_new_transaction() -> None:
    async with service() as it:
        talk = await it.talk(SEND, b"x\r\n")
        await talk.expect(b"354")
        it.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        await talk.stream.send_all(b".\r\n" + SEND.removeprefix(HELLO))
        assert (await talk.rest()).startswith(b"421 4.3.2")
        assert len(it.handler.messages) == 1


async def test_grace(autojump_clock: trio.testing.MockClock) -> None:
    async with service() as it:
        talk = await it.talk(SEND, b"x\r\n")
        await talk.expect(b"354")
        it.stopping.set()
        await talk.rest()
        await trio.sleep(0.1)
        assert it.ends == 1
        assert trio.current_time() == pytest.approx(30.1)
        assert it.handler.aborted == 1


async def test_cancelled_with_a_bug_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that breaks while it is cancelled is logged; nothing of it gets out of the service."""

    async def break_late() -> None:
        async with trio.open_nursery() as nursery:

            async def clean_up_badly() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    fail()

            nursery.start_soon(clean_up_badly)
            nursery.start_soon(trio.sleep_forever)

    async with service(on("mail", break_late), replace(SETTINGS, grace=0)) as it:
        talk = await it.talk(BEGIN)
        await talk.expect(b"220")
        await trio.testing.wait_all_tasks_blocked()
        it.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.ends == 1
    assert "SMTP connection failed" in caplog.text


async def test_cancelled_in_commit() -> None:
    async with service(on("commit", trio.sleep_forever), replace(SETTINGS, grace=0)) as it:
        talk = await it.talk(SEND)
        await talk.expect(b"354")
        await talk.stream.send_all(b"x\r\n.\r\n")
        await trio.testing.wait_all_tasks_blocked()
        it.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        assert it.ends == 1
        assert it.handler.aborted == 1


async def test_a_sink_that_hangs_in_abort(autojump_clock: trio.testing.MockClock) -> None:
    async with service(on("abort", trio.sleep_forever)) as it:
        talk = await it.talk(SEND, b"a\nb\r\n.\r\n")
        await talk.expect(b"550")
        assert trio.current_time() == pytest.approx(5)


# --- A client that is not ours ---


async def test_smtplib() -> None:
    handler = Memory()
    stopping = trio.Event()
    body = b"Subject: test\r\n\r\n.dot\r\n..\r\n" + "ü".encode() * 100 + b"\r\n"
    sent = (body + b"x" * 70 + b"\r\n") * 500

    def client(port: int) -> tuple[dict[str, Any], int]:
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=PATIENCE) as smtp:
            refused: dict[str, Any] = smtp.sendmail(
                "a@example.org", ["b@example.net", '"a b"@example.net'], sent, ["BODY=8BITMIME"]
            )
            smtp.sendmail("ü@example.org", "c@example.net", body, ["SMTPUTF8"])
            smtp.docmd("MAIL FROM:<a@example.org>")
            smtp.docmd("RCPT TO:<b@example.net>")
            assert smtp.docmd("DATA")[0] == 354
            smtp.send(b"a\n.\nb\r\n.\r\n")
            assert smtp.getreply()[0] == 550
            return refused, smtp.noop()[0]

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(partial(serve_smtp, listeners, SETTINGS, handler, stopping=stopping))
        assert await trio.to_thread.run_sync(client, port) == ({}, 250)
        stopping.set()

    (session, first, data), (_, second, _) = handler.messages
    assert data == sent
    assert session.peer == ip_address("127.0.0.1")
    assert first.recipients == (Mailbox("b", "example.net"), Mailbox("a b", "example.net"))
    assert first.size == len(sent)
    assert second.reverse_path == Mailbox("ü", "example.org")


# --- TLS ---


async def within_tls(talk: Talk) -> None:
    talk.stream = await TlsStream.connect(talk.stream, client_tls(), "localhost", timeout=PATIENCE)
    talk.received = b""


async def test_starttls_and_a_message() -> None:
    async with service(settings=replace(SETTINGS, tls=server_tls)) as smtp:
        talk = await smtp.talk(HELLO, b"STARTTLS\r\n")
        while b"Start TLS" not in talk.received:
            talk.received += await talk.stream.receive_some()
        assert b"250-STARTTLS\r\n" in talk.received or b"250 STARTTLS\r\n" in talk.received
        await within_tls(talk)
        await talk.stream.send_all(SEND + b"hi\r\n.\r\nQUIT\r\n")
        assert await talk.rest() == b"221 2.0.0 Bye"  # and then close_notify, or it would be an error
        assert b"STARTTLS" not in talk.received
    [(session, _, data)] = smtp.handler.messages
    assert (session.tls, data) == ("TLSv1.3", b"hi\r\n")
    assert session.binding == talk.stream.channel_binding


async def test_tls_at_once() -> None:
    async with service(settings=replace(SETTINGS, tls=server_tls, tls_at_once=True)) as smtp:
        talk = await smtp.talk()
        await within_tls(talk)
        await talk.stream.send_all(SEND + b"hi\r\n.\r\nQUIT\r\n")
        assert await talk.rest() == b"221 2.0.0 Bye"
    assert len(smtp.handler.messages) == 1


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_handshake_has_a_time_limit(at_once: bool, autojump_clock: trio.testing.MockClock) -> None:
    settings = replace(SETTINGS, tls=server_tls, tls_at_once=at_once, tls_timeout=7)
    async with service(settings=settings) as smtp:
        talk = await smtp.talk(*(() if at_once else (HELLO, b"STARTTLS\r\n")))
        started = trio.current_time()
        await talk.rest()
        assert trio.current_time() - started == 7


@pytest.mark.parametrize("said", [b"EHLO client.example\r\n", b"\x16\x03\x01\x00\x01\x00", b""])
async def test_no_handshake(said: bytes) -> None:
    async with service(settings=replace(SETTINGS, tls=server_tls, tls_at_once=True)) as smtp:
        talk = await smtp.talk(said)
        await talk.stream.send_stream.aclose()
        await talk.rest()
    assert smtp.handler.steps == []


async def test_turned_away_before_tls_without_a_word() -> None:
    settings = replace(SETTINGS, tls=server_tls, tls_at_once=True, max_connections=0)
    async with service(settings=settings) as smtp:
        talk = await smtp.talk()
        assert await talk.rest() == b""


async def test_a_session_within_tls_that_is_idle_ends_with_a_word(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with service(settings=replace(SETTINGS, tls=server_tls, tls_at_once=True)) as smtp:
        talk = await smtp.talk()
        await within_tls(talk)
        assert await talk.rest() == b"421 4.4.2 No command in time"
