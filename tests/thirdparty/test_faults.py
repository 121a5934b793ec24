"""A plugin that fails costs nothing: nothing is lost, the log names it, and its stage's policy holds.

Then it is taken out of the set, and the gateway is started again in the same directory.
"""

from __future__ import annotations

import json
import smtplib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.outbound.schedule import fallback_next_attempt
from tests.running import Receiver, running
from tests.thirdparty.failing import LIMIT, WAYS, Way, every_way, failing, failures
from tests.thirdparty.gateways import calls, usual, with_sets

MAIL = b"From: <x@example.org>\r\nSubject: from elsewhere\r\n\r\nhi\r\n"
RAISES, HANGS = WAYS[0], WAYS[3]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# --- Before a message is queued: DEFER -------------------------------------------------------------


@every_way
@pytest.mark.parametrize("hook", ["submission", "sign", "hold"])
async def test_the_client_is_asked_to_try_again(
    hook: str, way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    request = {"To": [{"Address": "user@example.org"}], "Subject": "hi", "Text": "hello"}
    async with running(tmp_path, webhooks, change=failing(way, hook)) as gateway:
        response = await gateway.api.post("Send", json=request)
        assert (response.status_code, response.json()["Code"]) == (400, "server"), response.text
        assert way.plugin in response.json()["Message"]
        assert "acme broke down" not in response.text
        assert await gateway.messages() == ()
    assert len(failures(caplog, way, hook)) == 1

    async with running(tmp_path, webhooks) as gateway:
        await gateway.call("Send", request)
        await webhooks.event("delivered")
        await webhooks.incoming()


@every_way
async def test_mail_from_elsewhere_is_put_off(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "receive_policy")) as gateway:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            await gateway.mail(MAIL)
        assert (refused.value.smtp_code, refused.value.smtp_error) == (
            451,
            b"4.3.0 Local error; try again later",
        )
    assert failures(caplog, way, "receive_policy")

    async with running(tmp_path, webhooks) as gateway:
        await gateway.mail(MAIL)
        assert [p["Subject"] for p in await webhooks.incoming()] == ["from elsewhere"]


@every_way
async def test_mail_waits_for_its_mailbox(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "mailbox")) as gateway:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            await gateway.mail(MAIL)
        assert (refused.value.smtp_code, refused.value.smtp_error) == (
            451,
            b"4.3.0 Local error; try again later",
        )
        assert (await gateway.call("MessageList", {}))["Messages"] == []
    assert len(failures(caplog, way, "mailbox")) == 1

    async with running(tmp_path, webhooks) as gateway:
        await gateway.mail(MAIL)
        assert [p["Meta"]["MailboxName"] for p in await webhooks.incoming()] == ["Inbox"]


# --- Delivery ------------------------------------------------------------------------------------


@every_way
async def test_a_message_waits_for_its_route(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "route"), clock=clock) as gateway:
        await gateway.send(CC=[{"Address": "other@example.org"}])
        for recipient in ("user@example.org", "other@example.org"):
            delayed = await webhooks.event("delayed", Recipient=recipient)
            assert f"plugin '{way.plugin}', hook 'route': " in delayed["Error"]
            assert (delayed["SMTPCode"], delayed["Attempt"]) == (0, 1)
            item, [attempt] = await gateway.message(delayed["QueueMsgID"])
            assert (item.state, item.leased, attempt.state, attempt.success) == (
                "queued",
                False,
                "done",
                False,
            )
            wait = item.message.next_attempt - clock.now()
            assert abs(wait - timedelta(minutes=7.5)) <= timedelta(seconds=5)
    assert len(failures(caplog, way, "route")) == 2

    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        for recipient in ("user@example.org", "other@example.org"):
            await webhooks.event("delivered", Recipient=recipient, Attempt=1)
        await webhooks.incoming(2)


@every_way
async def test_what_is_not_limited_is_sent(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "shape")) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()
    assert len(failures(caplog, way, "shape")) == 1


