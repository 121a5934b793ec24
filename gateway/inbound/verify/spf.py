"""check_host() of RFC 7208: whether a client may send for a domain.

Records are read by `gateway.mail.spf_record`; here they are evaluated, term by term, as far as it takes. The
limits of section 4.6.4 hold for one check, everything that it includes among them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, TypeVar

import trio

from gateway.inbound.verify.iprev import MAX_NAMES, addresses_like
from gateway.inbound.verify.lookups import Lookups
from gateway.mail.address import ascii_domain
from gateway.mail.auth_results import SpfCheck, SpfResult
from gateway.mail.spf_record import (
    MAX_NAME,
    Directive,
    IpAddress,
    MacroText,
    SpfRecord,
    SpfSyntaxError,
    expand,
    expand_domain,
    is_spf,
    parse_macros,
    parse_spf,
    uses,
)
from gateway.net.dns import Answer, DnsTrouble, Mx, NoRecords, Reply

T = TypeVar("T")

MAX_LOOKUPS = 10  # terms that ask DNS (RFC 7208, 4.6.4)
MAX_VOID = 2  # of them, that find nothing
MAX_MX = 10  # hosts of an "mx"
LIMIT = 20.0  # seconds for a check; RFC 7208, 4.6.4 wants this at least
MAX_EXPLANATION = 500  # characters

_RESULTS: dict[str, SpfResult] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


class _PermError(Exception):
    pass


class _TempError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Verdict:
    result: SpfResult
    mechanism: str = ""
    domain: str = ""  # whose record decided
    explanation: MacroText | None = None


async def check_spf(
    lookups: Lookups,
    *,
    ip: IPv4Address | IPv6Address,
    domain: str,
    localpart: str,
    helo: str,
    receiver: str,
    identity: Literal["mailfrom", "helo"],
) -> SpfCheck:
    """`domain` and `localpart` are those of MAIL FROM, or "postmaster" at the EHLO name; an empty localpart
    is postmaster's. `receiver` is our name. Takes 20 s at most; never raises for what DNS says."""
    domain = domain.removesuffix(".")
    if not _can_be_asked(domain):
        return SpfCheck(identity=identity, result="none", reason="there is no domain to ask")
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    evaluation = _Evaluation(lookups, mapped or ip, localpart or "postmaster", domain, helo, receiver)
    explanation = ""
    try:
        with trio.fail_after(LIMIT):
            verdict = await evaluation.check_host(domain)
            if verdict.result == "fail" and verdict.explanation is not None:
                explanation = await evaluation.explain(verdict.explanation, verdict.domain)
    except (_PermError, SpfSyntaxError) as exc:
        return SpfCheck(identity=identity, result="permerror", domain=domain, reason=str(exc))
    except _TempError as exc:
        return SpfCheck(identity=identity, result="temperror", domain=domain, reason=str(exc))
    except trio.TooSlowError:
        reason = f"it took longer than {LIMIT:g} s"
        return SpfCheck(identity=identity, result="temperror", domain=domain, reason=reason)
    return SpfCheck(
        identity=identity,
        result=verdict.result,
        domain=domain,
        mechanism=verdict.mechanism,
        explanation=explanation,
    )


def _can_be_asked(domain: str) -> bool:
    """RFC 7208, 4.3; but "localhost" may have records, where DNS is simulated."""
    try:
        name = ascii_domain(domain)
    except UnicodeError:
        return False
    if "." not in name or name[0] == "[":
        return name.lower() == "localhost"
    return len(name) <= MAX_NAME and all(0 < len(part) <= 63 for part in name.split("."))


