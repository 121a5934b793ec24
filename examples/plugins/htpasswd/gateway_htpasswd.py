"""Logins from a file that Apache's htpasswd wrote: `htpasswd -B FILE USER`."""

from __future__ import annotations

import logging
from typing import Literal

import bcrypt
from pydantic import BaseModel, ConfigDict

from gateway import Authenticated, ConfigPath, Credentials, hookimpl

log = logging.getLogger(__name__)

MAX_PASSWORD = 72  # bytes: bcrypt does not look at more


class HtpasswdSettings(BaseModel):
    """[plugin."example.htpasswd"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: ConfigPath  # lines of USER:HASH, the hashes bcrypt's
    account: str  # that the users send as


class Htpasswd:
    Settings = HtpasswdSettings

    @hookimpl(thread=True)  # bcrypt takes its time, on purpose
    def authenticate(
        self, credentials: Credentials, settings: HtpasswdSettings
    ) -> Authenticated | Literal[False] | None:
        for line in settings.file.read_text(encoding="utf-8").splitlines():
            user, _, hashed = line.strip().partition(":")
            if user and not user.startswith("#") and user == credentials.login:
                good = _matches(credentials.password, hashed, user)
                return Authenticated(account=settings.account) if good else False
        return None  # not one of these: the gateway's own logins are looked at


def _matches(password: str, hashed: str, user: str) -> bool:
    if not hashed.startswith(("$2y$", "$2b$", "$2a$")):
        log.warning("%s: the hash is not bcrypt's; make it anew with htpasswd -B", user)
        return False
    given = password.encode()
    try:
        return len(given) <= MAX_PASSWORD and bcrypt.checkpw(given, hashed.encode())
    except ValueError:
        log.warning("%s: the hash cannot be read; make it anew with htpasswd -B", user)
        return False
