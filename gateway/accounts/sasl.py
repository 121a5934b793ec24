"""Logins over SMTP (RFC 4954): the SASL mechanisms, on top of `gateway.accounts.logins`.

SCRAM-SHA-256 (RFC 7677), with and without channel binding to TLS 1.3 (RFC 9266), PLAIN (RFC 4616) and LOGIN,
which no RFC describes and many clients know. An API key is a password for PLAIN and LOGIN only: nothing is
kept of it that SCRAM could use. An unknown login and a wrong password get the same answer after the same
time; each failure from a network makes its next one wait longer, until none is heard for a minute.
"""

from __future__ import annotations

import abc
import logging

import trio

from gateway.accounts.logins import Authenticator, BadCredentialsError, Login, TooManyFailuresError
from gateway.errors import PluginError, StoreError
from gateway.net.smtp_handler import Exchange, Session
from gateway.smtp.replies import Reply
from gateway.smtp.scram import ScramError, ScramServer

log = logging.getLogger(__name__)

PLUS = "SCRAM-SHA-256-PLUS"
MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
MAX_NAME = 1000  # octets of a user name or password; whatever is longer is nobody's
STEP = 0.25  # seconds that each recent failure of a network adds to the answer to the next one
LONGEST = 3.0  # seconds

WRONG = Reply(535, "5.7.8", ("No such login, or another password",))
MALFORMED = Reply(501, "5.5.2", ("The response is malformed",))
OTHER_SCOPES = Reply(535, "5.7.8", ('This API key is not for sending; it has not the scope "send"',))
UNAVAILABLE = Reply(454, "4.7.0", ("Logins can't be checked now, try again later",))


class SaslLogins:
    """The Logins of gateway.net.smtp_handler."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return MECHANISMS if session.binding is None else (PLUS, *MECHANISMS)

    def begin(self, session: Session, mechanism: str) -> Exchange:
        return _Exchange(self._authenticator, session, mechanism)


class _Exchange:
    """One login. What its mechanism says is told to the client in one place: here."""

    def __init__(self, authenticator: Authenticator, session: Session, mechanism: str) -> None:
        self._authenticator = authenticator
        self._peer = str(session.peer or "")
        self._session = session
        self._mechanism: _Password | _Scram
        if mechanism in (PLUS, "SCRAM-SHA-256"):
            scram = ScramServer(session.binding, plus=mechanism == PLUS)
            self._mechanism = _Scram(authenticator, self._peer, scram)
        else:
            self._mechanism = (_Plain if mechanism == "PLAIN" else _Login)(authenticator, self._peer)

    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        try:
            self._authenticator.check_network(self._peer)
            return await self._mechanism.step(response)
        except TooManyFailuresError as exc:
            return Reply(454, "4.7.0", (str(exc),))
        except ScramError as exc:
            log.info("login failed session=%s peer=%s: %s", self._session.id, self._peer, exc)
            return Reply(501, "5.5.2", (str(exc),))
        except BadCredentialsError:
            failures = self._authenticator.failures(self._peer)
            log.info("login failed session=%s peer=%s: wrong credentials", self._session.id, self._peer)
            await trio.sleep(min(STEP * failures, LONGEST))
            return WRONG
        except (StoreError, PluginError) as exc:
            log.warning("answered 454: %s", exc)
            return UNAVAILABLE


class _Password(abc.ABC):
    """A mechanism that sends the password itself."""

    def __init__(self, authenticator: Authenticator, peer: str) -> None:
        self._authenticator, self._peer = authenticator, peer

    @abc.abstractmethod
    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        """What follows the client's response: a challenge, a refusal, or who logged in."""

    async def _check(self, user: bytes, password: bytes) -> Reply | Login:
        try:
            given = user.decode(), password.decode()
        except UnicodeDecodeError:
            return MALFORMED
        if len(user) > MAX_NAME or len(password) > MAX_NAME:
            return MALFORMED
        login = await self._authenticator.authenticate(*given, self._peer)
        return login if login.may("send") else OTHER_SCOPES


class _Plain(_Password):
    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            return MALFORMED
        acting_for, user, password = parts
        if acting_for not in (b"", user):
            self._authenticator.failed(self._peer)
            raise BadCredentialsError("nobody can act for another user")
        return await self._check(user, password)


class _Login(_Password):
    _user: bytes | None = None

    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        if response is None:
            return b"Username:"
        if self._user is None:
            self._user = response
            return b"Password:"
        return await self._check(self._user, response)


class _Scram:
    def __init__(self, authenticator: Authenticator, peer: str, server: ScramServer) -> None:
        self._authenticator, self._peer, self._server = authenticator, peer, server
        self._login: Login | None = None
        self._steps = 0

    async def step(self, response: bytes | None) -> bytes | Reply | Login:
        if response is None:
            return b""
        self._steps += 1
        if self._steps == 1:
            user = self._server.read_first(response)
            self._login, secret = await self._authenticator.scram_secret(user)
            return self._server.first(secret)
        if self._steps == 2:
            async with self._authenticator.turn(self._peer):  # a guess as any other
                signature = self._server.read_final(response)
                if signature is None or self._login is None:
                    self._authenticator.failed(self._peer)
                    raise BadCredentialsError("no such login, or another password")
            return signature
        if response or self._login is None:
            return MALFORMED
        return self._login
