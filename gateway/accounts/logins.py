"""Whether a login is who it says.

`Authenticator` checks passwords and API keys against what the store keeps of them, remembers the good ones
for a short time (argon2 does six checks a second on a core), hands out what SCRAM needs, and makes a network
that guesses wait, however it guesses. Whose an address is, `gateway.accounts.directory` knows.
"""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Protocol

import argon2
import trio

from gateway.accounts.api_keys import ApiKeys
from gateway.accounts.directory import Directory
from gateway.clock import Clock
from gateway.config.accounts import AccountSettings
from gateway.errors import GatewayError, PluginError
from gateway.hookspecs.additions import Authenticated, Credentials, LoginAnswer
from gateway.mail.address import Address, AddressError
from gateway.model import Scope
from gateway.smtp import scram
from gateway.store import credentials, facts
from gateway.store.api_keys import ApiKey
from gateway.store.store import Store

log = logging.getLogger(__name__)

SCRAM_ITERATIONS = 4096  # RFC 7677, section 4: at least this; argon2 guards the same password
SALT = 16  # octets
REMEMBER_SECONDS = 300.0  # how long a verified password is not verified again
REMEMBER_KEY_SECONDS = 5.0  # the same for an API key: another process may have revoked it
REMEMBER_PLUGIN_SECONDS = 5.0  # the same for who a plugin knows
REMEMBER_LOGINS = 10_000
UNKNOWN_KEY = "scram_unknown_key"  # the fact that salts of unknown logins are made from, at every start
FAILURES_ALLOWED = 20  # of one network within a minute
FAILURE_WINDOW = 60.0  # seconds
NETWORKS_WATCHED = 10_000


class BadCredentialsError(GatewayError):
    """No such login, or another password: the caller can't tell which."""


class TooManyFailuresError(GatewayError):
    """A network failed to log in too often; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many failed logins from your network; try again in {retry_after} seconds")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Login:
    """Who is logged in: the address that was given, and the account it belongs to."""

    account: str
    address: Address
    settings: AccountSettings
    key: str = ""  # the name of the API key that was given for a password
    scopes: frozenset[str] | None = None  # what it may do; None, as of a password: everything

    def may(self, scope: Scope) -> bool:
        return self.scopes is None or scope in self.scopes


def _unknown_password(hasher: argon2.PasswordHasher) -> str:
    """A hash that no password has: random, so that only checking one against it takes its time."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


@dataclass(slots=True)
class UnderWay:
    """The logins of one network that have begun."""

    begun: int = 0
    checked: int = 0  # of these; the others wait until it's known what comes of some
    waiting: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    one: trio.Lock = field(default_factory=trio.Lock)  # who has it may use a thread


class AskPlugins(Protocol):
    async def __call__(self, *, credentials: Credentials) -> LoginAnswer | None:
        """Who it is, False for a refusal; None when nobody says. Raises PluginError."""


