"""What transports share: one resolver with its cache, policies of recipient domains, limits, and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom

from gateway.clock import Clock
from gateway.net import addresses
from gateway.net.dns import Resolver
from gateway.net.find_hosts import Policies, find_hosts
from gateway.net.plan import Families, Plan
from gateway.net.shaping import Shaper
from gateway.recent import Recent

PLAN_KEPT = 2.0  # seconds; answers may be kept for whole ones
MAX_PLANS = 2000  # a few megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Made once, and given to every transport when that is made."""

    resolver: Resolver
    policies: Policies  # MTA-STS
    clock: Clock
    random: Random = field(default_factory=SystemRandom)  # for the order of hosts and addresses
    shaper: Shaper = field(default_factory=Shaper)  # limits for each destination
    _plans: Recent[Plan] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plans = Recent[Plan](self.clock.monotonic, MAX_PLANS, seconds=PLAN_KEPT)
        object.__setattr__(self, "_plans", plans)

    async def find_hosts(
        self,
        domain: str,
        *,
        port: int = 25,
        require_tls: bool | None = None,
        families: Families = (6, 4),
        allow_networks: Sequence[addresses.Network] = (),
        dialed: Mapping[str, Sequence[str]] | None = None,
    ) -> Plan:
        """Where mail for a domain goes, in which order, and what TLS each host needs: `net.find_hosts`.

        The only plan there is, made of what DNS lets us keep, is kept for a moment.

        Raises StoreError when kept policies cannot be read.
        """
        key = (domain, port, require_tls, tuple(families), tuple(allow_networks))
        kept = None if dialed else self._plans.get(key)
        if kept is not None:
            return kept
        asked = self.resolver.asked
        plan = await find_hosts(
            self.resolver,
            self.policies,
            domain,
            random=self.random,
            port=port,
            require_tls=require_tls,
            families=families,
            allow_networks=allow_networks,
            dialed=dialed,
        )
        if plan.only and not dialed and self.resolver.asked == asked:
            self._plans.keep(key, plan)
        return plan
