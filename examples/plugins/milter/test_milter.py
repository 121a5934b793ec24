import base64
import shutil
import struct
import subprocess
from contextlib import asynccontextmanager, suppress
from functools import partial

import dkim
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gateway_milter import Milter, MilterSettings
from gateway_milter.protocol import ALL_STEPS, MilterError, Step, frame
from pydantic import ValidationError

from gateway import Address, Reject
from gateway.testing import submission

LETTER = b"From: <app@example.org>\r\nSubject: hi\r\nX-Old: 1\r\nx-old:\r\n 2\r\n\r\nhello\r\n"
ALL = 0x7F  # actions
CONTINUE = frame(b"c")


class ScriptedMilter:
    """A filter: `answers` has what it says to a command ("c" where nothing is said), `told` what it heard."""

    def __init__(self, answers=None, *, actions=ALL, steps=0, version=6, raw=None):
        self.answers = answers or {}
        self.terms = frame(b"O", struct.pack("!III", version, actions, steps)) if raw is None else raw
        self.steps = steps
        self.port = 0
        self.told = []

    @asynccontextmanager
    async def up(self):
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._serve, self.port, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            self.port = listener.socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    @property
    def settings(self):
        return MilterSettings(filter=f"inet:127.0.0.1:{self.port}")

    def heard(self, command):
        return [data for said, data in self.told if said == command]

    async def _serve(self, stream):
        with suppress(trio.BrokenResourceError):
            received = b""
            while some := await stream.receive_some(65536):
                received += some
                while len(received) > 4 and len(received) >= 4 + (
                    size := struct.unpack("!I", received[:4])[0]
                ):
                    command, data = received[4:5], received[5 : 4 + size]
                    received = received[4 + size :]
                    self.told.append((command.decode(), data))
                    await self._answer(stream, command.decode())

    async def _answer(self, stream, command):
        if command == "O":
            await stream.send_all(self.terms)
        elif command in self.answers:
            answer = self.answers[command]
            if answer == "hang":
                await trio.sleep_forever()
            if answer == "close":
                raise trio.BrokenResourceError
            await stream.send_all(answer)
        elif command not in "DQ" and not (command == "L" and self.steps & Step.SILENT_HEADERS):
            await stream.send_all(CONTINUE)


def texts(*parts):
    return b"".join(part + b"\0" for part in parts)


def change(command, *parts, index=None):
    return frame(command, (b"" if index is None else struct.pack("!I", index)) + texts(*parts))


async def ask(milter, data=LETTER, **fields):
    """What the plugin says to a message when the filter is up."""
    async with milter.up():
        return await Milter().submission(submission(data, **fields), milter.settings)


async def fails(milter):
    async with milter.up():
        with pytest.raises(MilterError):
            await Milter().submission(submission(LETTER), milter.settings)


# --- What it is told, and what it changes --------------------------------------------------------


async def test_what_it_is_told():
    milter = ScriptedMilter(steps=Step.LEADING_SPACE)
    given = submission(LETTER + b"x" * 70_000, recipients=["ada@example.com", "bob@example.com"])
    async with milter.up():
        assert await Milter().submission(given, milter.settings) == given
    assert [command for command, _ in milter.told if command not in "DQ"] == list("OCHMRRTLLLLNBBE")
    assert milter.told[0][1] == struct.pack("!III", 6, ALL, ALL_STEPS)
    assert milter.heard("C") == [b"localhost\x004\x00\x00127.0.0.1\x00"]
    assert milter.heard("M") == [b"<app@example.org>\0"]
    assert milter.heard("R") == [b"<ada@example.com>\0", b"<bob@example.com>\0"]
    assert milter.heard("L")[0] == b"From\0 <app@example.org>\0"
    assert milter.heard("L")[3] == b"x-old\0\n 2\0"
    assert [len(data) for data in milter.heard("B")] == [65535, 70_007 - 65535]
    assert b"M" + texts(b"i", b"sub-1", b"{auth_type}", b"PLAIN") in b"".join(milter.heard("D"))


async def test_it_is_told_what_it_wants():
    unwanted = Step.NO_CONNECT | Step.NO_HELO | Step.NO_RCPT | Step.NO_DATA | Step.NO_EOH
    milter = ScriptedMilter({"B": frame(b"s")}, steps=unwanted | Step.SILENT_HEADERS | Step.SKIP, version=2)
    assert await ask(milter, LETTER + b"x" * 200_000)
    assert [command for command, _ in milter.told if command not in "DQ"] == list("OMLLLLBE")
    assert milter.heard("L")[0] == b"From\0<app@example.org>\0"  # without the space


