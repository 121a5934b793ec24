"""URLs that are disabled: what decides, and what follows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from gateway.store import mailbox_listing, received, webhook_urls
from gateway.store.mailbox_listing import MessageFilter
from gateway.store.webhook_urls import UrlState
from gateway.webhooks.health import FAILING_FOR, GAP, after_failure
from tests.hooks.helpers import NOW
from tests.webhooks.gateways import SORRY, Bench, Receiver, bench, receiving

GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
URL = "https://shop.example.org/hook"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def after(known: UrlState | None, now: datetime, *, gone: bool = False) -> UrlState:
    return after_failure(known, "shop", URL, now, "HTTP status 500", gone=gone)


# --- The decision ---------------------------------------------------------------------------------


def test_a_url_that_fails_for_five_days_is_disabled_at_the_next_failure() -> None:
    state = after(None, NOW)
    assert (state.failing_since, state.disabled) == (NOW, None)
    now = NOW
    while now + 16 * HOUR < NOW + FAILING_FOR:
        now += 16 * HOUR
        state = after(state, now)
        assert (state.failing_since, state.last_failure, state.disabled) == (NOW, now, None)
    state = after(state, NOW + FAILING_FOR)
    assert state.disabled == NOW + FAILING_FOR
    assert state.error == "every call of the last 5 days failed, the last with: HTTP status 500"
    assert after(state, NOW + FAILING_FOR + HOUR) == state


def test_a_url_that_is_seldom_called_has_not_failed_all_the_while() -> None:
    state = after(after(None, NOW), NOW + 10 * DAY)
    assert (state.failing_since, state.disabled) == (NOW + 10 * DAY, None)
    assert after(after(None, NOW), NOW + GAP).failing_since == NOW


def test_gone_disables_at_once() -> None:
    state = after(None, NOW, gone=True)
    assert (state.disabled, state.error) == (NOW, "its receiver wants no more (HTTP status 500)")


# --- What follows ---------------------------------------------------------------------------------


async def inbox(b: Bench) -> list[str]:
    """The notices, as text."""
    wanted = MessageFilter(mailbox="Inbox")

    def read(conn: sa.Connection) -> list[str]:
        found = mailbox_listing.page(conn, "a", wanted, cursor="", maximum=10)
        assert found is not None
        texts = []
        for listed in found[0]:
            stored = received.get(conn, "a", listed.message.id)
            assert stored is not None
            assert stored.content.data is not None
            texts.append(stored.content.data.decode())
        return texts

    return await b.store.read(read)


async def test_410_disables_the_url_and_tells_the_account(tmp_path: Path) -> None:
    receiver, other = Receiver(GONE), Receiver()
    async with bench(tmp_path) as b, receiving(receiver, other):
        first = await b.event(receiver.url, message=1)
        waiting = [await b.event(receiver.url, message=n) for n in range(2, 22)]
        async with b.sending():
            call = await b.until(first, lambda c: c.state == "retired")
            assert (call.success, call.attempts) == (False, 1)
            for call_id in (waiting[0], waiting[-1]):
                call = await b.until(call_id, lambda c: c.state == "retired")
                assert call.error == ("the URL is disabled: its receiver wants no more (HTTP status 410)")
                assert (call.attempts, call.success) == (0, False)
            later = await b.event(receiver.url, message=700)
            await b.until(later, lambda c: c.state == "retired")
            await b.event(other.url, message=701)
            await other.has(1)
            assert len(receiver.requests) == 1
            [notice] = await inbox(b)
            assert "To: a@example.com\r\n" in notice
            assert "Subject: Webhooks to 127.0.0.1 are disabled\r\n" in notice
            assert "Auto-Submitted: auto-generated\r\n" in notice
            assert receiver.url in notice
            assert "its receiver wants no more (HTTP status 410)." in notice

            receiver.response = other.response
            assert await b.store.write(lambda conn: webhook_urls.enable(conn, receiver.url)) == ("a",)
            assert await b.store.write(lambda conn: webhook_urls.enable(conn, receiver.url)) == ()
            again = await b.event(receiver.url, message=702)
            await b.until(again, lambda c: c.success is True)
        assert await b.store.read(webhook_urls.failing) == ()


async def test_five_days_of_failures_disable_the_url(tmp_path: Path) -> None:
    receiver = Receiver(SORRY)
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        for message, hours in enumerate(range(0, 5 * 24 + 1, 20)):
            call_id = await b.event(receiver.url, message=message)
            await b.until(call_id, lambda c: c.error != "")
            states = await b.store.read(webhook_urls.failing)
            assert [s.disabled is not None for s in states] == [hours == 120]
            if hours < 120:
                assert await inbox(b) == []
                b.later(20 * 3600)
                await b.until(call_id, lambda c: c.attempts >= 2)
        [notice] = await inbox(b)
        assert "every call of the last 5 days failed, the last with: HTTP status 503" in notice


async def test_a_success_in_between_starts_anew(tmp_path: Path) -> None:
    receiver = Receiver(SORRY)
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        call_id = await b.event(receiver.url, message=1)
        await b.until(call_id, lambda c: c.error != "")
        [state] = await b.store.read(webhook_urls.failing)
        assert (state.account, state.url, state.error) == ("a", receiver.url, "HTTP status 503")
        receiver.response = b"HTTP/1.1 204 No\r\n\r\n"
        b.later(61)
        await b.until(call_id, lambda c: c.state == "retired")
        assert await b.store.read(webhook_urls.failing) == ()


@pytest.mark.parametrize("status", ["429 Slow", "503 Busy"])
async def test_retry_after_is_kept_to_and_is_about_the_whole_url(tmp_path: Path, status: str) -> None:
    receiver, other = Receiver(), Receiver()
    receiver.response = f"HTTP/1.1 {status}\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n".encode()
    async with bench(tmp_path) as b, receiving(receiver, other), b.sending():
        first = await b.event(receiver.url, message=1)
        call = await b.until(first, lambda c: c.error != "")
        assert call.next_attempt == b.clock.now() + timedelta(seconds=300)
        second = await b.event(receiver.url, message=2)
        elsewhere = await b.event(other.url, message=3)
        await b.until(elsewhere, lambda c: c.state == "retired")
        b.later(298)
        await b.event(other.url, message=4)
        await other.has(2)
        assert (len(receiver.requests), (await b.call(second)).attempts) == (1, 0)
        receiver.response = other.response
        b.later(3)
        await receiver.has(3)
        await b.until(first, lambda c: c.success is True)
        await b.until(second, lambda c: c.success is True)


async def test_429_alone_pauses_the_url_for_a_minute(tmp_path: Path) -> None:
    receiver = Receiver(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n")
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        calls = [await b.event(receiver.url, message=n) for n in range(5)]
        await b.until(calls[0], lambda c: c.error != "")
        b.later(58)
        await b.event("http://127.0.0.1:1/", message=9)
        assert len(receiver.requests) == 1
        b.later(4)
        await receiver.has(2)
