"""API keys: named passwords of an account that may do some of what the account may.

A key is 256 random bits, so a plain hash of it is enough to find it by and gives nothing away: argon2 is for
what people think up. It is shown once, when it is made. `gateway.accounts.logins` logs people in with it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

from gateway.clock import Clock
from gateway.errors import GatewayError, StoreError
from gateway.model import Scope
from gateway.store import api_keys
from gateway.store.api_keys import ApiKey
from gateway.store.store import Store

log = logging.getLogger(__name__)

PREFIX = "mgk_"  # so that people, and programs that look for leaked secrets, see what it is
MAX_KEYS = 100  # of an account
USED_EVERY = timedelta(minutes=1)  # how exact the time of the last use is: a write for each call would cost
_KEY = re.compile(PREFIX + "[A-Za-z0-9_-]{43}")


class KeyNameError(GatewayError):
    """The account has such a key already, or has none, or has too many; the text says which."""


class ApiKeys:
    """The keys of all accounts. All methods raise StoreError."""

    def __init__(self, store: Store, clock: Clock, revoked: Callable[[str], None]) -> None:
        """`revoked` is told an account of which a key is gone."""
        self._store, self._clock, self._revoked = store, clock, revoked

    async def add(
        self, account: str, name: str, scopes: Collection[Scope], expires: datetime | None = None
    ) -> str:
        """A new key. It can't be had again. Raises KeyNameError."""
        key = PREFIX + secrets.token_urlsafe(32)
        write = partial(
            api_keys.add,
            now=self._clock.now(),
            account=account,
            name=name,
            digest=_digest(key),
            scopes=frozenset(scopes),
            expires=expires,
            maximum=MAX_KEYS,
        )
        added = await self._store.write(write)
        if added is None:
            raise KeyNameError(f"account {account} has {MAX_KEYS} keys, which is the most; revoke one")
        if not added:
            raise KeyNameError(
                f"account {account} has a key {name!r} already; revoke it, or take another name"
            )
        return key

    async def of_account(self, account: str) -> tuple[ApiKey, ...]:
        """By name, those that have expired included."""
        return await self._store.read(lambda conn: api_keys.of_account(conn, account))

    async def revoke(self, account: str, name: str) -> None:
        """Nobody logs in with it any more. Raises KeyNameError if there is none."""
        if not await self._store.write(lambda conn: api_keys.remove(conn, account, name)):
            known = ", ".join(key.name for key in await self.of_account(account)) or "none"
            raise KeyNameError(f"account {account} has no key {name!r}; there are: {known}")
        self._revoked(account)

    async def find(self, text: str) -> ApiKey | None:
        """The key that this is, if it is one, and still valid; notes that it was used."""
        if not _KEY.fullmatch(text):
            return None
        digest, now = _digest(text), self._clock.now()
        found = await self._store.read(lambda conn: api_keys.by_digest(conn, digest))
        if found is None or (found.expires is not None and found.expires <= now):
            return None
        if found.last_used is None or now - found.last_used >= USED_EVERY:
            try:
                await self._store.write(lambda conn: api_keys.used(conn, found.id, now))
            except StoreError as exc:  # a full disk keeps nobody from reading
                log.warning(
                    "last use of API key %s of account %s not noted: %s", found.name, found.account, exc
                )
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