async def test_what_it_changes():
    end = b"".join(
        (
            frame(b"p"),
            change(b"h", b"X-Last", b"z"),
            change(b"i", b"X-First", b"a\n b", index=1),
            change(b"m", b"X-OLD", b"", index=2),
            change(b"m", b"Subject", b"[bulk] hi", index=1),
            change(b"m", b"X-New", b"n", index=3),
            change(b"+", b"<copy@example.org>"),
            change(b"-", b"<you@example.net>"),
            change(b"e", b"<bounces@example.org>", b"SIZE=1"),
            frame(b"b", b"one\r"),
            frame(b"b", b"\ntw\xc3\xb6\nthree"),
            CONTINUE,
        )
    )
    changed = await ask(ScriptedMilter({"E": end}))
    assert changed.data == (
        b"X-First: a\r\n b\r\nFrom: <app@example.org>\r\nSubject: [bulk] hi\r\nX-Old: 1\r\n"
        b"X-Last: z\r\nX-New: n\r\n\r\none\r\ntw\xc3\xb6\r\nthree"
    )
    assert changed.recipients == (Address.parse("copy@example.org"),)
    assert changed.reverse_path == Address.parse("bounces@example.org")
    assert changed.has_8bit


@pytest.mark.parametrize("step", ["C", "H", "M", "R", "T", "L", "N", "B", "E"])
@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (frame(b"r"), Reject(550, "5.7.1", "refused by a filter")),
        (frame(b"t"), Reject(451, "4.7.1", "a filter asks for another try later")),
        (frame(b"d"), Reject(550, "5.7.1", "refused by a filter, which would discard it")),
        (change(b"y", b"554 5.7.0 a virus\r\n554 5.7.0 and more"), Reject(554, "5.7.0", "a virus")),
        (change(b"y", b"451 later, 50% off"), Reject(451, "4.7.1", "later, 50% off")),
        (frame(b"4"), Reject(451, "4.3.2", "a filter shuts down")),
        (frame(b"a"), None),
    ],
)
async def test_what_it_decides(step, verdict, answer):
    given = submission(LETTER)
    said = await ask(ScriptedMilter({step: verdict}), LETTER)
    assert said == (given if answer is None else answer)


async def test_it_leaves_nobody():
    end = change(b"-", b"<you@example.net>") + CONTINUE
    assert (await ask(ScriptedMilter({"E": end}))).code == 550


async def test_it_has_mail_wait(mail_gateway):
    async with ScriptedMilter({"E": change(b"q", b"looks odd") + CONTINUE}).up() as milter:
        settings = {"filter": milter.settings.filter}
        async with mail_gateway(Milter(), settings={"milter": settings}) as gateway:
            assert [one.state for one in (await gateway.deliver()).messages] == ["held"]
        settings["quarantine"] = "reject"
        async with mail_gateway(Milter(), settings={"milter": settings}) as gateway:
            assert "quarantined by a filter: looks odd" in (await gateway.deliver()).refused


# --- What it should not do -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame(b"c"),
        frame(b"O", b"short"),
        frame(b"O", struct.pack("!III", 7, 0, 0)),
        frame(b"O", struct.pack("!III", 1, 0, 0)),
        frame(b"O", struct.pack("!III", 6, 0x100, 0)),
        frame(b"O", struct.pack("!III", 6, 0, 1 << 31)),
    ],
)
async def test_terms_that_are_none(terms):
    await fails(ScriptedMilter(raw=terms))


@pytest.mark.parametrize(
    "end",
    [
        "close",
        struct.pack("!I", 0xFFFFFFFF) + b"b",
        struct.pack("!I", 0),
        b"\0\0\0\x01\0",
        b"random garbage, not the protocol",
        frame(b"s"),
        frame(b"?"),
        frame(b"h", b"no NUL"),
        frame(b"h", texts(b"one")),
        frame(b"h", texts(b"one", b"two", b"three")),
        frame(b"i", b"\0\0"),
        change(b"h", b"", b"v"),
        change(b"h", b"X: a\r\nBcc", b"v"),
        change(b"h", b"X", b"v\r\n\r\nbody"),
        change(b"h", b"X", b"v\nBcc: x@example.org"),
        change(b"h", b"X", b"v\rw"),
        change(b"h", b"X", b"\xc3\xb6"),
        change(b"m", b"Subject", b"a\nb", index=1),
        change(b"+", b"no address"),
        change(b"e", b"<>"),
        change(b"y", b"250 fine"),
        change(b"y", b"\xff\xfe"),
        change(b"i", b"X", b"v", index=1) * 1001,
    ],
)
async def test_answers_that_are_none(end):
    await fails(ScriptedMilter({"E": end if end == "close" else end + CONTINUE}))


