"""`gateway.testing`: what it says happened is what happened, and it waits until it has."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import datetime, timedelta
from email.message import EmailMessage

import pytest
import trio

from gateway import (
    Address,
    Event,
    IncomingEvent,
    Outcome,
    QueuedMessage,
    Reception,
    Reject,
    RetryAt,
    Route,
    Submission,
    hookimpl,
)
from gateway.errors import ConfigError
from gateway.testing import MailGateway, delivered, permanent, scripted_mx, temporary
from gateway.testing.mx import Step

log = logging.getLogger(__name__)


class Backup:
    """Stage `route`: another way after the first attempt."""

    @hookimpl
    def route(self, message: QueuedMessage) -> Route | None:
        return Route("backup") if message.attempts > 1 else None


async def test_what_happened_to_a_message(mail_gateway: MailGateway) -> None:
    async with mail_gateway(Backup(), transports=("first", "backup")) as gateway:
        gateway.transport("first").answer(temporary(451, "greylisted"), to="*@slow.example")
        happened = await gateway.deliver(to=["ada@slow.example", "bob@example.net"], extra={"n": "1"})
        assert happened.refused == ""
        assert happened.recipients == ["ada@slow.example", "bob@example.net"]
        assert [happened[one].state for one in happened.recipients] == ["waiting", "delivered"]
        [attempt] = happened["ada@slow.example"].attempts
        assert (attempt.transport, attempt.code, attempt.error) == ("first", 451, "greylisted")
        assert {(one.recipient, one.name) for one in happened.events} == {
            ("ada@slow.example", "delayed"),
            ("bob@example.net", "delivered"),
        }
        assert {one.json["Event"] for one in happened.webhooks} == {"delayed", "delivered"}
        assert {one.recipients for one in happened.handed_over} == {
            ("ada@slow.example",),
            ("bob@example.net",),
        }
        assert all(b"\r\n\r\nhello" in one.data for one in happened.handed_over)

        # Nothing is due yet; then it is, and only that is told.
        assert (await gateway.advance(60)).messages == ()
        later = await gateway.advance(timedelta(hours=1))
        assert later.recipients == ["ada@slow.example"]
        assert later["ada@slow.example"].state == "delivered"
        assert [one.transport for one in later.handed_over] == ["backup"]
        with pytest.raises(KeyError, match=r"bob@example.net: there is no message to this recipient"):
            later["bob@example.net"]


async def test_a_fake_transport_answers_in_turn(mail_gateway: MailGateway) -> None:
    async with mail_gateway() as gateway:
        answers: list[Outcome | Exception] = [OSError("the wire is cut"), temporary(), delivered(code=250)]
        gateway.transport().answer(*answers)
        gateway.transport().answer(permanent(550), to="gone@example.net")
        happened = await gateway.deliver(to="gone@example.net")
        assert happened["gone@example.net"].state == "failed"
        happened = await gateway.deliver()
        assert (
            happened["you@example.net"].attempts[0].error
            == "transport 'test' raised OSError: the wire is cut"
        )
        assert (await gateway.advance(600))["you@example.net"].state == "waiting"
        assert (await gateway.advance(3600))["you@example.net"].state == "delivered"
    with pytest.raises(ValueError, match="nothing to answer"):
        gateway.transport().answer()


class Hourly:
    """Stage `retry`: an hour after each attempt."""

    def __init__(self) -> None:
        self.asked: list[datetime] = []

    @hookimpl
    def retry(self, now: datetime) -> RetryAt:
        self.asked.append(now)
        return RetryAt(now + timedelta(hours=1))


async def test_what_is_due_while_time_passes_happens_at_its_time_and_in_its_order(
    mail_gateway: MailGateway,
) -> None:
    plugin = Hourly()
    async with mail_gateway(plugin) as gateway:
        start = gateway.clock.now()
        gateway.transport().answer(*[temporary()] * 3, delivered(), to="ada@example.net")
        await gateway.deliver(to="ada@example.net")
        await gateway.deliver(to="bob@example.net", not_before=start + timedelta(minutes=90))
        gateway.webhooks.status = 500  # so that calls wait, too
        happened = await gateway.advance(timedelta(days=1))
        hours = [(one.delivery.started - start) / timedelta(hours=1) for one in happened.handed_over]
        assert [one.recipients[0] for one in happened.handed_over] == [
            "ada@example.net",
            "bob@example.net",
            "ada@example.net",
            "ada@example.net",
        ]
        assert hours == [1, 1.5, 2, 3]
        assert plugin.asked == [start + timedelta(hours=one) for one in (0, 1, 2)]
        assert [event.time for event in happened.events if event.name == "delivered"] == [
            start + timedelta(hours=1.5),
            start + timedelta(hours=3),
        ]
        assert len(happened.webhooks) > 2 * len(happened.events)  # tried again, each at its time
        assert gateway.clock.now() == start + timedelta(days=1)


class Filter:
    """Stages `submission`, `hold` and `receive_policy`."""

    @hookimpl
    def submission(self, submission: Submission) -> Reject | None:
        return Reject(550, "5.7.1", "no lotteries") if "Lottery" in submission.subject else None

    @hookimpl
    def hold(self, recipient: Address) -> bool | None:
        return True if recipient.domain == "held.example" else None

    @hookimpl
    def receive_policy(self, reception: Reception) -> Reject | None:
        sender = reception.reverse_path
        refused = sender is not None and sender.domain == "spam.example"
        return Reject(550, "5.7.1", "not from there") if refused else None


async def test_what_was_refused_or_held(mail_gateway: MailGateway) -> None:
    async with mail_gateway(Filter) as gateway:
        happened = await gateway.deliver(subject="Lottery")
        assert happened.refused == "plugin filter: no lotteries"
        assert (happened.messages, happened.handed_over) == ((), ())
        held = await gateway.deliver(to="ada@held.example")
        assert held["ada@held.example"].state == "held"
        assert held.events == ()

        letter = b"From: x@spam.example\r\nSubject: hi\r\n\r\nhi\r\n"
        refused = await gateway.receive(letter, mail_from="x@spam.example")
        assert refused.refused == "550 5.7.1 not from there"
        unknown = await gateway.receive(letter, to="nobody@example.org")
        assert unknown.refused.startswith("550 5.1.1 ")
        taken = await gateway.receive(letter)
        [arrived] = taken.incoming
        assert (arrived.message.mailbox, arrived.parsed.summary.subject) == ("Inbox", "hi")
        assert taken.webhooks[0].json["Meta"]["RcptTo"] == "app@example.org"


class Talkative:
    """Stage `event`: says what it hears, and breaks at a failure."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def event(self, event: Event | IncomingEvent) -> None:
        assert isinstance(event, Event)
        self.heard.append(event.name)
        log.info("heard %s", event.name)
        if event.name == "failed":
            raise RuntimeError("it failed")


