"""The control socket's commands about accounts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gateway.accounts import Authenticator
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.web.control.app import Command, Request

log = logging.getLogger(__name__)


class PasswordRequest(Request):
    Account: str
    Password: str = Field(min_length=8, max_length=1000)


class AccountCommands:
    def __init__(self, settings: Settings, authenticator: Authenticator) -> None:
        self._accounts, self._authenticator = settings.accounts, authenticator

    def commands(self) -> dict[str, Command]:
        return {"account/password": Command(PasswordRequest, self._password)}

    async def _password(self, request: PasswordRequest) -> Mapping[str, Any]:
        if request.Account not in self._accounts:
            raise NotConfigured("account", request.Account, self._accounts)
        await self._authenticator.set_password(request.Account, request.Password)
        log.info("password of account %s set", request.Account)
        return {}
