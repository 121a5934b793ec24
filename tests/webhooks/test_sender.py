from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
import trio

from gateway import Event, IncomingEvent, WebhookBody, WebhookCall, __version__, hookimpl
from gateway.errors import StoreUnavailable
from gateway.leases import Recovery
from gateway.store import received, webhook_calls
from gateway.store.changes import CallDraft, IncomingDraft, NewCopy, NewReceived
from gateway.store.content import StoredBytes
from gateway.store.tables import event as event_table
from gateway.store.tables import webhook_call
from gateway.webhooks.turn import Turn
from gateway_signing import standard
from tests.commands import PATIENCE
from tests.webhooks.gateways import OK, SORRY, Receiver, bench, receiving

DAY = timedelta(days=1)


def _change(conn: sa.Connection, statement: sa.Update | sa.Delete) -> None:
    conn.execute(statement)


async def test_a_call_arrives_with_its_headers_and_is_retired(tmp_path: Path) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=7, authorization="Bearer gr\u00fcn")
        await receiver.has(1)
        call = await b.until(call_id, lambda c: c.state == "retired")
        history = await b.history(call_id)
    headers, body = receiver.requests[0]
    assert headers == {
        "Host": receiver.url.split("/")[2],
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": f"mail-gateway/{__version__}",
        "X-Mox-Webhook-ID": str(call_id),
        "X-Mox-Webhook-Attempt": "1",
        "Authorization": "Bearer gr\u00fcn",
        "Content-Length": str(len(body)),
    }
    assert (call.success, call.attempts, call.error, call.payload) == (True, 1, "", body)
    assert call.keep_until == b.clock.now() + 7 * DAY
    assert [(a.success, a.code, a.response, a.url) for a in history] == [(True, 200, "ok", receiver.url)]


async def test_a_failed_call_is_repeated_byte_for_byte_after_a_minute(tmp_path: Path) -> None:
    receiver = Receiver(SORRY)
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=7)
        start = b.clock.now()
        call = await b.until(call_id, lambda c: c.payload is not None)
        assert (call.state, call.error) == ("queued", "HTTP status 503")
        wait = (call.next_attempt - b.clock.now()).total_seconds()
        assert 59.4 <= wait <= 60.6
        b.later(wait - 0.1)
        await trio.sleep(0.03)
        assert len(receiver.requests) == 1
        b.later(0.2)
        await receiver.has(2)
    async with bench(tmp_path) as b:
        history = await b.history(call_id)
        assert (await b.call(call_id)).next_attempt > start + timedelta(minutes=2.9)
    first, second = receiver.requests
    assert first[1] == second[1]
    assert [r[0]["X-Mox-Webhook-Attempt"] for r in receiver.requests] == ["1", "2"]
    assert {r[0]["X-Mox-Webhook-ID"] for r in receiver.requests} == {str(call_id)}
    assert [a.response for a in history] == ["sorry", "sorry"]


async def test_after_the_twelfth_attempt_a_call_is_retired_as_failed(tmp_path: Path) -> None:
    receiver = Receiver(SORRY)
    async with bench(tmp_path) as b, receiving(receiver):
        call_id = await b.event(receiver.url, message=7)
        await b.store.write(lambda conn: _change(conn, sa.update(webhook_call).values(attempts=11)))
        async with b.sending():
            call = await b.until(call_id, lambda c: c.state == "retired")
    assert (call.success, call.attempts, call.error) == (False, 12, "HTTP status 503")


async def test_only_the_newest_event_of_a_message_is_delivered(tmp_path: Path) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        old = [await b.event(receiver.url, message=7, name="delayed") for _ in range(3)]
        newest = await b.event(receiver.url, message=7, name="delivered")
        other = await b.event(receiver.url, message=8, name="delayed")
        async with b.sending():
            await b.until(other, lambda c: c.state == "retired")
            calls = [await b.call(call_id) for call_id in old]
    assert [(h["X-Mox-Webhook-ID"]) for h, _ in receiver.requests] == [str(newest), str(other)]
    assert [c.superseded_by for c in calls] == [old[1], old[2], newest]
    assert all(c.state == "retired" and not c.success for c in calls)


