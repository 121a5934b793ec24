"""Asks DNS, and for the domain's policy, what `hosts.decide` decides from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol

import trio

from gateway.net.addresses import Network
from gateway.net.dns import DnsTrouble, Reply, Resolver, Tlsa
from gateway.net.hosts import MAX_HOSTS, alias_matters, candidates, decide, is_conclusive, tlsa_bases
from gateway.net.mta_sts import StsAnswer
from gateway.net.plan import Families, HostAnswers, Plan, Question


class Policies(Protocol):
    """`mta_sts_policies.MtaStsPolicies`."""

    async def find(
        self, domain: str, *, allow_networks: Sequence[Network] = ()
    ) -> StsAnswer | DnsTrouble: ...


async def find_hosts(
    resolver: Resolver,
    policies: Policies,
    domain: str,
    *,
    random: Random,
    port: int = 25,
    require_tls: bool | None = None,
    families: Families = (6, 4),
    allow_networks: Sequence[Network] = (),
    dialed: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan for a recipient domain (in Unicode, or an address literal in its brackets).

    `port` is that of the TLSA records; the rest as in `decide`. Raises StoreError, of `policies`.
    """
    if domain.startswith("["):
        question = Question(domain=domain, require_tls=require_tls)
    else:
        question = Question(
            domain=domain,
            require_tls=require_tls,
            mx=await resolver.mx(domain),
            sts=await policies.find(domain, allow_networks=allow_networks),
        )
    names = candidates(question, random, dialed)
    while True:
        known = len(question.hosts)
        more = await _about_hosts(resolver, question, names[known : known + MAX_HOSTS], port, families)
        question = replace(question, hosts=question.hosts + more)
        plan = decide(
            question, random=random, families=families, allow_networks=allow_networks, dialed=dialed
        )
        # Those that cannot be tried, as they have no address, take nobody's place.
        if len(plan.hosts) == MAX_HOSTS or len(question.hosts) == len(names):
            return plan


async def _about_hosts(
    resolver: Resolver, question: Question, names: Sequence[str], port: int, families: Families
) -> tuple[HostAnswers, ...]:
    """All at once."""
    found: dict[str, HostAnswers] = {}

    async def ask(name: str) -> None:
        found[name] = await _about_host(resolver, question, name, port, families)

    if len(names) == 1:
        await ask(*names)
    elif names:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
    return tuple(found[name] for name in names)


async def _about_host(
    resolver: Resolver, question: Question, name: str, port: int, families: Families
) -> HostAnswers:
    host = HostAnswers(
        name=name,
        ipv4=await resolver.ipv4(name) if 4 in families else None,
        ipv6=await resolver.ipv6(name) if 6 in families else None,
    )
    bases = tlsa_bases(question, host)
    if alias_matters(question, host):
        host = replace(host, alias=await resolver.cname(name))
        bases = tlsa_bases(question, host)
    asked: list[tuple[str, Reply[Tlsa]]] = []
    for base in bases:
        reply = await resolver.tlsa(base, port)
        asked.append((base, reply))
        if is_conclusive(reply):
            break
    return replace(host, tlsa=tuple(asked)) if asked else host
