"""Which hosts a message for a domain goes to, in which order, and what TLS each needs. Pure.

`decide` is the one place where answers of DNS, MTA-STS (RFC 8461), DANE (RFC 7672), REQUIRETLS and
TLS-Required: No (RFC 8689) come together. `find_hosts` asks the questions that it needs answered:

    MX, policy → `candidates` → addresses → `tlsa_bases` → TLSA → `decide`

Two rules: what is not known is temporary, never a way around a policy; and what a policy asks for is asked of
each host by itself, so that one host may be refused and the next one taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from random import Random
from typing import TypeGuard, TypeVar

from gateway.net import dane
from gateway.net.addresses import Network, allowed
from gateway.net.dns import Answer, DnsTrouble, NoRecords, Reply, Tlsa
from gateway.net.mta_sts import Policy, StsAnswer, ascii_host
from gateway.net.plan import (
    Check,
    Failure,
    Families,
    Host,
    HostAnswers,
    IpAddress,
    Plan,
    Question,
    Skipped,
    TlsNeed,
)
from gateway.net.tls_results import TlsFault

MAX_HOSTS = 16  # of a domain, for one attempt: the next one begins with those that were not dialled yet
MAX_NAMES = 64  # of a domain: no attempt asks about more. What it dialled of so many is remembered
MAX_ADDRESSES = 10  # of a host

_A = TypeVar("_A", IPv4Address, IPv6Address)


def decide(
    question: Question,
    *,
    random: Random,
    families: Families = (6, 4),
    allow_networks: Sequence[Network] = (),
    dialed: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan for a domain. `families` are IP versions that may be used, the preferred one first; addresses
    that are not public may be used in `allow_networks`; `dialed` has the addresses of each host that earlier
    attempts tried, in that order; `random` orders addresses."""
    dialed = dialed or {}
    usable = _Usable(families, allow_networks)
    failure = _failure_of_domain(question)
    if failure is not None:
        return Plan(failure=failure)
    if question.domain.startswith("["):
        return _plan_for_literal(question, usable)
    hosts: list[Host] = []
    skipped: list[Skipped] = []
    policy = _enforced(question)
    if policy is not None:
        refused = [name for name in _names(question) if not policy.matches(name)]
        skipped += [_refused_by_policy(question.domain, name, policy) for name in refused[:MAX_HOSTS]]
    for answers in question.hosts:
        if len(hosts) == MAX_HOSTS:
            break
        found = _host(question, answers, random, usable, dialed.get(answers.name, ()))
        if isinstance(found, Host):
            hosts.append(found)
        else:
            skipped.append(found)
    return Plan(
        hosts=tuple(hosts),
        skipped=tuple(skipped),
        failure=None if hosts else _failure_of_all(skipped),
        require_tls=question.require_tls is True,
        policy_fault=question.sts.fault if isinstance(question.sts, StsAnswer) else None,
        only=not skipped and _without_chance(question, hosts),
    )


