"""DMARC (RFC 7489): the policy of the domain in From, and whether SPF or DKIM speak for that domain.

`find_policy` asks DNS; `decide` is a pure function of what is known then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

from gateway.inbound.verify.lookups import Lookups
from gateway.mail.address import Address, AddressError, ascii_domain, parse_domain
from gateway.mail.address_list import parse_address_list
from gateway.mail.auth_results import DkimCheck, DmarcCheck, DmarcPolicy, SpfCheck
from gateway.mail.encoded_words import decode_words
from gateway.mail.headers import unfold
from gateway.mail.public_suffix import organizational_domain
from gateway.net.dns import Answer, DnsTrouble

MAX_FROM = 8192  # octets of a From field that are read: hundreds of authors
MAX_DOMAINS = 4  # of one message's authors; more than one is rare
MAX_ADDRESS = 1000  # characters of what may be an address
MAX_RECORD = 4096  # octets

# What a careless reader takes for the domain of an address.
_DOMAINS = re.compile(r'@([^\s@<>"(),;:\\\[\]\x00-\x1f\x7f]+)')

_VERSION = re.compile(rb"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_POLICIES = ("none", "quarantine", "reject")
_LOWER: Mapping[DmarcPolicy, DmarcPolicy] = {"reject": "quarantine", "quarantine": "none", "none": "none"}


@dataclass(frozen=True, slots=True)
class Author:
    """Who a message says that it is from. `problem` is why it has no single author whom it can be held to.

    `unread`: the author whom a person would see may be in what was not read.
    """

    domains: tuple[str, ...] = ()  # canonical, each once
    problem: str = ""
    unread: bool = False


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    policy: DmarcPolicy
    subdomain_policy: DmarcPolicy
    dkim_strict: bool = False
    spf_strict: bool = False
    percent: int = 100


@dataclass(frozen=True, slots=True)
class Policy:
    """What DNS has for a domain. No record, no trouble and no error: the domain has none."""

    record: DmarcRecord | None = None
    inherited: bool = False  # it is that of the organizational domain
    trouble: str = ""  # a look-up failed
    error: str = ""  # the record is wrong

    @property
    def asked_for(self) -> DmarcPolicy | None:
        if self.record is None:
            return None
        return self.record.subdomain_policy if self.inherited else self.record.policy


NO_POLICY = Policy()


# --- From -----------------------------------------------------------------------------------------


def read_author(values: Sequence[bytes]) -> Author:
    """From all From fields of a message. Never raises.

    What is no address is read as mail programs do that show it all the same: its author is held to every
    domain that it names.
    """
    domains: dict[str, None] = {}
    problem = "" if values else "there is no From"
    unread = len(values) > MAX_DOMAINS + 1
    for value in values[: MAX_DOMAINS + 1]:
        if len(value) > MAX_FROM:
            problem, unread = "From is too long", True
            value = value[:MAX_FROM].rpartition(b",")[0]
        text = unfold(value)
        addresses = [entry.address for entry in parse_address_list(text)] or [decode_words(text)]
        for address in addresses:
            named = _domains_of(address)
            if not named and "@" in address:
                problem = "an address in From has no domain"
            for name in named:
                domain = _domain(name)
                if domain:
                    domains[domain] = None
                else:
                    problem, unread = "an address in From has no domain that can be read", True
            if len(domains) > MAX_DOMAINS:
                return Author(tuple(domains)[:MAX_DOMAINS], "From has too many domains", unread=True)
    if not domains:
        problem = problem or "From has no address"
    elif len(values) > 1:
        problem = "there is more than one From"
    return Author(tuple(domains), problem, unread)


def _domains_of(address: str) -> list[str]:
    """The domain of an address, or what stands for one in a text that is none. Of a literal there is none."""
    try:
        domain = Address.parse(address).domain
    except AddressError:
        # A text that was cut has perhaps lost its end: not even that much is an address.
        return _DOMAINS.findall(address) if len(address) < MAX_ADDRESS else [address]
    return [] if domain[0] == "[" else [domain]


def _domain(text: str) -> str:
    """Canonical, "" if it is none. DNS has names with underscores, too, and a policy for those below it."""
    name = text.strip().removesuffix(".")
    try:
        return parse_domain(name)
    except AddressError:
        plain = name.replace("_", "x")
        return name.lower() if plain != name and name.isascii() and _domain(plain) else ""


# --- The record -----------------------------------------------------------------------------------


async def find_policy(lookups: Lookups, domain: str) -> Policy:
    """RFC 7489, 6.6.3: the domain's own record, or that of its organizational domain."""
    policy = await _policy_at(lookups, domain)
    above = organizational_domain(domain)
    if policy != NO_POLICY or above == domain:
        return policy
    policy = await _policy_at(lookups, above)
    return Policy(policy.record, True, policy.trouble, policy.error)


