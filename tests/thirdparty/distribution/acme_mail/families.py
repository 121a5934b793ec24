"""Stage `base_address`: at some domains, everything after the first dot of a localpart is a family's name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gateway import Address, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    domains: tuple[str, ...] = ()


@hookimpl
async def base_address(address: Address, settings: Settings) -> Address | None:
    _, dot, family = address.localpart.partition(".")
    if address.domain not in settings.domains or not dot:
        return None
    return Address(family, address.domain)
