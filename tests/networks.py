"""What transports get of the gateway, for tests: DNS and policies as they are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from random import Random

from gateway.clock import Clock
from gateway.config.settings import DnsSettings
from gateway.net.dns import DnsTrouble, Resolver
from gateway.net.find_hosts import Policies
from gateway.net.mta_sts import StsAnswer
from gateway.net.network import Network
from gateway.net.shaping import Shaper

EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))  # examples' addresses are not public
NOBODY = DnsSettings(nameservers=("127.0.0.99",), port=9, timeout=0.2)


@dataclass
class KnownPolicies:
    """Answers instead of `MtaStsPolicies`, the same for each domain or its own."""

    answer: StsAnswer | DnsTrouble = field(default_factory=StsAnswer)
    of: dict[str, StsAnswer | DnsTrouble] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # domains

    async def find(self, domain: str, *, allow_networks: object = ()) -> StsAnswer | DnsTrouble:
        self.asked.append(domain)
        return self.of.get(domain, self.answer)


def a_network(
    dns: DnsSettings = NOBODY, policies: Policies | None = None, shaper: Shaper | None = None
) -> Network:
    """One whose choices at random are always the same."""
    return Network(
        resolver=Resolver(dns),
        policies=policies or KnownPolicies(),
        clock=Clock(),
        random=Random(1),
        shaper=shaper or Shaper(),
    )