async def _policy_at(lookups: Lookups, domain: str) -> Policy:
    found = await lookups.txt(f"_dmarc.{ascii_domain(domain)}")
    if isinstance(found, DnsTrouble):
        return Policy(trouble=found.text)
    records = [text for text in found.records if _VERSION.match(text)] if isinstance(found, Answer) else []
    if not records:
        return NO_POLICY
    if len(records) > 1:
        return Policy(error=f"{domain} has {len(records)} DMARC records")
    try:
        return Policy(parse_dmarc(records[0]))
    except ValueError as exc:
        return Policy(error=f"{domain}: {exc}")


@lru_cache(maxsize=1024)
def parse_dmarc(record: bytes) -> DmarcRecord:
    """RFC 7489, 6.3. What is wrong in a tag other than p and sp leaves its default. Raises ValueError."""
    if len(record) > MAX_RECORD:
        raise ValueError(f"the DMARC record is longer than {MAX_RECORD} octets")
    tags: dict[str, str] = {}
    for part in record.decode("ascii", "replace").split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    policy = tags.get("p", "").lower()
    below = tags.get("sp", policy).lower()
    if policy not in _POLICIES or below not in _POLICIES:
        if not tags.get("rua"):  # 6.6.3, 6: with it, the record is as one that asks for reports only
            raise ValueError("the DMARC record has no policy that is known")
        policy = below = "none"
    percent = tags.get("pct", "")
    return DmarcRecord(
        policy=cast(DmarcPolicy, policy),
        subdomain_policy=cast(DmarcPolicy, below),
        dkim_strict=tags.get("adkim", "").lower() == "s",
        spf_strict=tags.get("aspf", "").lower() == "s",
        percent=min(int(percent), 100) if re.fullmatch(r"[0-9]{1,3}", percent) else 100,
    )


# --- The decision ---------------------------------------------------------------------------------


def decide(
    author: Author,
    policies: Mapping[str, Policy],
    spf: SpfCheck,
    dkim: Sequence[DkimCheck],
    sample: Callable[[], float],
) -> DmarcCheck:
    """`policies` by the author's domains; `sample` answers numbers from 0 to 1 (for pct).

    Of several domains the strictest counts, and a message with several From fields never passes. An author
    who was hidden from us is taken for one whose domain wants failures rejected.
    """
    if author.unread:
        return DmarcCheck(result="fail", disposition="reject", reason=author.problem)
    if not author.domains:
        return DmarcCheck(result="permerror", reason=author.problem)
    uncertain = _trouble(spf, dkim)
    checks = [_one(domain, policies[domain], spf, dkim, uncertain, sample) for domain in author.domains]
    worst = max(checks, key=_severity)
    if not author.problem:
        return worst
    asked = max((policies[domain].asked_for or "none" for domain in author.domains), key=_POLICIES.index)
    trouble = next((policy.trouble for policy in policies.values() if policy.trouble), "")
    if trouble and asked != "reject":
        return DmarcCheck(result="temperror", domain=worst.domain, reason=trouble)
    known = None if all(check.policy is None for check in checks) else asked
    return DmarcCheck(
        result="fail", domain=worst.domain, policy=known, disposition=asked, reason=author.problem
    )


def _one(
    domain: str,
    policy: Policy,
    spf: SpfCheck,
    dkim: Sequence[DkimCheck],
    uncertain: str,
    sample: Callable[[], float],
) -> DmarcCheck:
    record = policy.record
    # While the record is not known, only what would be aligned under any record is.
    strict_dkim = record.dkim_strict if record is not None else bool(policy.trouble)
    strict_spf = record.spf_strict if record is not None else bool(policy.trouble)
    aligned = (spf.result == "pass" and _aligned(spf.domain, domain, strict_spf)) or any(
        check.result == "pass" and _aligned(check.domain, domain, strict_dkim) for check in dkim
    )
    if record is None:
        result: Literal["none", "temperror", "permerror"] = "none"
        if policy.trouble or policy.error:
            result = "temperror" if policy.trouble else "permerror"
        return DmarcCheck(
            result=result, domain=domain, aligned=aligned, reason=policy.trouble or policy.error
        )
    asked = policy.asked_for
    if aligned or asked is None:
        return DmarcCheck(result="pass", domain=domain, policy=asked, aligned=True)
    return DmarcCheck(
        result="temperror" if uncertain else "fail",
        domain=domain,
        policy=asked,
        disposition=asked if sample() * 100 < record.percent else _LOWER[asked],
        reason=uncertain,
    )


def _aligned(authenticated: str, author: str, strict: bool) -> bool:
    """RFC 7489, 3.1."""
    authenticated = _domain(authenticated)
    if authenticated == author or strict or not authenticated:
        return authenticated == author
    return organizational_domain(authenticated) == organizational_domain(author)


def _trouble(spf: SpfCheck, dkim: Sequence[DkimCheck]) -> str:
    """Why the result may be another one later."""
    checks: list[SpfCheck | DkimCheck] = [spf, *dkim]
    for check in checks:
        if check.result == "temperror":
            return check.reason
    return ""


def _severity(check: DmarcCheck) -> tuple[int, bool, int]:
    """A message is validated only if all of its authors' domains are."""
    kind = ("pass", "none", "permerror", "temperror", "fail").index(check.result)
    return _POLICIES.index(check.disposition), not check.aligned, kind
