"""A gateway that delivers directly: hosts on loopback, in a DNS of the tests' own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Route, hookimpl
from gateway.clock import ManualClock
from gateway.errors import NotConfigured
from gateway.store import tls_results
from gateway.store.listing import Filter
from tests.cli.asking import ok
from tests.plugins.mx_hosts import MxHosts, issued, mx_hosts, smtp, that
from tests.running import Receiver, running, with_plugins

MX = "mx.example.org"


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX, secure=True)
        hosts.address(MX, "127.0.0.2", secure=True)
        yield hosts


def directly(hosts: MxHosts) -> Any:
    def change(raw: dict[str, Any]) -> None:
        del raw["routes"]
        raw["transports"]["direct"] = hosts.table()
        raw["dns"] = dns(hosts)

    return change


def dns(hosts: MxHosts) -> dict[str, Any]:
    return {"nameservers": ["127.0.0.1"], "port": hosts.dns.port, "validating": True}


async def test_a_domain_whose_servers_are_in_our_own_network_gets_nothing(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts
) -> None:
    server = await hosts.server("127.0.0.2")

    def change(raw: dict[str, Any]) -> None:
        directly(hosts)(raw)
        del raw["transports"]["direct"]["allow_networks"]

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send(To=[{"Address": "user@example.org"}, {"Address": "user@[127.0.0.2]"}])
        for _ in range(2):
            told = await webhooks.event("failed")
            assert (told["SMTPEnhancedCode"], told["SMTPCode"]) == ("5.4.4", 0)
            assert "has no public address, only 127.0.0.2" in told["Error"]
            assert not told["Suppressing"]
    assert not server.transactions


async def test_what_no_route_matches_goes_directly(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts
) -> None:
    certificate = issued("self-signed", MX)
    hosts.tlsa(MX, certificate)
    server = await hosts.server("127.0.0.2", tls=certificate)
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=directly(hosts), clock=clock) as gateway:
        sent = await gateway.send()
        await webhooks.event("delivered")
        [submission] = sent["Submissions"]
        _, [attempt] = await gateway.message(submission["QueueMsgID"])
        assert (attempt.transport, attempt.remote_mta, attempt.remote_ip, attempt.tls) == (
            "direct",
            MX,
            "127.0.0.2",
            "TLSv1.3, verified by DANE",
        )
        shown = await ok(gateway, "queue", "show", submission["QueueMsgID"])
        assert f"transport direct, remote {MX}[127.0.0.2], TLSv1.3, verified by DANE\n" in shown
        day = tls_results.day_of(clock.now())
        [row] = await gateway.gateway.store.read(lambda conn: tls_results.of_day(conn, day, "example.org"))
        assert (row.policy_type, row.policy_domain, row.mx_host, row.result) == ("tlsa", MX, MX, "")
        assert row.sessions == 1

        await gateway.send("user@nowhere.example")
        told = await webhooks.event("failed")
        assert (told["Error"], told["SMTPCode"], told["SMTPEnhancedCode"]) == (
            "there is no domain nowhere.example",
            0,
            "5.1.2",
        )
    [(envelope, data)] = server.transactions
    assert envelope.recipients[0].localpart == "user"
    assert b"hello" in data


async def test_the_outcome_is_unknown(tmp_path: Path, webhooks: Receiver, hosts: MxHosts) -> None:
    """The connection ends after the final dot: tried again, with the same Message-ID."""
    taken: list[bytes] = []

    async def keeps_it(stream: trio.SocketStream) -> None:
        class Listening:
            """The stream, with an ear on it."""

            async def receive_some(self) -> bytes:
                data = await stream.receive_some()
                taken.append(data)
                return data

            send_all = stream.send_all

        replies = {".": b""} if not hosts.connections.get("again") else {}
        hosts.connections["again"] = 1
        await smtp(Listening(), replies=replies)  # type: ignore[arg-type]

    await hosts.script("127.0.0.2", keeps_it)
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=directly(hosts), clock=clock) as gateway:
        sent = await gateway.send()
        told = await webhooks.event("delayed")
        unknown = "outcome unknown, the message may have been delivered: connection closed by the server"
        assert told["Error"] == unknown
        item, [attempt] = await gateway.message(1)
        assert (attempt.error, attempt.remote_mta, attempt.code) == (unknown, MX, 0)
        assert "> (message)" in attempt.transcript
        assert item.dialed_ips == {MX: ["127.0.0.2"]}
        clock.advance(500)
        await gateway.nudge()
        await webhooks.event("delivered")
    ids = re.findall(rb"(?im)^Message-ID: (\S+)", b"".join(taken))
    assert ids == [sent["MessageID"].encode()] * 2


async def test_another_address_at_the_next_attempt(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts
) -> None:
    hosts.address("two.example", "127.0.0.4", "127.0.0.5")
    for address in ("127.0.0.4", "127.0.0.5"):
        await hosts.script(address, that(replies={"MAIL": b"451 4.7.1 later\r\n"}))
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=directly(hosts), clock=clock) as gateway:
        await gateway.send("user@two.example")
        await webhooks.event("delayed")
        clock.advance(500)
        await gateway.nudge()
        await webhooks.wait_for(lambda payload: payload.get("Event") == "delayed", 2)
        item, attempts = await gateway.message(1)
        assert sorted(item.dialed_ips["two.example"]) == ["127.0.0.4", "127.0.0.5"]
        assert [one.remote_ip for one in attempts] == item.dialed_ips["two.example"]


class ToDirect:
    @hookimpl
    def route(self) -> Route:
        return Route("direct")


async def test_nothing_leaves_localserve(tmp_path: Path, webhooks: Receiver, hosts: MxHosts) -> None:
    server = await hosts.server("127.0.0.2")

    def change(raw: dict[str, Any]) -> None:
        raw["dns"] = dns(hosts)

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send()
        await webhooks.event("delivered")
        with pytest.raises(NotConfigured, match="there is no transport 'direct'; there are: localserve"):
            await gateway.gateway.operations.set_transport(Filter(), "direct")

    def routed(raw: dict[str, Any]) -> None:
        change(raw)
        with_plugins("to_direct")(raw)

    async with running(tmp_path, webhooks, change=routed, plugins={"to_direct": ToDirect()}) as gateway:
        await gateway.send()
        told = await webhooks.event("delayed")
        assert told["Error"].startswith("there is no transport 'direct'")
    assert server.sessions == {}
    assert not any("example.org" in question for question in hosts.dns.asked)
