"""Which notices there are, and what they say: decisions on data, without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio

from gateway import Content, GiveUp, NewContent, Outcome, QueuedMessage, Result, RetryAt, hookimpl
from gateway.clock import ManualClock
from gateway.config.settings import Settings
from gateway.errors import StoreUnavailable
from gateway.offload import Offload
from gateway.outbound.notices import (
    FORESEEN,
    News,
    Notices,
    action_for,
    foresee,
    recipient_status,
    returns_all,
)
from gateway.store.content_files import FileStore
from gateway.store.content_reading import BytesContent
from gateway.store.store import Store
from gateway_mox.retry import Retry, RetrySettings, next_attempt
from tests.hooks.helpers import NOW, a_message, stages


@dataclass(frozen=True)
class Request:
    message: QueuedMessage
    dsn_notify: str = ""
    is_report: str = ""
    dsn_ret: str = ""
    dsn_orcpt: str = ""
    future_release: str = ""


def attempted(times: int) -> QueuedMessage:
    return replace(a_message(), attempts=times)


@pytest.mark.parametrize(
    ("event", "attempts", "notify", "action"),
    [
        ("failed", 1, "", "failed"),
        ("suppressed", 1, "", "failed"),
        ("failed", 1, "SUCCESS,DELAY", None),
        ("failed", 1, "NEVER", None),
        ("failed", 1, "success, failure", "failed"),
        ("delayed", 4, "", None),
        ("delayed", 5, "", "delayed"),
        ("delayed", 6, "", "delayed"),  # unless an earlier one told it
        ("delayed", 5, "FAILURE", None),
        ("delayed", 5, "NEVER", None),
        ("delivered", 1, "", None),
        ("delivered", 1, "SUCCESS", "relayed"),
        ("delivered", 1, "NEVER", None),
        ("canceled", 1, "SUCCESS,FAILURE,DELAY", None),
    ],
)
def test_who_is_told(event: str, attempts: int, notify: str, action: str | None) -> None:
    request = Request(attempted(attempts), notify)
    assert action_for(request, event) == action
    assert action_for(request, event, passed_on=True) == (None if event == "delivered" else action)
    assert action_for(replace(request, is_report="tls"), event) is None
    assert action_for(replace(request, message=replace(request.message, sender=None)), event) is None


def test_the_whole_message_comes_back_with_a_failure_only() -> None:
    full = replace(Request(attempted(1)), dsn_ret="FULL")
    assert returns_all(full, "failed")
    assert not returns_all(full, "relayed")
    assert not returns_all(full, "delayed")
    assert not returns_all(replace(full, dsn_ret="HDRS"), "failed")
    assert not returns_all(replace(full, dsn_ret=""), "failed")
    assert not returns_all(replace(full, message=replace(full.message, require_tls=True)), "failed")


@pytest.mark.parametrize(
    ("outcome", "action", "status", "diagnostic"),
    [
        (Outcome.permanent("so: 550 5.1.1 x", code=550, enhanced="5.1.1"), "failed", "5.1.1", "550 5.1.1 x"),
        (Outcome.permanent("no such thing", code=550), "failed", "5.0.0", "550 no such thing"),
        (Outcome.permanent("null MX", enhanced="5.1.10"), "failed", "5.1.10", ""),
        (Outcome.temporary("later", code=451, enhanced="4.2.1"), "failed", "4.2.1", "451 4.2.1 later"),
        (Outcome.temporary("no connection"), "failed", "4.4.7", ""),
        (Outcome.temporary("no connection"), "delayed", "4.0.0", ""),
        (Outcome.temporary("dual", code=550, enhanced="5.7.1"), "delayed", "4.0.0", "550 5.7.1 dual"),
        (Outcome(result=Result.DELIVERED, code=250, enhanced="2.1.5"), "relayed", "2.0.0", ""),
    ],
)  # fmt: skip
def test_the_fields_of_a_recipient(outcome: Outcome, action: str, status: str, diagnostic: str) -> None:
    news = News(event="", outcome=outcome, error=outcome.error)
    said = recipient_status(Request(a_message()), news, action)  # type: ignore[arg-type]
    assert (said.status, said.diagnostic) == (status, diagnostic)


def test_a_doubt_is_told_when_a_message_is_given_up() -> None:
    outcome = replace(Outcome.temporary("no answer"), unknown=True)
    news = News(event="", outcome=outcome, error=outcome.error)
    assert recipient_status(Request(a_message()), news, "failed").unknown
    assert not recipient_status(Request(a_message()), news, "delayed").unknown


class Away:
    """A message that its content store does not give."""

    size = 1000

    def chunks(self) -> AsyncIterator[bytes]:
        raise StoreUnavailable("no answer")

    async def read(self) -> bytes:
        raise StoreUnavailable("no answer")


async def nowhere(self: FileStore, name: str, content: NewContent) -> None:
    raise StoreUnavailable("no space left on device")


@pytest.mark.parametrize("message", [Away(), BytesContent(b"X: " + b"x" * 200_000 + b"\r\n\r\nhello\r\n")])
@pytest.mark.parametrize("event", ["failed", "delayed"])
async def test_a_notice_is_made_without_a_message_that_cannot_be_had_or_kept(
    message: Content, event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not be made later."""
    monkeypatch.setattr(FileStore, "put", nowhere)
    accounts = {"app": {"addresses": ["app@example.org"]}}
    raw = {"hostname": "gateway.example", "domains": {"example.org": {}}, "accounts": accounts}
    news = News(event=event, outcome=Outcome.temporary("no"), error="no")
    async with Store.open(tmp_path, ManualClock()) as store, Offload.open() as offload:
        notices = Notices(Settings.model_validate(raw), store, offload)
        made = await notices.about(None, Request(attempted(5)), message, news, NOW)
    assert made is not None
    assert made.content.data is not None
    assert b"\r\nTo: app@example.org\r\n" in made.content.data


