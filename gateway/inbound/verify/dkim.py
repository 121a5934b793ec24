"""DKIM of a message that came in: its keys are looked up, all at once, then its signatures checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from gateway.inbound.verify.lookups import Lookups, at_once
from gateway.mail.auth_results import DkimCheck
from gateway.mail.dkim_body import Canonicalization
from gateway.mail.dkim_signature import (
    Signature,
    check_signatures,
    early_verdict,
)
from gateway.net.dns import Answer, DnsTrouble, NoRecords, Reply
from gateway.offload import Offload


async def check_dkim(
    lookups: Lookups,
    offload: Offload,
    section: bytes,
    found: Sequence[Signature | DkimCheck],
    body_hashes: Mapping[Canonicalization, bytes],
    now: int,
) -> tuple[DkimCheck, ...]:
    """One result for each of `found` (of `read_signatures`), in order. `now`: seconds since 1970."""
    if not found:
        return ()
    results = [one if isinstance(one, DkimCheck) else early_verdict(one, now) for one in found]
    open_ones = {
        number: one
        for number, one in enumerate(found)
        if isinstance(one, Signature) and results[number] is None
    }
    keys = await _look_up(lookups, {one.key_name for one in open_ones.values()})
    signed: dict[int, tuple[Signature, bytes]] = {}
    for number, one in open_ones.items():
        key = _record(one, keys[one.key_name])
        if isinstance(key, DkimCheck):
            results[number] = key
        else:
            signed[number] = one, key
    checked = await offload.run_beside(
        len(section), check_signatures, section, tuple(signed.values()), body_hashes, now
    )
    for number, check in zip(signed, checked, strict=True):
        results[number] = check
    return tuple(check for check in results if check is not None)


async def _look_up(lookups: Lookups, names: set[str]) -> dict[str, Reply[bytes]]:
    replies: dict[str, Reply[bytes]] = {}

    async def ask(name: str) -> None:
        replies[name] = await lookups.txt(name)

    await at_once(*(partial(ask, name) for name in names))
    return replies


def _record(signature: Signature, reply: Reply[bytes]) -> bytes | DkimCheck:
    match reply:
        case DnsTrouble(text):
            return signature.check("temperror", text)
        case NoRecords():
            return signature.check("permerror", "there is no key")
        case Answer(records) if len(records) > 1:  # RFC 6376, 3.6.2.2: undefined
            return signature.check("permerror", "there are several keys")
        case Answer(records):
            return records[0]