async def test_a_call_under_way_when_it_is_superseded_is_not_interrupted(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.go_on = trio.Event()
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        old = await b.event(receiver.url, message=7, name="delayed")
        await receiver.has(1)
        new = await b.event(receiver.url, message=7, name="failed")
        assert (await b.call(old)).superseded_by == new
        receiver.go_on.set()
        payloads = await receiver.has(2)
        await b.until(new, lambda c: c.state == "retired")
        history = await b.history(old)
        call = await b.call(old)
    assert [p["Event"] for p in payloads] == ["delayed", "failed"]
    assert [(a.success, a.code) for a in history] == [(True, 200)]
    assert (call.state, call.superseded_by, call.success) == ("retired", new, True)


async def test_without_superseding_events_of_a_message_come_in_order(tmp_path: Path) -> None:
    receiver = Receiver(SORRY)
    async with bench(tmp_path, max_calls_per_url=5) as b, receiving(receiver), b.sending():
        first = await b.event(receiver.url, message=7, name="delayed", supersede=False)
        await b.event(receiver.url, message=7, name="delivered", supersede=False)
        await b.until(first, lambda c: c.payload is not None)
        await trio.sleep(0.03)
        assert len(receiver.requests) == 1
        receiver.response = b"HTTP/1.1 204 No Content\r\n\r\n"
        b.later(61)
        payloads = await receiver.has(3)
    assert [p["Event"] for p in payloads] == ["delayed", "delayed", "delivered"]


async def test_a_slow_receiver_delays_no_other(tmp_path: Path) -> None:
    slow, quick = Receiver(), Receiver()
    slow.go_on = trio.Event()
    async with bench(tmp_path, max_calls=2) as b, receiving(slow, quick), b.sending():
        for message in range(1, 11):
            await b.event(slow.url, message=message)
        await slow.has(1)
        for message in range(11, 21):
            await b.event(quick.url, message=message)
        payloads = await quick.has(10)
        assert (len(slow.requests), slow.most_at_once, quick.most_at_once) == (1, 1, 1)
        slow.go_on.set()
        await slow.has(10)
    assert [p["QueueMsgID"] for p in payloads] == list(range(11, 21))
    assert slow.most_at_once == 1


@pytest.mark.parametrize(("max_calls", "per_url", "expected"), [(3, 10, 3), (10, 2, 2)])
async def test_limits_hold_and_are_used(tmp_path: Path, max_calls: int, per_url: int, expected: int) -> None:
    receiver = Receiver()
    receiver.go_on = trio.Event()
    async with (
        bench(tmp_path, max_calls=max_calls, max_calls_per_url=per_url) as b,
        receiving(receiver),
        b.sending(),
    ):
        for message in range(1, 8):
            await b.event(receiver.url, message=message)
        await receiver.has(expected)
        await trio.sleep(0.03)
        assert receiver.at_once == expected
        receiver.go_on.set()
        await receiver.has(7)
    assert receiver.most_at_once == expected


class Moody:
    """A format plugin that works when it is in the mood."""

    mood: WebhookBody | Exception | None = RuntimeError("not today")

    @hookimpl
    def format_webhook(self, event: Event | IncomingEvent) -> WebhookBody | None:
        if isinstance(self.mood, Exception):
            raise self.mood
        return self.mood


@pytest.mark.parametrize("mood", [RuntimeError("not today"), None, WebhookBody(b"")])
async def test_without_a_payload_the_call_waits_and_is_tried_again(
    tmp_path: Path, mood: WebhookBody | Exception | None
) -> None:
    receiver, moody = Receiver(), Moody()
    moody.mood = mood
    async with bench(tmp_path, plugins={"moody": moody}) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=7)
        call = await b.until(call_id, lambda c: c.error != "")
        assert call.error == "the payload was not made: plugins failed or did not answer: moody"
        assert (call.state, call.attempts) == ("queued", 1)
        assert call.next_attempt > b.clock.now()
        moody.mood = WebhookBody(b'{"at":"last"}', "application/x")
        b.later(61)
        assert await receiver.has(1) == [{"at": "last"}]
        await b.until(call_id, lambda c: c.success is True)
        history = await b.history(call_id)
    assert receiver.requests[0][0]["Content-Type"] == "application/x"
    assert receiver.requests[0][0]["X-Mox-Webhook-Attempt"] == "2"
    assert [(a.success, a.code) for a in history] == [(False, 0), (True, 200)]


