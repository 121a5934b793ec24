from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import GiveUp, RetryAt, Route
from gateway.outbound.schedule import fallback_next_attempt
from gateway_mox.retry import MoxRetry, MoxRetrySettings, Retry, RetrySettings, next_attempt
from tests.plugins.mox_messages import QUEUED, message

STEADY: dict[str, Any] = {"jitter": 0.0}
MINUTES = [7.5, 15, 30, 60, 120, 240, 480]


def play(settings: RetrySettings, **fields: Any) -> tuple[list[float], GiveUp]:
    """Fails whenever it is due: the minutes between attempts, and how it ends."""
    now = QUEUED
    waits: list[float] = []
    for attempts in range(1, 1000):
        answer = next_attempt(message(attempts=attempts, **fields), now, settings)
        if isinstance(answer, GiveUp):
            return waits, answer
        waits.append((answer.time - now).total_seconds() / 60)
        now = answer.time
    raise AssertionError("it goes on for ever")


def test_moxs_eight_attempts() -> None:
    waits, end = play(MoxRetrySettings(**STEADY))
    assert waits == MINUTES
    assert end == GiveUp("all 8 attempts failed")


def test_the_default_goes_on_for_days() -> None:
    waits, end = play(RetrySettings(**STEADY))
    assert waits == [*MINUTES, *[960] * 6]
    assert 4 * 1440 < sum(waits) < 5 * 1440  # RFC 5321, 4.5.4.1
    assert end == GiveUp("still failing after 14 attempts; given up 5 days after queueing")


@pytest.mark.parametrize("submission", ["", "s", "0123456789abcdef", "another"])
def test_jitter_is_five_seconds_of_the_first_interval_and_doubles_with_it(submission: str) -> None:
    waits, _ = play(MoxRetrySettings(), submission_id=submission)
    assert abs(waits[0] - 7.5) <= 5 / 60 + 1e-6
    assert waits[0] != 7.5
    assert waits == pytest.approx([waits[0] * 2**n for n in range(7)], abs=1e-6)


def test_jitter_differs_between_submissions_but_not_between_their_recipients() -> None:
    def first(**fields: Any) -> object:
        return next_attempt(message(**fields), QUEUED, RetrySettings())

    assert len({first(submission_id=f"{n}") for n in range(100)}) > 90
    assert first(id=1, base_id=1) == first(id=2, base_id=1)


@pytest.mark.parametrize("settings", [RetrySettings(**STEADY), MoxRetrySettings(**STEADY)])
def test_a_messages_own_maximum_comes_first(settings: RetrySettings) -> None:
    assert play(settings, max_attempts=1) == ([], GiveUp("the only attempt failed"))
    assert play(settings, max_attempts=3) == ([7.5, 15], GiveUp("all 3 attempts failed"))
    assert len(play(settings, max_attempts=10)[0]) == 9


def test_days_on_hold_or_before_a_future_release_are_not_counted() -> None:
    now = QUEUED + timedelta(days=60)
    assert isinstance(next_attempt(message(attempts=1), now, RetrySettings()), RetryAt)


def test_attempts_that_a_person_asked_for_do_not_end_it_early() -> None:
    answer = next_attempt(message(attempts=20), QUEUED + timedelta(hours=1), RetrySettings(**STEADY))
    assert answer == RetryAt(QUEUED + timedelta(hours=17))


def test_settings_of_ones_own() -> None:
    settings = RetrySettings.model_validate({"intervals": [60, 120], "jitter": 0, "give_up_after": 420})
    assert play(settings)[0] == [1, 2, 2, 2]
    assert play(RetrySettings(intervals=(60,), jitter=0, give_up_after=0, max_attempts=4))[0] == [1, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"intervals": []},
        {"intervals": [0]},
        {"intervals": [-1]},
        {"intervals": [float("nan")]},
        {"intervals": [float("inf")]},
        {"intervals": [8], "jitter": 5},
        {"jitter": -1},
        {"max_attempts": -1},
        {"give_up_after": -1},
        {"interval": [60]},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetrySettings.model_validate(settings)


def test_the_plugins_differ_in_their_settings_only() -> None:
    late = message(attempts=8)
    assert isinstance(MoxRetry().retry(late, QUEUED, None, MoxRetry.Settings()), GiveUp)
    assert isinstance(Retry().retry(late, QUEUED, None, Retry.Settings()), RetryAt)


@given(attempts=st.integers(0, 10**9), hours=st.floats(-100, 10**5))
def test_the_answer_is_always_later_and_never_far(attempts: int, hours: float) -> None:
    now = QUEUED + timedelta(hours=hours)
    answer = next_attempt(message(attempts=attempts), now, RetrySettings())
    if isinstance(answer, RetryAt):
        assert timedelta(minutes=7) < answer.time - now < timedelta(hours=17)


@pytest.mark.parametrize(
    ("attempts", "minutes"), [*enumerate(MINUTES, start=1), (8, 960), (9, 960), (10**9, 960), (0, 7.5)]
)
def test_the_queues_own_fall_back(attempts: int, minutes: float) -> None:
    now: datetime = QUEUED
    assert fallback_next_attempt(attempts, now) == now + timedelta(minutes=minutes)


# --- Schedules of routes ---


def test_a_route_has_a_schedule_of_its_own() -> None:
    routes = {"urgent": {"intervals": [60.0], "give_up_after": 3600.0}, "slow": {"jitter": 1.0}}
    settings = RetrySettings.model_validate({**STEADY, "routes": routes})
    failed = message(attempts=1)
    for route in (Route("out", "other"), Route("out"), None):
        assert Retry().retry(failed, QUEUED, route, settings) == RetryAt(QUEUED + timedelta(seconds=450))
    in_a_minute = RetryAt(QUEUED + timedelta(seconds=60))
    assert Retry().retry(failed, QUEUED, Route("out", "urgent"), settings) == in_a_minute
    assert settings.of_route(Route("out", "urgent")).jitter == 0.0
    assert settings.of_route(Route("out", "slow")).give_up_after == settings.give_up_after
    late = QUEUED + timedelta(hours=2)
    assert isinstance(Retry().retry(message(attempts=200), late, Route("out", "urgent"), settings), GiveUp)
    assert isinstance(Retry().retry(failed, late, None, settings), RetryAt)


def test_what_was_no_attempt_uses_none_up() -> None:
    settings = MoxRetrySettings(**STEADY, max_attempts=1)
    assert next_attempt(message(attempts=0), QUEUED, settings) == RetryAt(QUEUED + timedelta(minutes=7.5))
    assert isinstance(next_attempt(message(attempts=1), QUEUED, settings), GiveUp)


def test_mox_retry_has_them_too() -> None:
    settings = MoxRetrySettings.model_validate({"routes": {"once": {"max_attempts": 1}}})
    assert isinstance(MoxRetry().retry(message(attempts=1), QUEUED, Route("x", "once"), settings), GiveUp)
    assert isinstance(MoxRetry().retry(message(attempts=1), QUEUED, Route("x"), settings), RetryAt)


@pytest.mark.parametrize(
    ("routes", "error"),
    [
        ({"fast": {"interval": [1.0]}}, "routes.fast.interval: Extra inputs"),
        ({"fast": {"intervals": []}}, "routes.fast.intervals: Tuple should have at least 1"),
        ({"fast": {"intervals": [4.0]}}, "routes.fast: jitter must be at most half"),
        ({"fsat": {}}, "no route has the name 'fsat'; give it to one in"),
    ],
)
def test_schedules_of_routes_that_cannot_work(routes: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        RetrySettings.model_validate({"routes": routes}, context={"route_names": {"fast"}})