@every_way
async def test_without_an_answer_the_claim_says_when_to_retry(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    def change(raw: dict[str, Any]) -> None:
        failing(way, "retry", without=("retry",), before=("acme.transports",))(raw)
        raw["transports"]["localserve"] = {"type": "told", "result": "temporary", "error": "not now"}

    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send()
        assert (await webhooks.event("delayed"))["Error"] == "not now"
        [item] = await gateway.messages()
        assert (item.state, item.leased) == ("queued", False)
        assert item.message.next_attempt == fallback_next_attempt(1, clock.now())
    assert len(failures(caplog, way, "retry")) == 1

    clock.advance(timedelta(minutes=7.5))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await webhooks.event("delivered", Attempt=2)
        await webhooks.incoming()


AROUND = {
    "raise": "raised RuntimeError: acme broke down",
    "nonsense": "answered int",
    "raise on entering": "raised RuntimeError: acme broke down on entering",
    "hang on entering": "no end on entering in 0.2 s",
    "raise on leaving": "raised RuntimeError: acme broke down on leaving",
    "hang on leaving": "no end on leaving in 0.2 s",
    "swallow": "",
}


def around(does: str, on_error: str = "skip") -> Any:
    settings = {
        "way": does,
        "limits": {"around_attempt": LIMIT},
        "on_error": {"around_attempt": on_error},
    }
    return with_sets(["acme.faults.around", *usual()], {"acme.faults.around": settings})


@pytest.mark.parametrize("does", AROUND)
async def test_what_stands_around_an_attempt_does_not_stop_it(
    does: str, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=around(does)) as gateway:
        await gateway.send()
        await gateway.send("user550@example.org")
        await webhooks.event("delivered", Recipient="user@example.org")
        await webhooks.event("failed", Recipient="user550@example.org", SMTPCode=550)
        await webhooks.incoming()
    said = [record.getMessage() for record in caplog.records if "acme.faults.around" in record.getMessage()]
    errors = [line for line in said if "hook 'around_attempt': " in line]
    assert len(errors) == (2 if AROUND[does] else 0)
    assert "has no effect" not in caplog.text  # its limit has
    assert all(AROUND[does] in line for line in errors)


@pytest.mark.parametrize("does", ["raise", "raise on entering", "hang on entering"])
async def test_an_attempt_may_depend_on_what_stands_around_it(
    does: str, tmp_path: Path, webhooks: Receiver, clock: ManualClock
) -> None:
    async with running(tmp_path, webhooks, change=around(does, "defer"), clock=clock) as gateway:
        await gateway.send()
        delayed = await webhooks.event("delayed")
        assert "plugin 'acme.faults.around', hook 'around_attempt': " in delayed["Error"]
    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await webhooks.event("delivered", Attempt=1)


# --- What became of it ---------------------------------------------------------------------------


@every_way
async def test_webhooks_wait_until_one_can_write_them(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    change = failing(way, "format_webhook", without=("mox.webhook",))
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send()

        async def waiting() -> set[tuple[str, str, bool]]:
            return {
                (call.event_name, call.error, call.next_attempt > clock.now())
                for call in await calls(gateway, state="queued")
            }

        error = f"the payload was not made: plugins failed or did not answer: {way.plugin}"
        await gateway.until(waiting, {("delivered", error, True), ("incoming", error, True)})
        assert (await gateway.message(1))[0].state == "retired"
    assert webhooks.got == []
    assert len(failures(caplog, way, "format_webhook")) == 2

    clock.advance(timedelta(minutes=2))
    async with running(tmp_path, webhooks, clock=clock) as gateway:
        await webhooks.event("delivered")
        await webhooks.incoming()
    assert len(webhooks.got) == 2


@every_way
async def test_the_others_are_asked(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    """Where a stage goes on without the one that fails, the next plugin has its say."""
    hooks = ("retry", "format_webhook", "event")

    def change(raw: dict[str, Any]) -> None:
        failing(way, *hooks)(raw)
        raw["plugin_sets"]["test"]["plugins"].append("acme.journal")
        raw["plugin"]["acme.journal"] = {"file": "journal.jsonl"}

    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        await gateway.send("vtemperror@example.org")
        await webhooks.event("delayed")
        [item] = await gateway.messages()
        assert item.message.next_attempt != fallback_next_attempt(1, clock.now())  # the other plugin jitters
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()
        journal = tmp_path / "journal.jsonl"

        async def told() -> int:
            return len(journal.read_text().splitlines()) if journal.exists() else 0

        await gateway.until(told, 3)
    for hook, count in zip(hooks, (1, 3, 3), strict=True):
        assert len(failures(caplog, way, hook)) == count


async def test_events_wait_for_a_plugin_that_must_hear_them(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """From its first start on a plugin misses none, whenever the gateway stops."""
    change = failing(RAISES, "event", on_error="defer")
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()

        async def failed() -> bool:
            return any("hook 'event'" in record.getMessage() for record in caplog.records)

        await gateway.until(failed, True)
        assert failures(caplog, RAISES, "event")

    journal = tmp_path / "journal.jsonl"
    change = with_sets(["acme.journal", *usual()], {"acme.journal": {"file": "journal.jsonl"}})
    async with running(tmp_path, webhooks, change=change) as gateway:

        async def told() -> list[str]:
            lines = journal.read_text().splitlines() if journal.exists() else []
            return sorted(json.loads(line)["event"] for line in lines)

        await gateway.until(told, ["delivered", "incoming"])


# --- Another policy, by configuration -------------------------------------------------------------


@pytest.mark.parametrize("way", [RAISES, HANGS], ids=str)
async def test_a_failure_may_be_skipped_where_the_configuration_says_so(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = ("submission", "sign", "hold", "route", "receive_policy", "mailbox")
    change = failing(way, *hooks, on_error="skip")
    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        [arrived] = await webhooks.incoming()
        assert b"DKIM-Signature" in await gateway.raw(arrived["Meta"]["MsgID"])
    for hook in hooks:
        assert failures(caplog, way, hook)
