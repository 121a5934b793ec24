"""The MTA-STS policies of recipient domains (RFC 8461): fetched, kept in the store, refreshed.

Whatever fails, a kept policy holds until it expires: who can disturb DNS or HTTPS must not be able to take it
away. Without one, a domain whose policy cannot be fetched has none.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Never, TypeAlias

import trio

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.net import https
from gateway.net.addresses import Network
from gateway.net.dns import Answer, DnsTrouble, NoRecords, Resolver
from gateway.net.mta_sts import (
    MAX_POLICY,
    Policy,
    PolicyError,
    StsAnswer,
    ascii_host,
    parse_policy,
    parse_record,
)
from gateway.net.tls_results import TlsFault
from gateway.recent import Recent
from gateway.store import mta_sts as stored
from gateway.store.changes import STEP
from gateway.store.mta_sts import StoredPolicy
from gateway.store.store import Store
from gateway.together import Together

log = logging.getLogger(__name__)

FETCH_TIME = 60.0  # seconds (section 3.3)
PATH = "/.well-known/mta-sts.txt"
RETRY_AFTER = 300.0  # seconds without another fetch when one failed (section 3.3)
MAX_FAILURES = 1000  # domains of which that is remembered
MAX_RECENT = 10_000  # domains of which it is remembered for a minute what the store has
EVERY = 3600.0  # seconds between two looks at what is to be refreshed
REFRESH_AFTER = timedelta(hours=12)
UNUSED_AFTER = timedelta(days=30)  # then a policy is not refreshed any more
MAX_REFRESHED = 200  # in one look
USED = timedelta(days=1)  # how exactly it is kept when a policy was last used


_Fetch: TypeAlias = tuple[str, frozenset[Network]]  # a domain, and networks that are not public and will do


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store has of a domain. Without a `policy`, nothing that this version understands."""

    row: StoredPolicy | None = None
    policy: Policy | None = None

    def at(self, now: datetime) -> _Kept:
        return _NOTHING if self.row is not None and self.row.expires <= now else self


_NOTHING = _Kept()