async def test_plugins_were_told_before_it_returns_and_their_lines_are_kept(
    mail_gateway: MailGateway,
) -> None:
    plugin = Talkative()
    async with mail_gateway(plugin) as gateway:
        happened = await gateway.deliver()
        assert (plugin.heard, happened.log) == (["delivered"], ("heard delivered",))
        gateway.transport().answer(permanent())
        happened = await gateway.deliver()
        failure = "plugin 'talkative', hook 'event': raised RuntimeError: it failed"
        assert happened.log == ("heard failed", failure)
    assert logging.getLogger("tests").level == logging.NOTSET


async def test_a_message_of_ones_own_and_the_api(mail_gateway: MailGateway) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "app@example.org", "you@example.net", "Order"
    message["Message-ID"] = "<7@example.org>"
    message.set_content("thank you")
    async with mail_gateway() as gateway:
        happened = await gateway.deliver(message)
        assert happened["you@example.net"].message.message_id == "<7@example.org>"
        assert happened.events[0].subject == "Order"
        api = await gateway.api()
        sent = await api.post("Send", json={"To": [{"Address": "ada@example.net"}], "Text": "hi"})
        assert sent.status_code == 200, sent.text
        await gateway.rest()
        assert gateway.transport().got[-1].recipients == ("ada@example.net",)


async def test_a_scripted_mx(mail_gateway: MailGateway) -> None:
    async with scripted_mx() as mx:
        relay = {"type": "smtp", "host": mx.host, "port": mx.port, "tls": "none"}
        mx.answer("552 5.2.2 full", to="full@*")
        mx.answer("451 4.7.1 greylisted", "", to="slow@*")
        async with mail_gateway(transports={"relay": relay}) as gateway:
            happened = await gateway.deliver(to=[f"{one}@example.net" for one in ("ada", "full", "slow")])
            states = [happened[one].state for one in happened.recipients]
            assert states == ["delivered", "failed", "waiting"]
            assert happened["full@example.net"].attempts[0].enhanced == "5.2.2"
            [message] = mx.messages
            assert (message.mail_from, message.recipients) == ("app@example.org", ("ada@example.net",))
            assert (await gateway.advance(3600))["slow@example.net"].state == "delivered"
            steps: list[tuple[Step, int]] = [("mail", 450), ("data", 452), ("end", 554)]
            for step, code in steps:
                mx.answer(f"{code} not now", step=step)
                happened = await gateway.deliver()
                assert happened["you@example.net"].attempts[0].code == code
                mx.answer("", step=step)
    for wrong in ("hello", "99 x", "451 5.1.1 x"):
        with pytest.raises(ValueError, match=r"5\.1\.1|is no reply"):
            mx.answer(wrong)


async def test_what_is_wrong_is_said(mail_gateway: MailGateway) -> None:
    with pytest.raises(ConfigError, match=r"no plugin 'nobody\.there' is installed"):
        async with mail_gateway("nobody.there"):
            pass
    with pytest.raises(ValueError, match="two plugins have one name"):
        async with mail_gateway(Backup(), Backup()):
            pass
    with pytest.raises(AssertionError, match="as it is"):
        async with mail_gateway():
            raise AssertionError("as it is")


def test_the_plugin_of_pytest_imports_nothing_of_the_gateway() -> None:
    code = "import sys, gateway_pytest; sys.exit(any(m.partition('.')[0] == 'gateway' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Deaf:
    """Stage `event`: fails, and has to be told again."""

    @hookimpl
    def event(self) -> None:
        raise RuntimeError("deaf")


async def test_what_does_not_come_to_rest_is_named(
    mail_gateway: MailGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.testing.running.PATIENCE", 1.0)
    settings = {"deaf": {"on_error": {"event": "defer"}}}
    async with mail_gateway(Deaf(), settings=settings) as gateway:
        with pytest.raises(trio.TooSlowError, match="still an event that plugins have not been told"):
            await gateway.deliver()
