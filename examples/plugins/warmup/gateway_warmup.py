"""A new address sends so many messages a day, a little more each day, and another one the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway import ConfigPath, QueuedMessage, Route, hookimpl

WAIT = 2.0  # seconds for another process's write; less than the hook's time limit


class WarmupSettings(BaseModel):
    """[plugin."example.warmup"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transport: str  # that sends from the new address
    overflow: str  # that takes the rest
    start: date  # the first day, in UTC
    # Messages on the first day, on the second, ...; after the last one there is no limit any more.
    per_day: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    file: ConfigPath  # where the counts are; made if it is not there

    def cap(self, day: date) -> int | None:
        """How many may be sent on a day; None for any number."""
        number = (day - self.start).days
        if number < 0:
            return 0
        return self.per_day[number] if number < len(self.per_day) else None


class Warmup:
    Settings = WarmupSettings

    @hookimpl(thread=True)  # a file may be slow
    def route(self, message: QueuedMessage, settings: WarmupSettings) -> Route:
        # The time of this attempt is the gateway's own; no other clock is asked.
        day = (message.last_attempt or message.queued).date()
        cap = settings.cap(day)
        if cap is None or (cap > 0 and self._counted(settings.file, day, cap, ask_only=message.id == 0)):
            return Route(settings.transport)
        return Route(settings.overflow)

    def _counted(self, file: Path, day: date, cap: int, *, ask_only: bool) -> bool:
        """Whether there is room for one more, which is then counted; `gateway plugins trace` only asks."""
        with _opened(file) as counts:
            if ask_only:
                row = counts.execute("SELECT sent FROM day WHERE day = ?", (day.isoformat(),)).fetchone()
                return row is None or row[0] < cap
            counted = counts.execute(
                # One statement, so that several gateways on one machine count together.
                "INSERT INTO day VALUES (?, 1)"
                " ON CONFLICT (day) DO UPDATE SET sent = sent + 1 WHERE sent < ?",
                (day.isoformat(), cap),
            )
            return counted.rowcount == 1


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, timeout=WAIT)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS day (day TEXT PRIMARY KEY, sent INTEGER NOT NULL)")
        yield connection