async def test_the_schedule_in_force_is_foretold() -> None:
    settings = RetrySettings()
    message = attempted(5)
    first = next_attempt(message, NOW, settings)
    assert isinstance(first, RetryAt)
    times, complete = await foresee(stages({"retry": Retry()}), message, Outcome.temporary("no"), first.time)
    assert complete
    # As if it were lived through.
    at, made = first.time, 6
    lived = []
    while True:
        lived.append(at)
        answer = next_attempt(replace(message, attempts=made), at, settings)
        if isinstance(answer, GiveUp):
            break
        at, made = answer.time, made + 1
    assert times == tuple(lived)
    assert timedelta(days=4) < times[-1] - NOW < timedelta(days=5)


class Endless:
    @hookimpl
    def retry(self, now: datetime) -> RetryAt:
        return RetryAt(now)  # in a second, for ever


class Silent:
    @hookimpl
    def retry(self, message: QueuedMessage) -> RetryAt | None:
        raise RuntimeError("acme broke down")


async def test_what_cannot_be_foretold() -> None:
    first = NOW + timedelta(hours=1)
    times, complete = await foresee(stages({"e": Endless()}), attempted(5), Outcome.temporary("no"), first)
    assert (len(times), complete) == (FORESEEN, False)
    assert times == tuple(sorted(set(times)))
    # The last of the set gives up.
    times, complete = await foresee(stages({"s": Silent()}), attempted(5), Outcome.temporary("no"), first)
    assert (times, complete) == ((first,), True)


async def test_many_attempts_are_foretold_and_hold_nobody_up() -> None:
    """One a minute for days, beside something else that has its turns."""
    settings = RetrySettings(intervals=(60.0,), jitter=0)

    class Often:
        @hookimpl
        def retry(self, message: QueuedMessage, now: datetime) -> RetryAt | GiveUp:
            return next_attempt(message, now, settings)

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    first = NOW + timedelta(minutes=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        times, complete = await foresee(stages({"o": Often()}), attempted(5), Outcome.temporary("no"), first)
        assert turns > 5  # it takes some 20 ms at the least
        nursery.cancel_scope.cancel()
    assert complete
    assert len(times) > 7000
    assert timedelta(days=4.9) < times[-1] - NOW <= timedelta(days=5)