async def test_a_call_whose_event_is_gone_is_given_up(tmp_path: Path) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        call_id = await b.event(receiver.url, message=7)
        await b.store.write(lambda conn: _change(conn, sa.delete(event_table)))
        async with b.sending():
            call = await b.until(call_id, lambda c: c.state == "retired")
    assert (call.success, call.error) == (False, "what the webhook is about has been removed")
    assert receiver.requests == []


async def test_incoming_mail_is_announced(tmp_path: Path) -> None:
    receiver = Receiver()
    data = b"From: Me <me@example.org>\r\nSubject: Hi\r\n\r\nhello\r\n"
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        event = IncomingDraft(keep_until=b.clock.now() + DAY, calls=(CallDraft(url=receiver.url),))
        copy = NewCopy(account="a", mailbox="Inbox", rcpt_to="a@example.com", event=event)
        new = NewReceived(content=StoredBytes(len(data), data=data), copies=(copy,))
        (message_id,) = await b.store.write(lambda conn: received.add(conn, new, b.clock.now()))
        b.queued.set()
        (payload,) = await receiver.has(1)
    assert payload["From"] == [{"Name": "Me", "Address": "me@example.org"}]
    assert (payload["Text"], payload["Meta"]["MsgID"]) == ("hello\n", message_id)


async def test_stopping_finishes_what_is_under_way_and_starts_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.go_on = trio.Event()
    async with bench(tmp_path) as b, receiving(receiver):
        async with b.sending() as stopping:
            first = await b.event(receiver.url, message=1)
            second = await b.event(receiver.url, message=2)
            await receiver.has(1)
            stopping.set()
            await trio.sleep(0.03)
            receiver.go_on.set()
        assert (await b.call(first)).state == "retired"
        assert ((await b.call(second)).state, (await b.call(second)).attempts) == ("queued", 0)
    assert len(receiver.requests) == 1


async def test_a_stop_while_idle_takes_no_time(tmp_path: Path) -> None:
    async with bench(tmp_path) as b, b.sending():  # it fails where the stop takes long
        await trio.sleep(0.02)


async def test_a_call_cut_off_is_made_again_soon_after_the_next_start(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.go_on = trio.Event()
    async with bench(tmp_path) as b, receiving(receiver):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(b.sender("one").serve, stopping=trio.Event()))
            call_id = await b.event(receiver.url, message=1)
            await receiver.has(1)
            nursery.cancel_scope.cancel()
        receiver.go_on.set()
        await Recovery("webhook calls", webhook_calls.recover, b.store, b.clock, b.queued.set).recover_dead(
            lambda owner: owner != "two"
        )
        call = await b.call(call_id)
        assert (call.attempts, call.next_attempt) == (1, b.clock.now() + timedelta(seconds=30))
        async with b.sending("two"):
            b.later(31)
            await receiver.has(2)
            await b.until(call_id, lambda c: c.success is True)
    assert [h["X-Mox-Webhook-Attempt"] for h, _ in receiver.requests] == ["1", "2"]


