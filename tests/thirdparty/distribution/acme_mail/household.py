"""The gateway itself: logins from outside, a method, pages, a command, a service, start and stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import click
import trio
from prometheus_client import Gauge, Metric
from pydantic import BaseModel, ConfigDict
from quart_trio import QuartTrio

from gateway import (
    ApiCall,
    ApiError,
    ApiMethod,
    AsgiApplication,
    Authenticated,
    Collector,
    Credentials,
    GatewayContext,
    Outcome,
    Result,
    Service,
    hookimpl,
)

LONG = 20.0  # seconds that a thread hangs
NAME = "acme.household"


class HouseholdSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    passwords: Mapping[str, str] = {}  # by user
    account: str = "mox"
    fails: tuple[str, ...] = ()  # the hooks that raise
    hangs: tuple[str, ...] = ()  # those that do not end
    service_fails: int = 0  # times


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    Word: str


class Shouted(BaseModel):
    Text: str


async def shout(call: ApiCall, query: Query) -> Shouted:
    match query.Word:
        case "":
            raise ApiError("Word: is empty; give one")
        case "raise":
            raise RuntimeError("acme broke down")
        case "hang":
            await trio.sleep_forever()
        case "nonsense":
            answer: Any = 42
            return answer  # type: ignore[no-any-return]
    return Shouted(Text=f"{query.Word.upper()}, {call.account} {call.login}")


@click.command()
@click.argument("word")
def motto(word: str) -> None:
    """Print a motto about WORD."""
    click.echo(f"{word} for all")


def _pages() -> QuartTrio:
    app = QuartTrio("acme")

    @app.get("/hello/<name>")
    async def hello(name: str) -> str:
        return f"hello {name}"

    @app.post("/echo")
    async def echo() -> str | bytes:
        from quart import request

        return await request.get_data(cache=False)

    return app


async def _broken(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("acme broke down")


class _Beat:
    def __init__(self, failures: int) -> None:
        self._failures = failures

    async def __call__(
        self, gateway: GatewayContext, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        if self._failures:
            self._failures -= 1
            raise RuntimeError("acme broke down")
        file = gateway.directory(NAME) / "log"
        task_status.started()
        with file.open("a") as log:
            log.write("service\n")
        await trio.sleep_forever()


class _BrokenCollector:
    def collect(self) -> Iterable[Metric]:
        raise RuntimeError("acme broke down")


class Household:
    Settings = HouseholdSettings

    @hookimpl
    async def authenticate(
        self, credentials: Credentials, settings: HouseholdSettings
    ) -> Authenticated | Literal[False] | None:
        await self._fail("authenticate", settings)
        if credentials.login not in settings.passwords:
            return None
        good = settings.passwords[credentials.login] == credentials.password
        return Authenticated(account=settings.account) if good else False

    @hookimpl
    async def classify_outcome(self, outcome: Outcome, settings: HouseholdSettings) -> None:
        await self._fail("classify_outcome", settings)

    @hookimpl
    def api_methods(self) -> Mapping[str, ApiMethod]:
        return {
            "AcmeShout": ApiMethod(
                summary="Say a word loudly.",
                request=Query,
                response=Shouted,
                handler=shout,
                example_request={"Word": "hello"},
                example_response=Shouted(Text="HELLO, mox mox@localhost"),
                limit=0.2,
            )
        }

    @hookimpl
    def pages(self) -> Mapping[str, AsgiApplication]:
        return {"acme": _pages(), "broken": _broken}

    @hookimpl
    def commands(self) -> Mapping[str, click.Command]:
        return {"acme-motto": motto}

    @hookimpl
    def metrics(self) -> Sequence[Collector]:
        logins = Gauge("acme_logins", "Users that may log in.", registry=None)
        logins.set(7)
        return [logins, _BrokenCollector()]

    @hookimpl
    def services(self, settings: HouseholdSettings) -> Mapping[str, Service]:
        return {"beat": _Beat(settings.service_fails)}

    @hookimpl
    async def start(self, gateway: GatewayContext, settings: HouseholdSettings) -> None:
        await self._fail("start", settings)
        (gateway.directory(NAME) / "log").write_text("start\n")

    @hookimpl
    async def stop(self, gateway: GatewayContext, settings: HouseholdSettings) -> None:
        await self._fail("stop", settings)
        with (gateway.directory(NAME) / "log").open("a") as log:
            log.write("stop\n")

    async def _fail(self, hook: str, settings: HouseholdSettings) -> None:
        if hook in settings.fails:
            raise RuntimeError("acme broke down")
        if hook in settings.hangs:
            await trio.sleep_forever()


class _Threaded:
    """`authenticate` in a thread that hangs."""

    @hookimpl(thread=True, limit=0.2)
    def authenticate(self) -> None:
        time.sleep(LONG)


class Patient:
    """A server that says 550 when it means: not so fast."""

    @hookimpl
    def classify_outcome(self, outcome: Outcome, transport: str) -> Outcome | None:
        from dataclasses import replace

        if outcome.code == 550 and transport == "localserve":
            return replace(outcome, result=Result.TEMPORARY, error=f"acme waits: {outcome.error}")
        return None


threaded = _Threaded()