def candidates(
    question: Question, random: Random, dialed: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """The hosts whose addresses are wanted, in the order of preference, shuffled where that is the same
    (RFC 5321, section 5.1). Without those that an enforced policy refuses; at most MAX_NAMES.

    `dialed` as in `decide`. Of more hosts than one attempt tries, those come first that were dialled least:
    else the same ones would have all attempts, and the others none. Of fewer, each has its turn in any
    attempt, and the preferred ones stay the first.
    """
    if question.domain.startswith("[") or _failure_of_domain(question) is not None:
        return ()
    policy = _enforced(question)
    names = [name for name in _names(question, random) if policy is None or policy.matches(name)]
    names = names[:MAX_NAMES]
    if dialed and len(names) > MAX_HOSTS:
        names.sort(key=lambda name: len(dialed.get(name, ())))
    return tuple(names)


def tlsa_bases(question: Question, host: HostAnswers) -> tuple[str, ...]:
    """The names to look for TLSA records at, in this order (RFC 7672, sections 2.2.1 to 2.2.3). None unless
    all that led to the host is authentic: an attacker who can forge it needs no certificate."""
    if not _mx_authentic(question):
        return ()
    replies = [reply for reply in (host.ipv4, host.ipv6) if isinstance(reply, Answer | NoRecords)]
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    if not answers:
        return ()
    if all(reply.authentic for reply in replies):
        return tuple(dict.fromkeys((answers[0].canonical or host.name, host.name)))
    return (host.name,) if isinstance(host.alias, Answer) and host.alias.authentic else ()


def alias_matters(question: Question, host: HostAnswers) -> bool:
    """Whether `alias` is to be asked for: the host is one, and what it leads to is not authentic."""
    replies = (host.ipv4, host.ipv6)
    is_alias = any(isinstance(r, Answer) and r.canonical not in ("", host.name) for r in replies)
    return is_alias and _mx_authentic(question) and not tlsa_bases(question, host)


def is_conclusive(reply: Reply[Tlsa] | None) -> TypeGuard[Answer[Tlsa] | DnsTrouble]:
    """Whether it settles the matter, so that the next base need not be asked."""
    return isinstance(reply, DnsTrouble) or (isinstance(reply, Answer) and reply.authentic)


# --- The domain -------------------------------------------------------------------------------------


def _failure_of_domain(question: Question) -> Failure | None:
    domain, mx = question.domain, question.mx
    if isinstance(mx, DnsTrouble):
        return Failure(permanent=False, enhanced="4.4.3", text=mx.text)
    if isinstance(mx, NoRecords) and mx.nxdomain:
        return Failure(permanent=True, enhanced="5.1.2", text=f"there is no domain {domain}")
    if isinstance(mx, Answer) and all(record.host == "." for record in mx.records):
        return Failure(permanent=True, enhanced="5.1.10", text=f"{domain} takes no mail (it has a null MX)")
    if isinstance(question.sts, DnsTrouble) and question.require_tls is not False:
        return Failure(permanent=False, enhanced="4.4.3", text=question.sts.text)
    return None


def _names(question: Question, random: Random | None = None) -> list[str]:
    """The domain's hosts in order; without MX records it is its own (RFC 5321, section 5.1)."""
    if not isinstance(question.mx, Answer):
        return [question.domain]
    records = list(question.mx.records)
    if random is not None:
        random.shuffle(records)
    records.sort(key=lambda record: record.preference)
    return list(dict.fromkeys(record.host for record in records if record.host != "."))


def _mx_authentic(question: Question) -> bool:
    return not isinstance(question.mx, DnsTrouble) and question.mx.authentic


def _active(question: Question) -> Policy | None:
    policy = question.sts.policy if isinstance(question.sts, StsAnswer) else None
    return policy if policy is not None and policy.active else None


def _enforced(question: Question) -> Policy | None:
    policy = _active(question)
    enforced = policy is not None and policy.mode == "enforce" and question.require_tls is not False
    return policy if enforced else None


@dataclass(frozen=True, slots=True)
class _Usable:
    """Which addresses may be used."""

    families: Families
    networks: Sequence[Network]  # whose addresses may be used though they are not public

    def of(self, reply: Reply[_A] | None) -> tuple[_A, ...]:
        found = reply.records if isinstance(reply, Answer) else ()
        return tuple(ip for ip in found if ip.version in self.families and allowed(ip, self.networks))


def _plan_for_literal(question: Question, usable: _Usable) -> Plan:
    """No name, so no policy: TLS if it is offered."""
    literal = question.domain
    address = ip_address(literal[1:-1].removeprefix("IPv6:"))
    failure: Failure | None = None
    if question.require_tls:
        failure = _not_verified(literal)
    elif address.version not in usable.families:
        failure = Failure(
            permanent=False, enhanced="4.4.4", text=f"{literal}: IPv{address.version} is not in use here"
        )
    elif not allowed(address, usable.networks):
        failure = _not_public(literal, [address])
    if failure is not None:
        return Plan(failure=failure, require_tls=bool(question.require_tls))
    none = Check(type="no-policy-found", domain=literal)
    need = TlsNeed(required=False, server_name="", checks=(none,))
    return Plan(hosts=(Host(name=literal, addresses=(address,), dual_stack=False, tls=need),))


def _without_chance(question: Question, hosts: Sequence[Host]) -> bool:
    """Whether no host has the preference of another, and none has two addresses of a family."""
    preferences = [mx.preference for mx in question.mx.records] if isinstance(question.mx, Answer) else []
    versions = [[address.version for address in host.addresses] for host in hosts]
    lists: list[Sequence[int]] = [preferences, *versions]
    return all(len(set(one)) == len(one) for one in lists)


def _failure_of_all(skipped: Iterable[Skipped]) -> Failure:
    """That of the domain whose hosts were all skipped: temporary, if one may be there later."""
    failures = [one.failure for one in skipped]
    temporary = [failure for failure in failures if not failure.permanent]
    return (temporary or failures)[0]


# --- One host ---------------------------------------------------------------------------------------


def _host(
    question: Question, answers: HostAnswers, random: Random, usable: _Usable, dialed: Sequence[str]
) -> Host | Skipped:
    name = answers.name
    ipv4, ipv6 = usable.of(answers.ipv4), usable.of(answers.ipv6)
    if not ipv4 and not ipv6:
        return Skipped(name=name, failure=_no_address(question.domain, answers, usable.families))
    base, tlsa = _tlsa(question, answers)
    if isinstance(tlsa, DnsTrouble) and question.require_tls is not False:
        fault = TlsFault("dnssec-invalid", tlsa.text)
        return Skipped(
            name=name,
            failure=Failure(permanent=False, enhanced="4.4.3", text=tlsa.text),
            check=Check(type="tlsa", domain=base, enforced=True, fault=fault),
        )
    need = _need(question, name, base, tlsa.records if isinstance(tlsa, Answer) else ())
    if question.require_tls and not need.verified:
        return Skipped(name=name, failure=_not_verified(name))
    return Host(
        name=name,
        addresses=_dial_order(ipv4, ipv6, usable.families, dialed, random),
        dual_stack=bool(ipv4 and ipv6),
        tls=need,
    )


def _tlsa(question: Question, host: HostAnswers) -> tuple[str, Answer[Tlsa] | DnsTrouble | None]:
    """The authentic TLSA records and where they are, or why it is not known whether there are any."""
    if isinstance(host.alias, DnsTrouble) and alias_matters(question, host):
        return host.name, host.alias
    asked = dict(host.tlsa)
    for base in tlsa_bases(question, host):
        reply = asked.get(base)
        if is_conclusive(reply):
            return base, reply
    return "", None


def _need(question: Question, name: str, base: str, records: tuple[Tlsa, ...]) -> TlsNeed:
    """`records`: authentic TLSA records, found at `base`."""
    binding = question.require_tls is not False
    server_name = ascii_host(name) or name
    checks: list[Check] = []
    required = False
    if records:
        # Records that nobody can use still say that there is TLS (RFC 7672, section 2.2).
        required = True
        usable = dane.usable(records)
        unusable = TlsFault("tlsa-invalid", f"no TLSA record of {base} can be used")
        check = Check(
            type="tlsa",
            domain=base,
            enforced=binding and bool(usable),
            names=_names_for_dane(question, base),
            tlsa=usable,
            fault=None if usable else unusable,
            strings=tuple(str(record) for record in records),
        )
        checks.append(check)
        if usable:
            server_name = ascii_host(base) or base
    policy = _active(question)
    if policy is not None:
        enforced = _enforced(question) is not None
        required = required or enforced
        checks.append(_sts_check(question.domain, name, policy, enforced=enforced))
    if not checks:
        checks.append(Check(type="no-policy-found", domain=question.domain))
    return TlsNeed(required=required and binding, server_name=server_name, checks=tuple(checks))


def _names_for_dane(question: Question, base: str) -> tuple[str, ...]:
    """Of a certificate that an authority in DNS vouches for (RFC 7672, section 3.2.2)."""
    led_to = question.mx.canonical if isinstance(question.mx, Answer) else ""
    names = [ascii_host(name) for name in (base, question.domain, led_to) if name]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _sts_check(domain: str, name: str, policy: Policy, *, enforced: bool) -> Check:
    fault = None
    if not policy.matches(name):
        fault = TlsFault(
            "validation-failure", f"{name} is none of the hosts in the MTA-STS policy of {domain}"
        )
    return Check(
        type="sts",
        domain=domain,
        enforced=enforced,
        names=(ascii_host(name) or name,),
        fault=fault,
        strings=policy.lines,
        mx=policy.mx,
    )


def _refused_by_policy(domain: str, name: str, policy: Policy) -> Skipped:
    check = _sts_check(domain, name, policy, enforced=True)
    assert check.fault is not None
    failure = Failure(permanent=False, enhanced="4.7.5", text=check.fault.text)
    return Skipped(name=name, failure=failure, check=check)


def _not_verified(name: str) -> Failure:
    text = f"the message requires verified TLS, but no DANE or enforced MTA-STS policy is there for {name}"
    return Failure(permanent=True, enhanced="5.7.30", text=text)


def _no_address(domain: str, answers: HostAnswers, families: Families) -> Failure:
    for reply in (answers.ipv6, answers.ipv4):
        if isinstance(reply, DnsTrouble):
            return Failure(permanent=False, enhanced="4.4.3", text=reply.text)
    found = [
        address
        for reply in (answers.ipv6, answers.ipv4)
        if isinstance(reply, Answer)
        for address in reply.records
        if address.version in families
    ]
    if found:
        return _not_public(answers.name, found)
    kind = f"IPv{families[0]} address" if len(families) == 1 else "address"
    whose = "" if answers.name == domain else f", a mail server of {domain},"
    return Failure(permanent=False, enhanced="4.4.4", text=f"{answers.name}{whose} has no {kind}")


def _not_public(name: str, addresses: Sequence[IpAddress]) -> Failure:
    """For good: so owners say that they take no mail, and so would somebody reach into our network."""
    text = f"{name} has no public address, only {', '.join(map(str, addresses[:3]))}"
    return Failure(permanent=True, enhanced="5.4.4", text=text)


def _dial_order(
    ipv4: Sequence[IPv4Address],
    ipv6: Sequence[IPv6Address],
    families: Families,
    dialed: Sequence[str],
    random: Random,
) -> tuple[IpAddress, ...]:
    """Those dialled least first, as something may be wrong with one address only; among these by turns of the
    families, beginning with the other one than the last time."""
    order = list(families)
    if dialed and order[0] == (6 if ":" in dialed[-1] else 4):
        order.reverse()
    shuffled: list[IpAddress] = [*ipv4, *ipv6]
    random.shuffle(shuffled)
    by_times: dict[int, list[IpAddress]] = {}
    for address in shuffled:
        by_times.setdefault(dialed.count(str(address)) if dialed else 0, []).append(address)
    found: list[IpAddress] = []
    for times in sorted(by_times):
        turns = ([a for a in by_times[times] if a.version == family] for family in order)
        found += [address for address in chain.from_iterable(zip_longest(*turns)) if address is not None]
    return tuple(found[:MAX_ADDRESSES])
