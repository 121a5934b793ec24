"""Delivery to the hosts of a recipient's domain, as DNS and policies have them.

Which hosts these are, in which order, and what TLS each needs, is decided elsewhere (`Network.find_hosts`).
Here they are tried in turn: what a server says for good ends the attempt, anything else leads to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from gateway import Delivery, GatewayError, Network, Outcome, Result
from gateway.net.plan import Failure, Host, IpAddress
from gateway.net.smtp_client_settings import ClientSettings, Dial, TlsPolicy
from gateway.net.tls_contexts import ClientContext, observing_context
from gateway_smtp.connections import Connections
from gateway_smtp.handover import hand_over, in_time
from gateway_smtp.mx_server import MxServer, Record, connection_key
from gateway_smtp.mx_settings import MxSettings

MAX_DIALS = 20  # connections that an attempt tries: the next attempt may draw other hosts

NOBODY_HAS_REQUIRETLS = (
    "the message requires TLS on all of its way, and no server of the domain offers REQUIRETLS"
)


class MxTransport:
    """Delivers to the hosts of a domain; `dial` connects to an address, `hostname` replaces the gateway's."""

    def __init__(
        self, name: str, settings: MxSettings, network: Network, dial: Dial, hostname: str = ""
    ) -> None:
        self._name, self._settings, self._network = name, settings, network
        self._dial, self._hostname = dial, hostname
        self._connections = Connections(settings.keep)
        self._client_settings: dict[str, ClientSettings] = {}  # by hostname

    async def serve(self) -> None:
        await self._connections.serve()

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        record = Record()
        domains: dict[str, list[int]] = {}
        for number, message in enumerate(delivery.messages):
            domains.setdefault(message.recipient.domain, []).append(number)

        async def deliver(found: dict[int, Outcome]) -> None:
            for domain, numbers in domains.items():
                await self._to_domain(delivery, domain, numbers, found, record)

        return record.attach(await in_time(self._name, delivery, deliver))

    async def _to_domain(
        self,
        delivery: Delivery,
        domain: str,
        numbers: Sequence[int],
        found: dict[int, Outcome],
        record: Record,
    ) -> None:
        try:
            plan = await self._network.find_hosts(
                domain,
                port=self._settings.port,
                require_tls=delivery.messages[numbers[0]].require_tls,
                families=self._settings.versions,
                allow_networks=self._settings.allow_networks,
                dialed=delivery.dialed,
            )
        except GatewayError as exc:
            found.update(dict.fromkeys(numbers, Outcome.temporary(f"hosts of {domain}: {exc}")))
            return
        record.plan(domain, plan)
        if plan.failure is not None:
            found.update(dict.fromkeys(numbers, _failed(plan.failure)))
            return
        left = list(numbers)
        all_lack_require_tls = plan.require_tls and all(one.failure.permanent for one in plan.skipped)
        for host in plan.hosts:
            servers = [
                self._server(delivery, domain, host, address, plan.require_tls, record)
                for address in self._addresses(delivery, host)
            ]
            left = await self._to_host(delivery, host, servers, left, found, record)
            if not left:
                return
            all_lack_require_tls = all_lack_require_tls and any(one.lacks_require_tls for one in servers)
        if all_lack_require_tls:
            for number in left:
                found[number] = replace(
                    found[number], result=Result.PERMANENT, error=NOBODY_HAS_REQUIRETLS, enhanced="5.7.30"
                )

    async def _to_host(
        self,
        delivery: Delivery,
        host: Host,
        servers: Sequence[MxServer],
        left: list[int],
        found: dict[int, Outcome],
        record: Record,
    ) -> list[int]:
        """Those that the next host may be asked to take."""
        other_family = 0  # once one has refused us: the IP version that is to be tried as well
        for server in servers:
            if record.dials >= MAX_DIALS or (other_family and server.address.version != other_family):
                continue
            first_time = not delivery.dialed.get(host.name) and host.name not in record.dialed
            before = dict(found)
            again = await hand_over(server, delivery, left, found)
            for number in again:
                found[number] = _telling(before.get(number), found[number])
            if first_time and host.dual_stack:
                blocked = [n for n in left if _is_blocked(found[n])]
                found.update({n: replace(found[n], result=Result.TEMPORARY) for n in blocked})
                again = [n for n in left if n in blocked or n in again]
                if blocked:
                    other_family = 4 if server.address.version == 6 else 6
            left = again
            if not left or not (server.unusable or other_family):
                break
        return left

    def _server(
        self,
        delivery: Delivery,
        domain: str,
        host: Host,
        address: IpAddress,
        require_tls: bool,
        record: Record,
    ) -> MxServer:
        return MxServer(
            transport=self._name,
            domain=domain,
            target=host,
            address=address,
            port=self._settings.port,
            require_tls=require_tls,
            settings=self._settings_of_client(self._hostname or delivery.hostname),
            dial=self._dial,
            connections=self._connections,
            shaper=self._network.shaper,
            clock=self._network.clock,
            record=record,
        )

    def _settings_of_client(self, hostname: str) -> ClientSettings:
        settings = self._client_settings.get(hostname)
        if settings is None:
            settings = self._client_settings[hostname] = ClientSettings(
                hostname,
                tls=TlsPolicy.OPPORTUNISTIC,
                tls_context=self._context,
                chunking=self._settings.chunking,
                connect_timeout=self._settings.connect_timeout,
                tls_timeout=self._settings.tls_timeout,
            )
        return settings

    def _addresses(self, delivery: Delivery, host: Host) -> Sequence[IpAddress]:
        """In the order to try. At first those that there are connections to: opening one takes longer."""
        if delivery.dialed.get(host.name):
            return host.addresses
        name = self._hostname or delivery.hostname
        return sorted(
            host.addresses,
            key=lambda address: not self._connections.has(connection_key(name, host, address)),
        )

    @cached_property
    def _context(self) -> ClientContext:
        """Reading the authorities takes a while, and nobody may ever deliver this way."""
        ca_file = self._settings.ca_file
        return observing_context(ca_file=None if ca_file is None else str(ca_file))


def _failed(failure: Failure) -> Outcome:
    make = Outcome.permanent if failure.permanent else Outcome.temporary
    return make(failure.text, enhanced=failure.enhanced)


def _is_blocked(outcome: Outcome) -> bool:
    """A refusal that may be of our address, and not of the message."""
    return outcome.result is Result.PERMANENT and outcome.code >= 500 and outcome.enhanced.startswith("5.7.")


def _telling(before: Outcome | None, after: Outcome) -> Outcome:
    """Of two temporary outcomes the later one; but what a server said rather than that one was away."""
    if before is None:
        return after
    return before if before.code and not after.code else replace(after, counts=before.counts or after.counts)
