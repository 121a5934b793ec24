"""Stage `transports`: `maildrop` writes messages to a directory, `told` answers as its settings say, and
`broken` does not do what a transport has to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import trio
from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, Delivery, Network, Outcome, Result, Transport, TransportType, hookimpl


class MaildropSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: ConfigPath


class Maildrop:
    def __init__(self, settings: MaildropSettings) -> None:
        self._directory = trio.Path(settings.directory)

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        await self._directory.mkdir(exist_ok=True)
        data = await delivery.content.read()
        for message in delivery.messages:
            await (self._directory / f"{message.id}.{message.recipient}.eml").write_bytes(data)
        return [Outcome(result=Result.DELIVERED, remote_mta="maildrop") for _ in delivery.messages]


class ToldSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    result: Result
    code: int = 0
    enhanced: str = ""
    error: str = ""


class Told:
    def __init__(self, settings: ToldSettings) -> None:
        self._outcome = Outcome(**settings.model_dump())

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        return [self._outcome for _ in delivery.messages]


class BrokenSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    way: Literal["raises", "hangs", "nothing", "too many", "other type", "wrong fields", "text", "cancelled"]
    when: Literal["made", "delivering"] = "delivering"


class Broken:
    def __init__(self, settings: BrokenSettings) -> None:
        self._way = settings.way
        if settings.when == "made":
            raise RuntimeError("acme cannot be made")

    async def deliver(self, delivery: Delivery) -> Any:
        delivered = Outcome(result=Result.DELIVERED)
        match self._way:
            case "raises":
                raise RuntimeError("acme is out of order")
            case "hangs":
                await trio.sleep_forever()
            case "too many":
                return [delivered] * (len(delivery.messages) + 1)
            case "other type":
                return ["delivered"] * len(delivery.messages)
            case "wrong fields":
                return [Outcome(result="delivered", code="250")]  # type: ignore[arg-type]
            case "text":
                return "x" * len(delivery.messages)
            case "cancelled":
                raise await _cancelled()
        return None


async def _cancelled() -> trio.Cancelled:
    """A Cancelled that belongs to no scope any more."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            return exc
    raise AssertionError


class Transports:
    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {
            "maildrop": TransportType(MaildropSettings, _maildrop),
            "told": TransportType(ToldSettings, _told),
            "broken": TransportType(BrokenSettings, _broken),
        }


def _maildrop(name: str, settings: MaildropSettings, network: Network) -> Transport:
    return Maildrop(settings)


def _told(name: str, settings: ToldSettings, network: Network) -> Transport:
    return Told(settings)


def _broken(name: str, settings: BrokenSettings, network: Network) -> Transport:
    return Broken(settings)
