"""Plugins that fail, as their settings say: [plugin.NAME] fails = {HOOK = WAY}.

One object each of plain functions, async functions and functions in threads, with every hook that can be
asked while mail is under way. A hook that is not in `fails` has nothing to say.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Literal

import trio
from pydantic import BaseModel, ConfigDict

from gateway import (
    Accept,
    Authenticated,
    ConfigPath,
    ContentReader,
    ContentStore,
    DeliveryStatus,
    Limits,
    NewContent,
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

from .cellar import Cellar

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


class StoreSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: ConfigPath
    fails: Mapping[
        Literal["put", "open", "read", "delete", "names"], Literal["raise", "hang", "nonsense"]
    ] = {}


class Store:
    """A plugin with a content store `cellar` that works but for what fails, so that it can be mended."""

    Settings = StoreSettings

    @hookimpl
    def content_store(self, settings: StoreSettings) -> Mapping[str, ContentStore]:
        return {"cellar": FaultyCellar(settings)}


class FaultyCellar(Cellar):
    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings.directory)
        self._fails = settings.fails

    async def put(self, name: str, content: NewContent) -> Any:
        answer = await self._fail("put")
        if answer is None:
            await super().put(name, content)
        return answer

    async def open(self, name: str) -> Any:
        answer = await self._fail("open")
        if answer is None:
            answer = FaultyBottle(await super().open(name), self._fail)
        return answer

    async def delete(self, names: Sequence[str]) -> Any:
        answer = await self._fail("delete")
        if answer is None:
            await super().delete(names)
        return answer

    async def names(self, before: datetime) -> AsyncIterator[Any]:
        if (answer := await self._fail("names")) is not None:
            yield answer
        async for name in super().names(before):
            yield name

    async def _fail(self, step: Any) -> Any:
        match self._fails.get(step):
            case "raise":
                raise RuntimeError(TEXT)
            case "hang":
                await trio.sleep_forever()
            case "nonsense":
                return 42
        return None


class FaultyBottle:
    def __init__(self, bottle: ContentReader, fail: Callable[[str], Awaitable[Any]]) -> None:
        self._bottle, self._fail = bottle, fail

    async def read(self, start: int, count: int) -> Any:
        return await self._fail("read") or await self._bottle.read(start, count)


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
