"""The transport `fail`: gives every message back at once. For a route that nothing may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway import Delivery, Network, Outcome, Transport, TransportType, hookimpl


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{value!a} is not one line of printable characters")
    return value


class FailTransportSettings(BaseModel):
    """[transports.NAME] type = "fail" """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    code: Annotated[int, Field(ge=400, le=599)] = 554  # 4xx: tried again, 5xx: failed for good
    message: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_line)] = (
        "no mail is delivered this way"
    )


class FailTransport:
    def __init__(self, settings: FailTransportSettings) -> None:
        make = Outcome.permanent if settings.code >= 500 else Outcome.temporary
        # Nobody was asked: the address is as good as it was.
        self._outcome = replace(make(settings.message, code=settings.code), about_recipient=False)

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        return [self._outcome] * len(delivery.messages)


class Fail:
    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        return {"fail": TransportType(FailTransportSettings, _make)}


def _make(_name: str, settings: FailTransportSettings, _network: Network) -> Transport:
    return FailTransport(settings)