class MtaStsPolicies:
    """Finds policies. `context` replaces the authorities that the system knows, `port` the one of HTTPS.

    Error handling: the network and what it says make answers, never exceptions. `find` raises StoreError
    when kept policies cannot be read; that one cannot be written is only logged.
    """

    def __init__(
        self,
        resolver: Resolver,
        store: Store,
        clock: Clock,
        *,
        context: ssl.SSLContext | None = None,
        port: int = 443,
    ) -> None:
        self._resolver, self._store, self._clock = resolver, store, clock
        self._context = context or ssl.create_default_context()
        self._port = port
        self._fetching = Together[Policy | TlsFault]()
        self._recent = Recent[_Kept](clock.monotonic, MAX_RECENT)
        self._failed: OrderedDict[_Fetch, tuple[float, str, TlsFault]] = OrderedDict()
        self._allowed: set[Network] = set()  # by anybody who has asked; for refreshing

    async def find(self, domain: str, *, allow_networks: Sequence[Network] = ()) -> StsAnswer | DnsTrouble:
        """The policy of a recipient domain. DnsTrouble: it is not known whether there is one.

        It is fetched from a public address, or from one in `allow_networks`.
        """
        if domain.startswith("["):
            return StsAnswer()
        kept = await self._kept(domain)
        policy = kept.policy
        record_id = await self._record(domain)
        if kept.row is not None and policy is not None:
            await self._note_use(kept.row)
            if not isinstance(record_id, str) or record_id == kept.row.record_id:
                return StsAnswer(policy)
        if isinstance(record_id, DnsTrouble):
            return record_id
        if record_id is None:
            return StsAnswer()
        self._allowed.update(allow_networks)
        found = await self._fetch((domain, frozenset(allow_networks)), record_id)
        return StsAnswer(found) if isinstance(found, Policy) else StsAnswer(policy, found)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Refreshes what is in use, and removes what has expired, for ever."""
        task_status.started()
        while True:
            try:
                await self.refresh()
            except StoreError as exc:
                log.warning("MTA-STS policies will be refreshed in an hour: %s", exc)
            await trio.sleep(EVERY)

    async def refresh(self) -> None:
        """Raises StoreError."""
        now = self._clock.now()
        while await self._store.write(partial(stored.remove_expired, now=now)) == STEP:
            pass
        due = await self._store.read(
            partial(
                stored.to_refresh,
                fetched_before=now - REFRESH_AFTER,
                used_since=now - UNUSED_AFTER,
                now=now,
                limit=MAX_REFRESHED,
            )
        )
        for kept in due:
            record_id = await self._record(kept.domain)
            if isinstance(record_id, str):  # else the policy stays until it expires
                await self._fetch((kept.domain, frozenset(self._allowed)), record_id, used=kept)

    async def _kept(self, domain: str) -> _Kept:
        now = self._clock.now()
        kept = self._recent.get(domain)
        if kept is None:
            row = await self._store.read(partial(stored.get, domain=domain, now=now))
            kept = _NOTHING if row is None else _Kept(row, _parsed(row))
            self._recent.keep(domain, kept)
        return kept.at(now)

    async def _record(self, domain: str) -> str | DnsTrouble | None:
        """The ID that the TXT record has."""
        name = ascii_host(domain)
        reply = NoRecords() if name is None else await self._resolver.txt(f"_mta-sts.{name}")
        if isinstance(reply, DnsTrouble):
            return reply
        return parse_record(reply.records) if isinstance(reply, Answer) else None

    async def _fetch(
        self, fetch: _Fetch, record_id: str, *, used: StoredPolicy | None = None
    ) -> Policy | TlsFault:
        failed = self._failed.get(fetch)
        if failed is not None and failed[1] == record_id and self._clock.monotonic() < failed[0]:
            return failed[2]
        return await self._fetching.run(fetch, partial(self._fetch_now, fetch, record_id, used))

    async def _fetch_now(self, fetch: _Fetch, record_id: str, used: StoredPolicy | None) -> Policy | TlsFault:
        domain, networks = fetch
        found = await self._download(domain, tuple(networks))
        self._failed.pop(fetch, None)
        if isinstance(found, TlsFault):
            log.info("MTA-STS policy of %s: %s", domain, found.text)
            self._failed[fetch] = (self._clock.monotonic() + RETRY_AFTER, record_id, found)
            if len(self._failed) > MAX_FAILURES:
                self._failed.popitem(last=False)
            return found
        now = self._clock.now()
        new = StoredPolicy(
            domain=domain,
            record_id=record_id,
            text=found.text,
            fetched=now,
            expires=now + timedelta(seconds=found.max_age),
            used=now if used is None else used.used,
        )
        try:
            await self._store.write(partial(stored.put, new=new), size=len(new.text))
        except StoreError as exc:
            log.warning("MTA-STS policy of %s: not kept: %s", domain, exc)
        else:
            self._recent.keep(domain, _Kept(new, found))
        return found

    async def _download(self, domain: str, networks: Sequence[Network]) -> Policy | TlsFault:
        try:
            page = await https.get(
                self._resolver,
                f"mta-sts.{ascii_host(domain)}",
                PATH,
                context=self._context,
                max_size=MAX_POLICY,
                timeout=FETCH_TIME,
                port=self._port,
                allow_networks=networks,
            )
        except https.HttpsError as exc:
            return TlsFault("sts-webpki-invalid" if exc.certificate else "sts-policy-fetch-error", str(exc))
        if page.status != 200:
            return TlsFault("sts-policy-fetch-error", f"mta-sts.{domain} answered HTTP status {page.status}")
        # So that no page that users of a web site can make is a policy.
        if page.content_type != "text/plain":
            return TlsFault("sts-policy-invalid", "the policy is not of the type text/plain")
        try:
            return parse_policy(page.body)
        except PolicyError as exc:
            return TlsFault("sts-policy-invalid", str(exc))

    async def _note_use(self, kept: StoredPolicy) -> None:
        now = self._clock.now()
        if now - kept.used < USED:
            return
        try:
            await self._store.write(partial(stored.mark_used, domain=kept.domain, now=now))
        except StoreError as exc:
            log.warning("MTA-STS policy of %s: its use is not recorded: %s", kept.domain, exc)
        else:
            self._recent.forget(kept.domain)


def _parsed(kept: StoredPolicy) -> Policy | None:
    try:
        return parse_policy(kept.text)
    except PolicyError:  # an earlier version understood it
        return None
