"""The control socket's commands about accounts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field

from gateway.accounts.logins import Authenticator
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.model import Scope
from gateway.web.control.app import Command, Request

log = logging.getLogger(__name__)

LONGEST = 10 * 365 * 86400.0  # seconds that a key with an end may be valid


class PasswordRequest(Request):
    Account: str
    Password: str = Field(min_length=8, max_length=1000, repr=False)


class KeysRequest(Request):
    Account: str


class KeyRequest(KeysRequest):
    Name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]*$")


class NewKeyRequest(KeyRequest):
    Scopes: tuple[Scope, ...] = Field(min_length=1)
    Seconds: float | None = Field(default=None, gt=0, le=LONGEST)  # from now; None: for ever


class AccountCommands:
    def __init__(self, settings: Settings, authenticator: Authenticator, clock: Clock) -> None:
        self._accounts, self._authenticator, self._clock = settings.accounts, authenticator, clock

    def commands(self) -> dict[str, Command]:
        return {
            "account/password": Command(PasswordRequest, self._password),
            "account/keys/add": Command(NewKeyRequest, self._add_key),
            "account/keys/list": Command(KeysRequest, self._list_keys),
            "account/keys/revoke": Command(KeyRequest, self._revoke_key),
        }

    async def _password(self, request: PasswordRequest) -> Mapping[str, Any]:
        self._check(request.Account)
        await self._authenticator.set_password(request.Account, request.Password)
        log.info("password of account %s set", request.Account)
        return {}

    async def _add_key(self, request: NewKeyRequest) -> Mapping[str, Any]:
        self._check(request.Account)
        expires = None
        if request.Seconds is not None:
            expires = self._clock.now() + timedelta(seconds=request.Seconds)
        key = await self._authenticator.keys.add(request.Account, request.Name, request.Scopes, expires)
        log.info("API key %s of account %s added", request.Name, request.Account)
        return {"Key": key, "Expires": expires}

    async def _list_keys(self, request: KeysRequest) -> Mapping[str, Any]:
        self._check(request.Account)
        return {
            "Keys": [
                {
                    "Name": key.name,
                    "Scopes": sorted(key.scopes),
                    "Created": key.created,
                    "Expires": key.expires,
                    "LastUsed": key.last_used,
                }
                for key in await self._authenticator.keys.of_account(request.Account)
            ]
        }

    async def _revoke_key(self, request: KeyRequest) -> Mapping[str, Any]:
        self._check(request.Account)
        await self._authenticator.keys.revoke(request.Account, request.Name)
        log.info("API key %s of account %s revoked", request.Name, request.Account)
        return {}

    def _check(self, account: str) -> None:
        if account not in self._accounts:
            raise NotConfigured("account", account, self._accounts)