class _Evaluation:
    """One check: its counts, and what macros stand for."""

    def __init__(
        self, lookups: Lookups, ip: IpAddress, localpart: str, domain: str, helo: str, receiver: str
    ) -> None:
        self._lookups, self._ip, self._helo, self._receiver = lookups, ip, helo, receiver
        self._localpart, self._sender_domain = localpart, domain
        self._asked = self._void = 0
        self._names: list[str] | None = None  # of the client, validated; None: not asked yet

    async def check_host(self, domain: str) -> _Verdict:
        """Raises _PermError, _TempError, SpfSyntaxError."""
        record = await self._record(domain)
        if record is None:
            return _Verdict("none")
        while True:
            for directive in record.directives:
                if await self._matches(directive, domain):
                    result = _RESULTS[directive.qualifier]
                    return _Verdict(result, directive.text, domain, record.explanation)
            if record.redirect is None:
                return _Verdict("neutral")
            self._count()
            domain = await self._expand_domain(record.redirect, domain)
            following = await self._record(domain) if _can_be_asked(domain) else None
            if following is None:
                raise _PermError(f"redirect={domain[:MAX_NAME]!a}: there is no SPF record")
            record = following

    async def _record(self, domain: str) -> SpfRecord | None:
        if not domain.isascii():
            domain = ascii_domain(domain)
        found = await self._lookups.txt(domain)
        if isinstance(found, DnsTrouble):
            raise _TempError(found.text)
        records = [text for text in found.records if is_spf(text)] if isinstance(found, Answer) else []
        if len(records) > 1:
            raise _PermError(f"{domain} has {len(records)} SPF records")
        return parse_spf(records[0]) if records else None

    async def _matches(self, directive: Directive, domain: str) -> bool:
        match directive.mechanism:
            case "all":
                return True
            case "ip4" | "ip6":
                assert directive.network is not None
                return self._ip.version == directive.network.version and self._ip in directive.network
        self._count()
        target = await self._expand_domain(directive.domain, domain) if directive.domain else domain
        match directive.mechanism:
            case "include":
                return await self._include(target)
            case "a":
                return await self._has_address(target, directive, void=True)
            case "mx":
                return await self._mx(target, directive)
            case "exists":
                return isinstance(self._answered(await self._ipv4(target)), Answer)
            case "ptr":
                return any(_is_within(name, target) for name in await self._client_names())

    async def _include(self, target: str) -> bool:
        verdict = await self.check_host(target) if _can_be_asked(target) else _Verdict("none")
        if verdict.result == "none":
            raise _PermError(f"include:{target[:MAX_NAME]!a}: there is no SPF record")
        return verdict.result == "pass"

    async def _has_address(self, host: str, directive: Directive, *, void: bool) -> bool:
        found: Reply[IPv4Address] | Reply[IPv6Address] = NoRecords(nxdomain=True)
        if host.isascii():
            found = await addresses_like(self._lookups, host, self._ip)
        if isinstance(self._answered(found, void=void), NoRecords):
            return False
        assert isinstance(found, Answer)
        surplus = 32 - directive.prefix4 if self._ip.version == 4 else 128 - directive.prefix6
        return any(int(address) >> surplus == int(self._ip) >> surplus for address in found.records)

    async def _ipv4(self, name: str) -> Reply[IPv4Address]:
        return await self._lookups.ipv4(name) if name.isascii() else NoRecords(nxdomain=True)

    async def _mx(self, target: str, directive: Directive) -> bool:
        found: Reply[Mx] = NoRecords(nxdomain=True)
        if target.isascii():
            found = await self._lookups.mx(target)
        answer = self._answered(found)
        if not isinstance(answer, Answer):
            return False
        if len(answer.records) > MAX_MX:
            raise _PermError(f"{target} has more than {MAX_MX} MX records")
        for mx in sorted(answer.records):
            if mx.host != "." and await self._has_address(mx.host, directive, void=False):
                return True
        return False

    def _answered(self, found: Reply[T], *, void: bool = True) -> Answer[T] | NoRecords:
        if isinstance(found, DnsTrouble):
            raise _TempError(found.text)
        if isinstance(found, NoRecords) and void:
            self._void += 1
            if self._void > MAX_VOID:
                raise _PermError(f"more than {MAX_VOID} look-ups found nothing")
        return found

    def _count(self) -> None:
        self._asked += 1
        if self._asked > MAX_LOOKUPS:
            raise _PermError(f"more than {MAX_LOOKUPS} terms need look-ups")

    async def _client_names(self) -> list[str]:
        """The names of the client that have its address (RFC 7208, 5.5); trouble is as if there were none."""
        if self._names is None:
            self._names = []
            found = await self._lookups.ptr(self._ip)
            for name in found.records[:MAX_NAMES] if isinstance(found, Answer) else ():
                addresses = await addresses_like(self._lookups, name, self._ip)
                if isinstance(addresses, Answer) and self._ip in addresses.records:
                    self._names.append(name.lower())
        return self._names

    # --- Macros ---

    async def _expand_domain(self, pieces: MacroText, domain: str) -> str:
        names = await self._client_names() if uses(pieces, "p") else []
        return expand_domain(pieces, lambda letter: self._macro(letter, domain, names))

    async def explain(self, pieces: MacroText, domain: str) -> str:
        """The owner's text about a failure; "" if there is none that could be read (RFC 7208, 6.2)."""
        try:
            found = await self._lookups.txt(await self._expand_domain(pieces, domain))
            if not isinstance(found, Answer) or len(found.records) != 1:
                return ""
            text = parse_macros(found.records[0].decode("ascii"), explaining=True)
        except (SpfSyntaxError, UnicodeError):
            return ""
        names = await self._client_names() if uses(text, "p") else []
        return expand(text, lambda letter: self._macro(letter, domain, names))[:MAX_EXPLANATION]

    def _macro(self, letter: str, domain: str, names: list[str]) -> str:
        """RFC 7208, 7.2."""
        match letter:
            case "s":
                return f"{self._localpart}@{self._sender_domain}"
            case "l":
                return self._localpart
            case "o":
                return self._sender_domain
            case "d":
                return domain
            case "i":
                return str(self._ip) if self._ip.version == 4 else ".".join(f"{int(self._ip):032X}")
            case "p":
                return _preferred(names, domain)
            case "v":
                return "in-addr" if self._ip.version == 4 else "ip6"
            case "h":
                return self._helo
            case "c":
                return str(self._ip)
            case "r":
                return self._receiver
            case _:
                return str(int(time.time()))


def _is_within(name: str, domain: str) -> bool:
    domain = domain.lower()
    return name == domain or name.endswith("." + domain)


def _preferred(names: list[str], domain: str) -> str:
    """The name that the macro p stands for."""
    if domain.lower() in names:
        return domain
    return next((name for name in names if _is_within(name, domain)), names[0] if names else "unknown")
