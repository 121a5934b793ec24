"""MTA-STS (RFC 8461) from the TXT record to the delivery: a gateway that delivers directly, and the policy of
the recipients' domain over HTTPS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.net.mta_sts_policies import MtaStsPolicies
from gateway.store import tls_results
from tests.net.authority import new_root, root
from tests.net.policy_server import HOST, PolicyServer
from tests.plugins.mx_hosts import MxHosts, issued, mx_hosts
from tests.running import Receiver, Running, running

MX, OTHER = "mx.example.org", "other.example.org"
RECORD = "_mta-sts.example.org", "TXT"


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX)
        hosts.address(MX, "127.0.0.2")
        hosts.address(OTHER, "127.0.0.3")
        hosts.dns.add(*RECORD, '"v=STSv1; id=1;"', ttl=0)
        hosts.address(HOST, "127.0.0.4")
        yield hosts


@pytest.fixture
async def web(hosts: MxHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyServer:
    """Enforces that mail for example.org goes to MX. This system knows the tests' authority."""
    web = PolicyServer()
    await web.listen(hosts.nursery, "127.0.0.4")
    # A port for which nobody has to be root; all else is what the gateway has by itself.
    monkeypatch.setattr("gateway.app.MtaStsPolicies", partial(MtaStsPolicies, port=web.port))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    return web


@asynccontextmanager
async def directly(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, clock: ManualClock | None = None
) -> AsyncIterator[Running]:
    def change(raw: dict[str, Any]) -> None:
        raw.pop("routes", None)
        raw["transports"]["direct"] = hosts.table()
        raw["dns"] = {"nameservers": ["127.0.0.1"], "port": hosts.dns.port, "timeout": 1.0}

    async with running(
        tmp_path / "gateway", webhooks, change=change, clock=clock or ManualClock()
    ) as gateway:
        yield gateway


async def outcome(gateway: Running, event: str) -> tuple[str, str, str, str]:
    """Of a message that is sent now: how it stands after the first attempt, and what is kept of it."""
    [submission] = (await gateway.send())["Submissions"]
    number = submission["QueueMsgID"]
    await gateway.webhooks.event(event, QueueMsgID=number)
    _, [attempt] = await gateway.message(number)
    return attempt.enhanced, attempt.remote_mta, attempt.tls, attempt.error


async def counted(gateway: Running, clock: ManualClock) -> set[tuple[str, str, str]]:
    """What a TLS report would say."""
    day = tls_results.day_of(clock.now())
    rows = await gateway.gateway.store.read(lambda conn: tls_results.of_day(conn, day, "example.org"))
    return {(row.policy_type, row.mx_host, row.result) for row in rows}


DELIVERED = "2.0.0", MX, "TLSv1.3, verified by MTA-STS", ""


async def test_a_host_of_the_policy(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer
) -> None:
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    clock = ManualClock()
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        assert await outcome(gateway, "delivered") == DELIVERED
        assert await outcome(gateway, "delivered") == DELIVERED
        assert await counted(gateway, clock) == {("sts", MX, "")}
    assert len(server.transactions) == 2
    assert len(web.requests) == 1


async def test_a_host_outside_the_policy(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer
) -> None:
    """It has no connection, though its certificate is good and MX prefer it."""
    outside = await hosts.server("127.0.0.3", tls=issued("good", OTHER))
    inside = await hosts.server("127.0.0.2", tls=issued("good", MX))
    clock = ManualClock()
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        hosts.domain("example.org", OTHER, MX)
        assert await outcome(gateway, "delivered") == DELIVERED
    hosts.domain("example.org", OTHER)
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        enhanced, _, _, error = await outcome(gateway, "delayed")
        assert enhanced == "4.7.5"
        assert "MTA-STS" in error
        assert ("sts", OTHER, "validation-failure") in await counted(gateway, clock)
    assert len(inside.transactions) == 1
    assert outside.sessions == {}


@pytest.mark.parametrize("kind", ["expired", "wrong name", "self-signed", "no TLS"])
async def test_a_host_that_proves_nothing(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer, kind: str
) -> None:
    server = await hosts.server("127.0.0.2", tls=None if kind == "no TLS" else issued(kind, MX))
    async with directly(tmp_path, webhooks, hosts) as gateway:
        enhanced, host, _, error = await outcome(gateway, "delayed")
    assert (enhanced, host) == ("4.7.5", MX)
    assert error.startswith(f"{MX}: ")
    assert server.transactions == []


async def test_what_is_only_tested_is_told(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer
) -> None:
    await hosts.server("127.0.0.2", tls=issued("self-signed", MX))
    web.page = web.page.replace(b"enforce", b"testing")
    clock = ManualClock()
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        assert await outcome(gateway, "delivered") == ("2.0.0", MX, "TLSv1.3, not verified", "")
        assert await counted(gateway, clock) == {("sts", MX, "certificate-not-trusted")}


async def test_a_policy_of_a_server_that_proves_nothing_is_none(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer
) -> None:
    await hosts.server("127.0.0.2", tls=issued("self-signed", MX))
    web.certificate = new_root(HOST)
    clock = ManualClock()
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        assert await outcome(gateway, "delivered") == ("2.0.0", MX, "TLSv1.3, not verified", "")
        assert ("sts", "", "sts-webpki-invalid") in await counted(gateway, clock)
    assert web.requests == []


async def test_a_policy_outlives_the_gateway_its_web_server_and_its_record(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, web: PolicyServer
) -> None:
    """For as long as it allows: then the domain has none."""
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    clock = ManualClock()
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        assert await outcome(gateway, "delivered") == DELIVERED
    web.answer = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"
    hosts.dns.remove(*RECORD)
    hosts.domain("example.org", OTHER, MX)
    outside = await hosts.server("127.0.0.3", tls=issued("good", OTHER))
    async with directly(tmp_path, webhooks, hosts, clock) as gateway:
        assert await outcome(gateway, "delivered") == DELIVERED
        clock.advance(86400 + 1)
        assert (await outcome(gateway, "delivered"))[1:3] == (OTHER, "TLSv1.3, not verified")
    assert len(web.requests) == 1
    assert (len(server.transactions), len(outside.transactions)) == (2, 1)
