"""Plugins that fail, as their settings say: [plugin.NAME] fails = {HOOK = WAY}.

One object each of plain functions, async functions and functions in threads, with every hook that can be
asked while mail is under way. A hook that is not in `fails` has nothing to say.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Literal

import trio
from pydantic import BaseModel, ConfigDict

from gateway import (
    Accept,
    Authenticated,
    DeliveryStatus,
    Limits,
    Outcome,
    RecipientStatus,
    ReportMatch,
    Result,
    RetryAt,
    Route,
    Suppress,
    WebhookBody,
    hookimpl,
)

LONG = 20.0  # seconds that a thread hangs: far more than any limit in use
TEXT = "acme broke down"  # of what is raised

# Of the right type where the type allows nonsense, else of another.
NONSENSE: Mapping[str, object] = {
    "submission": Accept(),
    "sign": "text in place of bytes",
    "hold": "yes",
    "base_address": "user@example.org",
    "suppressed": "yes",
    "route": Route(""),
    "shape": Limits(connections=-1),
    "classify_outcome": Outcome(result=Result.DELIVERED),
    "authenticate": Authenticated(account=b"mox"),  # type: ignore[arg-type]
    "retry": RetryAt(datetime(2040, 1, 1)),  # no time zone: that is the nonsense
    "suppress": Suppress("no", expires=datetime(2040, 1, 1)),
    "read_report": DeliveryStatus(
        reporting_mta="acme", envelope_id="", message_id="", recipients=(RecipientStatus(action="no\0 text"),)
    ),
    "match_report": (ReportMatch(1, "acme", trusted=True), "and more"),
    "event": 42,
    "format_webhook": WebhookBody(b"{}", content_type="application/json\r\nX-Injected: yes"),
    "receive_policy": True,
    "mailbox": "Junk\r\n",
}


class FaultSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    fails: Mapping[str, Literal["raise", "hang", "nonsense"]] = {}


def _plain(hook: str) -> Any:
    @hookimpl(specname=hook)
    def fail(settings: FaultSettings) -> Any:
        return _answer(hook, settings)

    return fail


def _asynchronous(hook: str) -> Any:
    @hookimpl(specname=hook)
    async def fail(settings: FaultSettings) -> Any:
        if settings.fails.get(hook) == "hang":
            await trio.sleep_forever()
        return _answer(hook, settings)

    return fail


def _threaded(hook: str) -> Any:
    @hookimpl(specname=hook, thread=True)
    def fail(settings: FaultSettings) -> Any:
        return _answer(hook, settings)

    return fail


def _answer(hook: str, settings: FaultSettings) -> Any:
    match settings.fails.get(hook):
        case "raise":
            raise RuntimeError(TEXT)
        case "hang":
            time.sleep(LONG)
        case "nonsense":
            return NONSENSE[hook]
    return None


def _plugin(make: Any) -> SimpleNamespace:
    return SimpleNamespace(Settings=FaultSettings, **{hook: make(hook) for hook in NONSENSE})


plain = _plugin(_plain)
asynchronous = _plugin(_asynchronous)
threaded = _plugin(_threaded)


class AroundSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    way: Literal[
        "",
        "raise",
        "nonsense",
        "raise on entering",
        "hang on entering",
        "raise on leaving",
        "hang on leaving",
        "swallow",
    ] = ""


class Around:
    Settings = AroundSettings

    @hookimpl
    def around_attempt(self, settings: AroundSettings) -> AbstractAsyncContextManager[None] | None:
        match settings.way:
            case "":
                return None
            case "raise":
                raise RuntimeError(TEXT)
            case "nonsense":
                answer: Any = 42
                return answer  # type: ignore[no-any-return]
        return _around(settings.way)


@asynccontextmanager
async def _around(way: str) -> AsyncIterator[None]:
    if way == "raise on entering":
        raise RuntimeError(TEXT)
    if way == "hang on entering":
        await trio.sleep_forever()
    try:
        yield
    except Exception:  # the manager wants the attempt's own failure to end here
        if way != "swallow":
            raise
    if way == "raise on leaving":
        raise RuntimeError(TEXT)
    if way == "hang on leaving":
        await trio.sleep_forever()