async def test_changes_before_the_end_or_not_agreed_on():
    await fails(ScriptedMilter({"H": change(b"h", b"X", b"v")}))
    await fails(ScriptedMilter({"E": change(b"h", b"X", b"v") + CONTINUE}, actions=0))


async def test_what_it_may_write_has_a_limit(monkeypatch):
    monkeypatch.setattr("gateway_milter.edits.MAX_BODY", 100_000)
    await fails(ScriptedMilter({"E": frame(b"b", b"x" * 60_000) * 2 + CONTINUE}))


async def test_a_filter_that_is_away_or_silent(mail_gateway):
    """Nothing is queued; with another policy mail goes on without the filter."""
    async with ScriptedMilter({"E": "hang"}).up() as milter:
        own = {"filter": milter.settings.filter, "limits": {"submission": 0.2}}
        async with mail_gateway(Milter(), settings={"milter": own}) as gateway:
            happened = await gateway.deliver()
            assert "milter" in happened.refused
            assert happened.messages == ()
    own["on_error"] = {"submission": "skip"}
    async with mail_gateway(Milter(), settings={"milter": own}) as gateway:
        assert (await gateway.deliver()).messages[0].state == "delivered"


@pytest.mark.parametrize(
    "data", [b"no colon\r\n\r\n", b"A: 1\n\n", b"A: 1\r\n", b"A: 1\r\n" * 9999 + b"\r\n"]
)
async def test_a_header_that_cannot_be_read(data):
    refused = await Milter().submission(submission(data), MilterSettings(filter="inet:127.0.0.1:1"))
    assert refused.code == 554
    with pytest.raises(MilterError):
        await Milter().sign(data, submission(data), MilterSettings(signer="inet:127.0.0.1:1"))


async def test_what_a_signer_may_not():
    """Refuse for good, or change the envelope."""
    for end in (frame(b"r"), change(b"+", b"<x@example.org>") + CONTINUE):
        async with ScriptedMilter({"E": end}, actions=0x13).up() as milter:
            with pytest.raises(MilterError):
                await Milter().sign(LETTER, submission(), MilterSettings(signer=milter.settings.filter))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"filter": "127.0.0.1:11332"},
        {"filter": "inet:localhost:0"},
        {"signer": "inet:localhost:70000"},
        {"filter": "unix:relative"},
        {"filter": "inet:localhost:11332", "quarantine": "lose"},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValidationError):
        MilterSettings(**wrong)


# --- OpenDKIM ------------------------------------------------------------------------------------


@pytest.fixture
async def opendkim(tmp_path):
    """A real one that signs for example.org, on a socket of its own. The key's TXT record comes with it."""
    program = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
    assert program, "install the Debian package opendkim"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)
    socket = tmp_path / "socket"
    lines = {
        "Domain": "example.org",
        "Selector": "test",
        "KeyFile": tmp_path / "key.pem",
        "Socket": f"local:{socket}",
        "Mode": "s",
        "Canonicalization": "simple/simple",
        "Syslog": "no",
        "Background": "no",
        "RequireSafeKeys": "no",
    }
    configuration = tmp_path / "opendkim.conf"
    configuration.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="ascii")
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with subprocess.Popen([program, "-f", "-x", str(configuration)]) as process:
        try:
            with trio.fail_after(10):
                while not socket.exists():
                    assert process.poll() is None, "opendkim has ended"
                    await trio.sleep(0.02)
            yield f"unix:{socket}", b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
        finally:
            process.kill()  # asked to end, it would take 5 seconds


async def test_opendkim_signs(mail_gateway, opendkim):
    signer, record = opendkim
    async with mail_gateway(Milter(), settings={"milter": {"signer": signer}}) as gateway:
        happened = await gateway.deliver(to="ada@example.com", subject="a subject that is " + "long " * 30)
        [sent] = happened.handed_over
        signatures = [line for line in sent.data.split(b"\r\n") if line.startswith(b"DKIM-Signature:")]
        assert len(signatures) == 1
        assert dkim.verify(sent.data, dnsfunc=lambda *_, **__: record)
        assert not dkim.verify(sent.data.replace(b"hello", b"hallo"), dnsfunc=lambda *_, **__: record)