class Authenticator:
    """Checks logins. One for the process; no secret leaves it, only where logins failed."""

    def __init__(
        self,
        directory: Directory,
        store: Store,
        clock: Clock,
        hasher: Callable[[], argon2.PasswordHasher] = argon2.PasswordHasher,
        plugins: AskPlugins | None = None,
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`plugins`: the stage `authenticate`. `changed` is called when a password or key counts no more,
        `failed` with the network of a login that failed."""
        self._directory, self._store, self._clock = directory, store, clock
        self._hasher = hasher()
        self._threads = trio.CapacityLimiter(2)  # each check takes 64 MiB and a core
        self._plugins, self._changed, self._failed = plugins, changed, failed
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, tuple[Login, float]] = OrderedDict()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._under_way: dict[str, UnderWay] = {}
        # What an unknown login is checked against, so that it takes as long as a known one.
        self._nobody = _unknown_password(self._hasher)
        self._unknown_key = b""
        self.keys = ApiKeys(store, clock, self._revoked)

    async def authenticate(self, login: str, password: str, remote_ip: str) -> Login:
        """The login's account, as plugins say, or by its password or an API key. Raises BadCredentialsError,
        TooManyFailuresError, PluginError, StoreError."""
        given = self._digest("basic", login, password)
        remembered = self._remembered(given)
        if remembered is not None:
            return remembered
        async with self.turn(remote_ip) as network:
            return self._remembered(given) or await self._check(given, login, password, remote_ip, network)

    async def _check(
        self, given: bytes, login: str, password: str, remote_ip: str, network: UnderWay
    ) -> Login:
        """`authenticate`, when it is its turn."""
        if self._plugins is not None:
            said = await self._plugins(
                credentials=Credentials(login=login, password=password, remote_ip=remote_ip)
            )
            if isinstance(said, Authenticated):
                return self._remember(given, self._as_said(said), REMEMBER_PLUGIN_SECONDS)
            if said is False:
                self.failed(remote_ip)
                raise BadCredentialsError("no such login, or another password")
        found = self._find(login)
        key = await self.keys.find(password)
        if key is not None and found is not None and key.account == found.account:
            return self._remember_key(given, found, key)
        stored = await self._stored(found)
        hashed = stored.argon2 if stored is not None else self._nobody
        async with network.one:  # or what one network guesses would take both threads
            if (remembered := self._remembered(given)) is not None:  # it came several times at once
                return remembered
            right = await trio.to_thread.run_sync(self._verify, hashed, password, limiter=self._threads)
        if not right or found is None:
            self.failed(remote_ip)
            raise BadCredentialsError("no such login, or another password")
        return self._remember(given, found, REMEMBER_SECONDS)

    @asynccontextmanager
    async def turn(self, remote_ip: str) -> AsyncIterator[UnderWay]:
        """Around the check of a login. Raises TooManyFailuresError.

        All that are being checked may fail: with those that did, they are never more than are allowed. Others
        wait, for they may be right, and are refused when too many have failed.
        """
        network = _network(remote_ip)
        under_way = self._under_way.setdefault(network, UnderWay())
        under_way.begun += 1
        try:
            self.check_network(remote_ip)
            while len(self._recent(network)) + under_way.checked >= FAILURES_ALLOWED:
                await under_way.waiting.park()
                self.check_network(remote_ip)
            under_way.checked += 1
            try:
                yield under_way
            finally:
                under_way.checked -= 1
        finally:
            under_way.begun -= 1
            if (failures := len(self._recent(network))) < FAILURES_ALLOWED:
                # As many as there is room for: if a thousand wait, each end must not wake them all.
                under_way.waiting.unpark(count=max(0, FAILURES_ALLOWED - failures - under_way.checked))
            else:
                under_way.waiting.unpark_all()
            if not under_way.begun:
                del self._under_way[network]

    def _as_said(self, said: Authenticated) -> Login:
        """Raises PluginError, if a plugin names what is not configured."""
        account = self._directory.accounts.get(said.account)
        if account is None:
            problem = f"answered the account {said.account!r}, which is not configured"
        else:
            address = said.address or account.addresses[0]
            if self._directory.domain_disabled(address.domain):
                raise BadCredentialsError("no such login, or another password")
            if self._directory.owner(address) == said.account:
                return Login(said.account, address, account)
            problem = f"answered the address {address}, which is not the account {said.account!r}'s"
        log.error("hook 'authenticate': a plugin %s", problem)
        raise PluginError("of the hook authenticate", "authenticate", problem)

    async def authenticate_key(self, text: str, remote_ip: str) -> Login:
        """The account of an API key that came alone; the login is its first address. Raises as
        `authenticate`."""
        given = self._digest("key", text)
        remembered = self._remembered(given)
        if remembered is not None:
            return remembered
        async with self.turn(remote_ip):
            if (remembered := self._remembered(given)) is not None:  # it came several times at once
                return remembered
            key = await self.keys.find(text)
            account = self._directory.accounts.get(key.account) if key is not None else None
            addresses = account.addresses if account is not None else ()
            for address in addresses:
                if key is not None and (found := self._find(str(address))) is not None:
                    return self._remember_key(given, found, key)
            self.failed(remote_ip)
        raise BadCredentialsError("no such API key, or it has expired or was revoked")

    def check_network(self, remote_ip: str) -> None:
        """Raises TooManyFailuresError when nobody from there may try now."""
        recent = self._recent(_network(remote_ip))
        if len(recent) >= FAILURES_ALLOWED:
            wait = recent[0] + FAILURE_WINDOW - self._clock.timestamp()
            raise TooManyFailuresError(int(wait) + 1)

    def failed(self, remote_ip: str) -> None:
        """A login from there failed."""
        network = _network(remote_ip)
        self.count_failure(network)
        self._failed(network)

    def count_failure(self, network: str) -> None:
        """A login from the network failed, here or elsewhere."""
        self._failures[network] = [*self._recent(network), self._clock.timestamp()]
        self._failures.move_to_end(network)
        while len(self._failures) > NETWORKS_WATCHED:
            self._failures.popitem(last=False)

    def failures(self, remote_ip: str) -> int:
        """How many logins from there failed within the last minute."""
        return len(self._recent(_network(remote_ip)))

    async def scram_secret(self, login: str) -> tuple[Login | None, scram.ScramSecret]:
        """What a SCRAM exchange needs to know of a login. With an unknown login comes a secret that no
        password has, always the same for that login, so that it can't be told from a known one. Raises
        StoreError."""
        found = self._find(login)
        stored = await self._stored(found)
        key = await self._key_of_unknown()
        try:
            name = str(self._directory.base(Address.parse(login)))
        except AddressError:
            name = login
        salt, stored_key, server_key = (
            hmac.digest(key, f"{part}\0{name}".encode("utf-8", "surrogatepass"), "sha256")
            for part in ("salt", "stored", "server")
        )
        if found is None or stored is None:
            return None, scram.ScramSecret(salt[:SALT], SCRAM_ITERATIONS, stored_key, server_key)
        return found, scram.ScramSecret(
            stored.scram_salt, stored.scram_iterations, stored.scram_stored_key, stored.scram_server_key
        )

    async def set_password(self, account: str, password: str) -> None:
        """Replace an account's password; what was verified before counts no more."""
        credential = await trio.to_thread.run_sync(self._derive, account, password, limiter=self._threads)
        now = self._clock.now()
        await self._store.write(lambda conn: credentials.put(conn, credential, now))
        self._revoked(account)

    async def give_password(self, account: str, password: str) -> None:
        """Set an account's password, unless it has one."""
        if not await self.has_password(account):
            await self.set_password(account, password)

    def forget_all(self) -> None:
        """Another process changed a password, or revoked a key."""
        self._good.clear()

    async def has_password(self, account: str) -> bool:
        return await self._store.read(lambda conn: credentials.get(conn, account)) is not None

    def _digest(self, *given: str) -> bytes:
        return hmac.digest(self._key, "\0".join(given).encode("utf-8", "surrogatepass"), "sha256")

    def _remembered(self, given: bytes) -> Login | None:
        login, until = self._good.get(given, (None, 0.0))
        return login if self._clock.timestamp() < until else None

    def _remember_key(self, given: bytes, found: Login, key: ApiKey) -> Login:
        seconds = REMEMBER_KEY_SECONDS
        if key.expires is not None:
            seconds = min(seconds, key.expires.timestamp() - self._clock.timestamp())
        return self._remember(given, replace(found, key=key.name, scopes=key.scopes), seconds)

    def _remember(self, given: bytes, login: Login, seconds: float) -> Login:
        self._good[given] = (login, self._clock.timestamp() + seconds)
        while len(self._good) > REMEMBER_LOGINS:
            self._good.popitem(last=False)
        return login

    def _revoked(self, account: str) -> None:
        for given in [given for given, (login, _) in self._good.items() if login.account == account]:
            del self._good[given]
        self._changed()

    def _find(self, login: str) -> Login | None:
        try:
            address = Address.parse(login)
        except AddressError:
            return None
        account = self._directory.owner(address)
        if account is None or self._directory.domain_disabled(address.domain):
            return None
        return Login(account, address, self._directory.accounts[account])

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _stored(self, found: Login | None) -> credentials.Credential | None:
        """The store is asked about an unknown login too, which takes time as well."""
        account = found.account if found is not None else ""
        return await self._store.read(lambda conn: credentials.get(conn, account))

    async def _key_of_unknown(self) -> bytes:
        if not self._unknown_key:
            new = secrets.token_hex(32)
            kept = await self._store.write(
                lambda conn: facts.read_locked(conn, UNKNOWN_KEY, new, exclusive=False)
            )
            self._unknown_key = bytes.fromhex(kept)
        return self._unknown_key

    def _recent(self, network: str) -> list[float]:
        since = self._clock.timestamp() - FAILURE_WINDOW
        return [t for t in self._failures.get(network, ()) if t > since]

    def _derive(self, account: str, password: str) -> credentials.Credential:
        secret = scram.derive(password, secrets.token_bytes(SALT), SCRAM_ITERATIONS)
        return credentials.Credential(
            account=account,
            argon2=self._hasher.hash(password),
            scram_salt=secret.salt,
            scram_iterations=secret.iterations,
            scram_stored_key=secret.stored_key,
            scram_server_key=secret.server_key,
        )


def parse_basic(header: str) -> tuple[str, str] | None:
    """The user name and password of an Authorization header (RFC 7617); None when it holds none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def parse_bearer(header: str) -> str | None:
    """The token of an Authorization header (RFC 6750, section 2.1); None when it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _network(remote_ip: str) -> str:
    """What failures are counted by: an IPv4 /24 or an IPv6 /64; else the peer as it is (a Unix socket)."""
    try:
        address = ip_address(remote_ip)
    except ValueError:
        return remote_ip
    return str(ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))
