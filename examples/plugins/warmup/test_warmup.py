from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from gateway_warmup import Warmup, WarmupSettings
from pydantic import ValidationError

from gateway import Route
from gateway.testing import queued_message

START = date(2030, 1, 1)


@pytest.fixture
def settings(tmp_path):
    return WarmupSettings(
        transport="new", overflow="old", start=START, per_day=(2, 5), file=tmp_path / "counts"
    )


def routes(settings, day, count):
    """How many of as many messages go which way on a day."""
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    found = [Warmup().route(queued_message(last_attempt=at), settings) for _ in range(count)]
    return Counter(route.transport for route in found)


def test_a_little_more_each_day(settings):
    assert routes(settings, START - timedelta(days=1), 3) == {"old": 3}
    assert routes(settings, START, 10) == {"new": 2, "old": 8}
    assert routes(settings, START, 1) == {"old": 1}
    assert routes(settings, START + timedelta(days=1), 10) == {"new": 5, "old": 5}
    assert routes(settings, START + timedelta(days=2), 100) == {"new": 100}


def test_many_at_once_are_counted_once_each(settings):
    message = queued_message(last_attempt=datetime(2030, 1, 2, tzinfo=UTC))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: Warmup().route(message, settings), range(40)))
    assert found.count(Route("new")) == 5


def test_who_only_asks_is_not_counted(settings):
    asked = queued_message(id=0, last_attempt=datetime(2030, 1, 1, tzinfo=UTC))
    assert [Warmup().route(asked, settings) for _ in range(5)] == [Route("new")] * 5
    assert routes(settings, START, 3) == {"new": 2, "old": 1}
    assert Warmup().route(asked, settings) == Route("old")


async def test_in_a_gateway(mail_gateway):
    warmup = {"transport": "new", "overflow": "old", "start": START, "per_day": [1, 2], "file": "counts"}
    async with mail_gateway(
        "example.warmup", settings={"example.warmup": warmup}, transports=["old", "new"]
    ) as gateway:
        for day in (1, 2):
            for _ in range(3):
                await gateway.deliver()
            sent = [handed.transport for handed in gateway.transport("new").got[-3:]]
            assert sent == ["new"] * day + ["old"] * (3 - day)
            await gateway.advance(timedelta(days=1))


def test_wrong_settings(settings):
    for wrong in ({"per_day": ()}, {"per_day": (-1,)}, {"start": "tomorrow"}):
        with pytest.raises(ValidationError):
            WarmupSettings(**{**settings.model_dump(), **wrong})
