"""The control socket's commands about suppression lists."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.mail.address import Address
from gateway.model import Suppression
from gateway.outbound.suppression import MAX_REASON, NewEntry, SuppressionLists
from gateway.store.changes import STEP
from gateway.web.control.app import Command, CommandFailed, Request


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is a time that UTC has not") from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
LONGEST = 10 * 365 * 86400.0  # seconds that an entry with an end may hold


# Of a mailing list; "" stands for all that the account sends.
ListName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,100}$")]


class OfAccount(Request):
    Account: str = ""  # may be left out where there is only one


class ListRequest(OfAccount):
    Cursor: str = Field(default="", max_length=1000)
    Max: int = Field(default=100, ge=1, le=1000)


class AddressRequest(OfAccount):
    Address: str
    List: ListName = ""


class AddRequest(AddressRequest):
    Reason: str = Field(default="", max_length=MAX_REASON, pattern=r"^[^\x00]*$")
    Seconds: float | None = Field(default=None, gt=0, le=LONGEST)  # from now; None: for ever


class Entry(Request):
    Address: str
    Reason: str = Field(default="", max_length=MAX_REASON, pattern=r"^[^\x00]*$")
    Manual: bool = True
    Created: Time | None = None  # None: now
    Expires: Time | None = None  # None: never
    List: ListName = ""


class ImportRequest(OfAccount):
    Entries: list[Entry] = Field(max_length=STEP)


class ManyRequest(OfAccount):
    Addresses: list[str] = Field(max_length=STEP)
    List: ListName = ""


class SuppressionCommands:
    def __init__(self, settings: Settings, lists: SuppressionLists, clock: Clock) -> None:
        self._accounts, self._lists, self._clock = settings.accounts, lists, clock

    def commands(self) -> dict[str, Command]:
        return {
            "suppression/list": Command(ListRequest, self._list),
            "suppression/add": Command(AddRequest, self._add),
            "suppression/remove": Command(AddressRequest, self._remove),
            "suppression/lookup": Command(AddressRequest, self._lookup),
            "suppression/import": Command(ImportRequest, self._import),
            "suppression/remove-many": Command(ManyRequest, self._remove_many),
            "suppression/lookup-many": Command(ManyRequest, self._lookup_many),
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
        added = await self._lists.add(
            account, address, manual=True, reason=request.Reason, expires=expires, list_name=request.List
        )
        entry = await self._lists.lookup(account, address, request.List)
        if not added and entry is not None:
            raise CommandFailed(
                f"{address} is on the suppression list of account {account} already, as {entry.base_address}"
            )
        return {"Suppression": entry and _entry(entry)}

    async def _remove(self, request: AddressRequest) -> Mapping[str, Any]:
        account, address = self._account(request), Address.parse(request.Address)
        if not await self._lists.remove(account, address, request.List):
            raise CommandFailed(f"{address} is not on the suppression list of account {account}")
        return {}

    async def _lookup(self, request: AddressRequest) -> Mapping[str, Any]:
        address = Address.parse(request.Address)
        entry = await self._lists.lookup(self._account(request), address, request.List)
        return {"Suppression": entry and _entry(entry)}

    async def _import(self, request: ImportRequest) -> Mapping[str, Any]:
        """Those that have expired are not added."""
        now = self._clock.now()
        entries = [
            NewEntry(
                address=Address.parse(entry.Address),
                manual=entry.Manual,
                reason=entry.Reason,
                created=entry.Created,
                expires=entry.Expires,
                list_name=entry.List,
            )
            for entry in request.Entries
            if entry.Expires is None or entry.Expires > now
        ]
        added = await self._lists.add_many(self._account(request), entries)
        return {"Added": added, "Expired": len(request.Entries) - len(entries)}

    async def _remove_many(self, request: ManyRequest) -> Mapping[str, Any]:
        addresses = [Address.parse(text) for text in request.Addresses]
        return {"Removed": await self._lists.remove_many(self._account(request), addresses, request.List)}

    async def _lookup_many(self, request: ManyRequest) -> Mapping[str, Any]:
        addresses = [Address.parse(text) for text in request.Addresses]
        found = await self._lists.lookup_many(self._account(request), addresses, request.List)
        return {"Suppressions": [entry and _entry(entry) for entry in found]}

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
        "List": entry.list_name,
    }
