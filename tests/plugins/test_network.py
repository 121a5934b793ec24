"""With what transports share one can write another for direct delivery: verified, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway import Delivery, Outcome, Result, TransportType
from gateway.net.network import Network
from gateway.net.smtp_client import connect_smtp
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.net.tls_checks import with_tls
from gateway.net.tls_contexts import ClientContext, observing_context
from gateway.outbound.transports import make_transports, read_transports
from gateway.smtp.addresses import Mailbox
from gateway.smtp.transaction import Transaction
from tests.net.authority import root
from tests.networks import a_network
from tests.plugins.mx_hosts import MxHosts, issued, mx_hosts
from tests.plugins.smtp_servers import delivery

MX = "mx.example.org"


class OwnSettings(BaseModel):
    port: int
    ca_file: str


class Own:
    def __init__(self, settings: OwnSettings, network: Network) -> None:
        self.settings, self.network = settings, network
        self.context: ClientContext = observing_context(ca_file=settings.ca_file)

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        return [await self._deliver(delivery, number) for number in range(len(delivery.messages))]

    async def _deliver(self, delivery: Delivery, number: int) -> Outcome:
        recipient = delivery.messages[number].recipient
        plan = await self.network.find_hosts(
            recipient.domain,
            port=self.settings.port,
            families=(4,),
            allow_networks=[ip_network("127.0.0.0/8")],
        )
        if plan.failure is not None:
            return Outcome.temporary(plan.failure.text, enhanced=plan.failure.enhanced)
        host = plan.hosts[0]
        settings = ClientSettings(delivery.hostname, tls=TlsPolicy.REQUIRED, tls_context=self.context)
        async with await connect_smtp(
            str(host.addresses[0]), self.settings.port, settings, server_name=host.tls.server_name
        ) as connection:
            if connection.tls is None:
                return Outcome.temporary("no TLS")
            verdicts = with_tls(host.tls, connection.tls, self.network.clock.now())
            if not host.tls.verified or any(verdict.refuses for verdict in verdicts):
                return Outcome.temporary("not verified")
            to = Mailbox(recipient.localpart, recipient.ascii_domain)
            [answer] = await connection.deliver(Transaction(None, (to,)), delivery.content.chunks())
            kind = Result.DELIVERED if answer.accepted else Result.TEMPORARY
            return Outcome(result=kind, code=answer.code or 0, error="" if answer.accepted else answer.text)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX)
        hosts.address(MX, "127.0.0.2")
        yield hosts


@pytest.mark.parametrize(
    ("kind", "policy", "error"),
    [("good", True, ""), ("good", False, "not verified"), ("expired", True, "not verified")],
)
async def test_a_transport_of_ones_own(
    hosts: MxHosts, tmp_path: Path, kind: str, policy: bool, error: str
) -> None:
    if policy:
        hosts.policy("example.org", MX)
    server = await hosts.server("127.0.0.2", tls=issued(kind, MX))
    (tmp_path / "ca.pem").write_bytes(root().pem)
    types = {"own": TransportType(OwnSettings, lambda _name, settings, network: Own(settings, network))}
    table = {"type": "own", "port": hosts.port, "ca_file": str(tmp_path / "ca.pem")}
    network = a_network(hosts.dns.settings(), hosts.policies)
    own = make_transports(read_transports({"own": table}, types, tmp_path), network)["own"]
    [outcome, nowhere] = await own.deliver(delivery("b@example.org", "b@nowhere.example"))
    assert outcome.error == error
    assert len(server.transactions) == (error == "")
    assert nowhere.error == "there is no domain nowhere.example"
