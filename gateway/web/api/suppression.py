"""The methods about the account's suppression list."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable

from pydantic_core import to_json

from gateway.mail.address import Address, AddressError
from gateway.model import Suppression
from gateway.outbound.suppression import MAX_REASON
from gateway.web.api import models
from gateway.web.api.calls import Call, Stream
from gateway.web.api.errors import BadRequest

_PAGE = 1000  # entries read at a time
_LIST = re.compile(r"[A-Za-z0-9._-]{1,100}")
_JSON = "application/json; charset=utf-8"


async def suppression_list(call: Call, _request: models.Empty) -> Stream:
    """A SuppressionListResult, made page by page: a list may be long. Raises StoreError."""
    pieces = [b'{"Suppressions":[']
    cursor = ""
    while True:
        page, cursor = await call.services.suppressions.page(call.login.account, cursor, _PAGE)
        listed = to_json([_suppression(entry) for entry in page])[1:-1]
        pieces.append(listed + (b"," if cursor else b"]}"))
        if not cursor:
            break
    size = sum(map(len, pieces))
    return Stream(content_type=_JSON, size=size, chunks=_chunks(pieces))


async def suppression_add(call: Call, request: models.SuppressionAddRequest) -> models.EmptyResult:
    """Raises BadRequest (badAddress, duplicate, user), StoreError."""
    address = _address(request.EmailAddress)
    if len(request.Reason) > MAX_REASON or "\0" in request.Reason:
        raise BadRequest("user", f"Reason: must have at most {MAX_REASON} characters, and no NUL")
    added = await call.services.suppressions.add(
        call.login.account,
        address,
        manual=request.Manual,
        reason=request.Reason,
        list_name=check_list(request.List),
    )
    if not added:
        raise BadRequest("duplicate", f"EmailAddress: {address} is on the suppression list already")
    return models.EmptyResult()


async def suppression_remove(call: Call, request: models.SuppressionRequest) -> models.EmptyResult:
    """Raises BadRequest (badAddress, notFound), StoreError."""
    address = _address(request.EmailAddress)
    if not await call.services.suppressions.remove(call.login.account, address, check_list(request.List)):
        raise BadRequest("notFound", f"EmailAddress: {address} is not on the suppression list")
    return models.EmptyResult()


async def suppression_present(
    call: Call, request: models.SuppressionRequest
) -> models.SuppressionPresentResult:
    """Raises BadRequest (badAddress), StoreError."""
    address = _address(request.EmailAddress)
    entry = await call.services.suppressions.lookup(call.login.account, address, check_list(request.List))
    return models.SuppressionPresentResult(Present=entry is not None)


def _suppression(entry: Suppression) -> models.Suppression:
    return models.Suppression(
        ID=entry.id,
        Created=entry.created,
        Account=entry.account,
        BaseAddress=entry.base_address,
        OriginalAddress=entry.original_address,
        Manual=entry.manual,
        Reason=entry.reason,
        List=entry.list_name,
    )


def check_list(name: str) -> str:
    """The name of a mailing list, or "". Raises BadRequest."""
    if name and not _LIST.fullmatch(name):
        raise BadRequest(
            "user", "List: must be 1 to 100 of the characters A-Z, a-z, 0-9, dot, dash and underscore"
        )
    return name


async def _chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as exc:
        raise BadRequest("badAddress", f"EmailAddress: {exc}") from None
