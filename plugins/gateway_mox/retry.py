"""When a message that failed for now is tried again, and when that has gone on for long enough.

`mox.retry` makes mox's eight attempts in about 16 hours. `retry` goes on for days, as RFC 5321 (4.5.4.1)
asks. Both are one schedule with different settings, a pure function of the message and the time: asked
ahead of time, it answers what it will answer then.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway import GiveUp, QueuedMessage, RetryAt, Route, hookimpl
from gateway.config.values import AsTuple

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

Seconds = Annotated[float, Field(gt=0, le=60 * DAY)]


class Schedule(BaseModel):
    """Attempts at growing intervals, until some days have gone by."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Seconds from one attempt to the next; the last is repeated.
    intervals: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=100), AsTuple] = (
        7.5 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        1 * HOUR,
        2 * HOUR,
        4 * HOUR,
        8 * HOUR,
        16 * HOUR,
    )
    # The first interval varies by up to this many seconds either way, and the others in proportion, so that
    # messages queued together for a host that was down do not all come back in the same second.
    jitter: Annotated[float, Field(ge=0)] = 5.0
    # Attempts at most, 0 for any number. A message's own maximum comes before it.
    max_attempts: Annotated[int, Field(ge=0)] = 0
    # Seconds after queueing, 0 for never: no attempt is made later.
    give_up_after: Annotated[float, Field(ge=0, le=60 * DAY)] = 5 * DAY

    @model_validator(mode="after")
    def _jitter_leaves_an_interval(self) -> Self:
        if self.jitter > self.intervals[0] / 2:
            raise ValueError("jitter must be at most half of the first interval")
        return self


class RetrySettings(Schedule):
    """[plugin.retry]"""

    # By the name of a route ([[routes]] name = "..."): what is another way for messages that go by it.
    routes: Mapping[str, Mapping[str, Any]] = {}
    _of_route: dict[str, Schedule] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: object) -> None:
        """Raises ValueError."""
        usual = self.model_dump(exclude={"routes"})
        for name, changes in self.routes.items():
            try:
                self._of_route[name] = Schedule.model_validate({**usual, **changes})
            except ValidationError as exc:
                first = exc.errors(include_url=False)[0]
                where = ".".join(["routes", name, *map(str, first["loc"])])
                raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None

    @field_validator("routes")
    @classmethod
    def _are_there(cls, value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        known = (info.context or {}).get("route_names", value)
        for name in value:
            if name not in known:
                raise ValueError(f"no route has the name {name!r}; give it to one in [[routes]]")
        return value

    def of_route(self, route: Route | None) -> Schedule:
        return self if route is None else self._of_route.get(route.name, self)


class MoxRetrySettings(RetrySettings):
    """[plugin."mox.retry"]: mox's schedule."""

    max_attempts: Annotated[int, Field(ge=0)] = 8
    give_up_after: Annotated[float, Field(ge=0, le=60 * DAY)] = 0.0


def next_attempt(message: QueuedMessage, now: datetime, settings: Schedule) -> RetryAt | GiveUp:
    """What follows the failure, at `now`, of the last of `message.attempts` attempts; 0: none counted yet."""
    made = max(message.attempts, 1)
    maximum = message.max_attempts or settings.max_attempts
    if maximum and message.attempts >= maximum:
        return GiveUp("the only attempt failed" if made == 1 else f"all {made} attempts failed")

    # Over all of its attempts a message waits `made` intervals, that which is chosen now included.
    beyond = max(0, made - len(settings.intervals))
    scheduled = sum(settings.intervals[:made]) + beyond * settings.intervals[-1]
    interval = settings.intervals[min(made, len(settings.intervals)) - 1] * _spread(message, settings)

    # Age is what both clock and schedule agree on. The clock runs ahead of the schedule while a message is on
    # hold or waits for its FutureRelease, the schedule ahead of the clock when a person asks for attempts.
    age_then = min((now - message.queued).total_seconds() + interval, scheduled)
    if settings.give_up_after and age_then > settings.give_up_after:
        return GiveUp(
            f"still failing after {made} attempts; given up {_days(settings.give_up_after)} after queueing"
        )
    return RetryAt(now + timedelta(seconds=interval))


def _spread(message: QueuedMessage, settings: Schedule) -> float:
    """The factor that jitter puts on a message's intervals.

    Taken from the submission: the recipients of one submission at one domain stay due together and go on
    sharing a transaction, and every process answers the same.
    """
    part = zlib.crc32(message.submission_id.encode()) / 0xFFFFFFFF  # from 0 to 1
    return 1 + (2 * part - 1) * settings.jitter / settings.intervals[0]


def _days(seconds: float) -> str:
    days = seconds / DAY
    return f"{days:.3g} day{'' if days == 1 else 's'}"


class MoxRetry:
    """The plugin `mox.retry`."""

    Settings = MoxRetrySettings

    @hookimpl
    def retry(
        self, message: QueuedMessage, now: datetime, route: Route | None, settings: MoxRetrySettings
    ) -> RetryAt | GiveUp:
        return next_attempt(message, now, settings.of_route(route))


class Retry:
    """The plugin `retry`."""

    Settings = RetrySettings

    @hookimpl
    def retry(
        self, message: QueuedMessage, now: datetime, route: Route | None, settings: RetrySettings
    ) -> RetryAt | GiveUp:
        return next_attempt(message, now, settings.of_route(route))
