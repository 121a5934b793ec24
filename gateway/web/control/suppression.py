"""The control socket's commands about suppression lists."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.mail.address import Address
from gateway.model import Suppression
from gateway.outbound.suppression import MAX_REASON, SuppressionLists
from gateway.web.control.app import Command, CommandFailed, Request

LONGEST = 10 * 365 * 86400.0  # seconds that an entry with an end may hold


class OfAccount(Request):
    Account: str = ""  # may be left out where there is only one


class ListRequest(OfAccount):
    Cursor: str = Field(default="", max_length=1000)
    Max: int = Field(default=100, ge=1, le=1000)


class AddressRequest(OfAccount):
    Address: str


class AddRequest(AddressRequest):
    Reason: str = Field(default="", max_length=MAX_REASON, pattern=r"^[^\x00]*$")
    Seconds: float | None = Field(default=None, gt=0, le=LONGEST)  # from now; None: for ever


class SuppressionCommands:
    def __init__(self, settings: Settings, lists: SuppressionLists, clock: Clock) -> None:
        self._accounts, self._lists, self._clock = settings.accounts, lists, clock

    def commands(self) -> dict[str, Command]:
        return {
            "suppression/list": Command(ListRequest, self._list),
            "suppression/add": Command(AddRequest, self._add),
            "suppression/remove": Command(AddressRequest, self._remove),
            "suppression/lookup": Command(AddressRequest, self._lookup),
        }

    async def _list(self, request: ListRequest) -> Mapping[str, Any]:
        account = self._account(request)
        entries, cursor = await self._lists.page(account, request.Cursor, request.Max)
        return {"Suppressions": [_entry(entry) for entry in entries], "NextCursor": cursor}

    async def _add(self, request: AddRequest) -> Mapping[str, Any]:
        account, address = self._account(request), Address.parse(request.Address)
        expires = None
        if request.Seconds is not None:
            expires = self._clock.now() + timedelta(seconds=request.Seconds)
        added = await self._lists.add(account, address, manual=True, reason=request.Reason, expires=expires)
        entry = await self._lists.lookup(account, address)
        if not added and entry is not None:
            raise CommandFailed(
                f"{address} is on the suppression list of account {account} already, as {entry.base_address}"
            )
        return {"Suppression": entry and _entry(entry)}

    async def _remove(self, request: AddressRequest) -> Mapping[str, Any]:
        account, address = self._account(request), Address.parse(request.Address)
        if not await self._lists.remove(account, address):
            raise CommandFailed(f"{address} is not on the suppression list of account {account}")
        return {}

    async def _lookup(self, request: AddressRequest) -> Mapping[str, Any]:
        entry = await self._lists.lookup(self._account(request), Address.parse(request.Address))
        return {"Suppression": entry and _entry(entry)}

    def _account(self, request: OfAccount) -> str:
        if request.Account:
            if request.Account not in self._accounts:
                raise NotConfigured("account", request.Account, self._accounts)
            return request.Account
        if len(self._accounts) != 1:
            known = ", ".join(self._accounts) or "none"
            raise CommandFailed(f"say which account, with --account; there are: {known}")
        return next(iter(self._accounts))


def _entry(entry: Suppression) -> dict[str, Any]:
    """As SuppressionList of the API answers it, and when it ends."""
    return {
        "ID": entry.id,
        "Created": entry.created,
        "Account": entry.account,
        "BaseAddress": entry.base_address,
        "OriginalAddress": entry.original_address,
        "Manual": entry.manual,
        "Reason": entry.reason,
        "Expires": entry.expires,
    }