async def test_a_call_is_not_made_once_its_lease_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the process stood still after the claim: another one may have made it meanwhile."""
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        write = b.store.write

        async def stopped_after_the_claim(work: Any) -> Any:
            answer = await write(work)
            if isinstance(answer, Turn) and answer.due and b.clock.now() < later:
                b.clock.advance(later - b.clock.now())
            return answer

        later = b.clock.now() + timedelta(hours=1)
        monkeypatch.setattr(b.store, "write", stopped_after_the_claim)
        async with b.sending():
            call_id = await b.event(receiver.url, message=1)
            with trio.fail_after(PATIENCE):
                while "is not made" not in caplog.text:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert receiver.requests == []
            recovery = Recovery("webhook calls", webhook_calls.recover, b.store, b.clock, b.queued.set)
            assert await recovery._recover(frozenset()) == 1
            b.later(0)
            await b.until(call_id, lambda c: c.success is True)
    assert [h["X-Mox-Webhook-Attempt"] for h, _ in receiver.requests] == ["2"]
    assert f"webhook call={call_id} is not made, its lease ran out before" in caplog.text


async def test_a_result_survives_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.webhooks.sender.STORE_AGAIN_AFTER", 0.01)
    receiver = Receiver()
    receiver.go_on = trio.Event()
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=1)
        await receiver.has(1)
        write, failures, twice = b.store.write, 0, trio.Event()

        async def away(work: Any, **options: Any) -> Any:
            nonlocal failures
            failures += 1
            if failures == 2:
                twice.set()
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(b.store, "write", away)
        receiver.go_on.set()
        with trio.fail_after(PATIENCE):
            await twice.wait()
        monkeypatch.setattr(b.store, "write", write)
        await b.until(call_id, lambda c: c.state == "retired" and c.success is True)
    assert len(receiver.requests) == 1


async def test_the_result_of_a_call_that_ended_is_recorded_even_when_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        write, hanging = b.store.write, trio.Event()

        async def hang_once(work: Any, **options: Any) -> Any:
            if receiver.requests and not hanging.is_set():
                hanging.set()
                await trio.sleep_forever()
            return await write(work, **options)

        monkeypatch.setattr(b.store, "write", hang_once)
        call_id = await b.event(receiver.url, message=1)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(b.sender().serve, stopping=trio.Event()))
            with trio.fail_after(PATIENCE):
                await hanging.wait()
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        call = await b.call(call_id)
    assert (call.state, call.success) == ("retired", True)


async def test_nothing_is_kept_of_accounts_that_keep_nothing(tmp_path: Path) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        account = b.settings.accounts["a"].model_copy(update={"keep_webhooks_days": 0.0})
        b.settings = b.settings.model_copy(update={"accounts": {"a": account}})
        async with b.sending():
            await b.event(receiver.url, message=1)
            await receiver.has(1)
        left = await b.store.read(
            lambda conn: conn.scalar(sa.select(sa.func.count()).select_from(webhook_call))
        )
    assert left == 0


async def test_each_url_of_an_event_has_its_own_id_and_is_signed_with_its_own_secrets(tmp_path: Path) -> None:
    first, second, third = Receiver(), Receiver(), Receiver(SORRY)
    secrets = {
        1: ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        2: ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    }
    async with bench(tmp_path) as b, receiving(first, second, third):
        urls = [{"url": r.url, "secrets": secrets.get(n, [])} for n, r in enumerate((third, first, second))]
        b.configure(webhooks=urls)
        async with b.sending():
            ids = await b.events(message=7)
            await first.has(1)
            await second.has(1)
            b.later(0)
            call = await b.until(ids[0], lambda c: c.payload is not None)
            assert len(set(ids)) == 3
            b.later(61)
            await third.has(2)
    for receiver, call_id, used in ((first, ids[1], secrets[1]), (second, ids[2], secrets[2])):
        headers, body = receiver.requests[0]
        assert headers["webhook-id"] == f"msg_{call_id}" == "msg_" + headers["X-Mox-Webhook-ID"]
        assert len(headers["webhook-signature"].split()) == len(used)
        for secret in used:
            now = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
            assert standard.signature(secret, f"msg_{call_id}", now, body) in headers["webhook-signature"]
    assert not any("webhook-id" in headers for headers, _ in third.requests)
    assert {headers["X-Mox-Webhook-ID"] for headers, _ in third.requests} == {str(call.id)}


async def test_an_event_that_a_format_has_nothing_for_makes_no_request(tmp_path: Path) -> None:
    receiver = Receiver()

    class Short:
        @hookimpl
        def format_webhook(self, event: Event, format_name: str) -> WebhookBody | Literal[False]:
            return WebhookBody(b"{}") if event.name == "failed" else False

    async with bench(tmp_path, plugins={"short": Short()}) as b, receiving(receiver), b.sending():
        skipped = await b.event(receiver.url, message=1, format="short")
        call = await b.until(skipped, lambda c: c.state == "retired")
        assert (call.success, call.error) == (
            None,
            "the format 'short' has nothing for the event 'delivered'",
        )
        assert await b.history(skipped) == ()
        await b.event(receiver.url, message=1, name="failed", format="short")
        await receiver.has(1)
    assert len(receiver.requests) == 1


async def test_plugins_around_a_request_and_a_signer_that_fails(tmp_path: Path) -> None:
    receiver = Receiver()
    seen: list[str] = []

    class Watching:
        fails = True

        @hookimpl
        def format_webhook(self) -> WebhookBody:
            return WebhookBody(b"{}")

        @hookimpl
        def sign_webhook(self, headers: Mapping[str, str], call: WebhookCall) -> Mapping[str, str]:
            if self.fails:
                raise RuntimeError("the key is away")
            return {**headers, "X-Key": f"{call.attempt} {call.body.decode()}"}

        @hookimpl
        @asynccontextmanager
        async def around_webhook(self, call: WebhookCall) -> AsyncIterator[None]:
            seen.append(f"before {call.attempt}")
            yield
            seen.append(f"after {len(receiver.requests)}")

    watching = Watching()
    async with bench(tmp_path, plugins={"watching": watching}) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=1)
        call = await b.until(call_id, lambda c: c.error != "")
        assert call.error == ("plugin 'watching', hook 'sign_webhook': raised RuntimeError: the key is away")
        assert (receiver.requests, seen) == ([], [])
        watching.fails = False
        b.later(61)
        await b.until(call_id, lambda c: c.success is True)
    assert receiver.requests[0][0]["X-Key"] == "2 {}"
    assert seen == ["before 2", "after 1"]


async def test_superseding_is_for_each_url_by_itself(tmp_path: Path) -> None:
    """What a URL does not subscribe to supersedes nothing there; one URL may want all, in order."""
    every, newest, failures = Receiver(SORRY), Receiver(SORRY), Receiver(SORRY)
    async with bench(tmp_path) as b, receiving(every, newest, failures):
        b.configure(
            webhooks=[
                {"url": every.url, "supersede": False},
                {"url": newest.url},
                {"url": failures.url, "events": ["delayed", "failed"]},
            ]
        )
        first = await b.events(message=7, name="delayed")
        second = await b.events(message=7, name="delivered")
        assert (len(first), len(second)) == (3, 2)
        superseded = [(await b.call(call_id)).superseded_by for call_id in first]
        assert superseded == [0, second[1], 0]
        for receiver in (every, newest, failures):
            receiver.response = OK
        async with b.sending():
            for call_id in (first[2], *second):
                await b.until(call_id, lambda c: c.success is True)
    told = [[json.loads(body)["Event"] for _, body in r.requests] for r in (every, newest, failures)]
    assert told == [["delayed", "delivered"], ["delivered"], ["delayed"]]


async def test_an_automatic_reply_supersedes_no_failure(tmp_path: Path) -> None:
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver):
        b.configure(webhook_outgoing={"url": receiver.url})
        for message, name in ((1, "failed"), (2, "suppressed"), (3, "delayed")):
            (bad,) = await b.events(message=message, name=name)  # type: ignore[arg-type]
            await b.events(message=message, name="unrecognized")
            assert (await b.call(bad)).state == "queued"
