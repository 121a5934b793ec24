"""Limits of destinations in a whole gateway: domains of one provider, and a provider that asks for less."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.clock import ManualClock
from tests.plugins.mx_hosts import MxHosts, mx_hosts, smtp
from tests.running import Receiver, Running, running

DOMAINS = "one.example", "two.example"
HOST = "mx.provider.example"


@dataclass
class Provider:
    """The server of both domains. Above `most` connections at a time it answers 421."""

    most: int = 1000
    open: int = 0
    peak: int = 0  # of those that it took
    turned_away: int = 0
    taken: list[str] = field(default_factory=list)  # domains of recipients, in order

    async def __call__(self, stream: trio.SocketStream) -> None:
        if self.open >= self.most:
            self.turned_away += 1
            await stream.send_all(b"421 4.7.0 Too many connections from you\r\n")
            return
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await smtp(_Slowly(stream, self))  # type: ignore[arg-type]
        finally:
            self.open -= 1


@dataclass
class _Slowly:
    """A connection that takes a moment for each answer, so that several are there at a time."""

    stream: trio.SocketStream
    provider: Provider

    async def receive_some(self) -> bytes:
        data = bytes(await self.stream.receive_some())
        self.provider.taken += [domain for domain in DOMAINS if f"RCPT TO:<user@{domain}>".encode() in data]
        return data

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(0.01)
        await self.stream.send_all(data)


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        for domain in DOMAINS:
            hosts.domain(domain, HOST)
        hosts.address(HOST, "127.0.0.2")
        yield hosts


def limited(hosts: MxHosts, **limits: Any) -> Any:
    def change(raw: dict[str, Any]) -> None:
        del raw["routes"]
        raw["transports"]["direct"] = hosts.table()
        raw["dns"] = {"nameservers": ["127.0.0.1"], "port": hosts.dns.port}
        raw["plugin"]["limits"] = limits

    return change


async def send_to_both(gateway: Running, count: int) -> None:
    """So many recipients at each domain, all due at once; each has a transaction of its own (FromIDs)."""
    await gateway.send(To=[{"Address": f"user@{domain}"} for domain in DOMAINS * count])


async def counted(gateway: Running, event: str) -> float:
    """What the metrics say of limits."""
    address = gateway.gateway.addresses["metrics"][0]
    text = (await gateway.api.get(f"http://{address}/metrics")).text
    [value] = [line.split()[1] for line in text.splitlines() if f'limits_total{{event="{event}"}}' in line]
    return float(value)


async def test_domains_of_one_provider_share_one_connection(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts
) -> None:
    """Though each destination of the queue has many places."""
    provider = Provider()
    await hosts.script("127.0.0.2", provider)
    rules = [{"mx": [".provider.example"], "connections": 1}]
    async with running(tmp_path, webhooks, change=limited(hosts, rules=rules)) as gateway:
        await send_to_both(gateway, 10)
        told = await webhooks.wait_for(lambda payload: payload.get("Event"), 20)
        assert {one["Event"] for one in told} == {"delivered"}
        assert await counted(gateway, "wait") > 0
        assert await counted(gateway, "refusal") == 0
    assert provider.peak == 1
    assert {domain: provider.taken.count(domain) for domain in DOMAINS} == dict.fromkeys(DOMAINS, 10)


async def test_a_provider_that_asks_for_less_gets_less_and_more_again(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts
) -> None:
    provider, clock = Provider(most=2), ManualClock()
    await hosts.script("127.0.0.2", provider)
    change = limited(hosts, connections=8, wait=60)
    async with running(tmp_path, webhooks, change=change, clock=clock) as gateway:

        async def send_and_wait(count: int) -> list[dict[str, Any]]:
            webhooks.clear()
            await send_to_both(gateway, count)
            return await webhooks.wait_for(lambda payload: payload.get("Event"), 2 * count)

        first = await send_and_wait(10)
        late = [one for one in first if one["Event"] == "delayed"]
        assert late
        assert provider.turned_away >= len(late)
        assert {(one["SMTPCode"], one["SMTPEnhancedCode"]) for one in late} == {(421, "4.7.0")}
        assert await counted(gateway, "slowdown") == 1
        # What was refused goes out with the next attempt, by fewer connections than the limit says.
        provider.most, provider.peak = 1000, 0
        webhooks.clear()
        clock.advance(500)
        await gateway.nudge()
        assert {one["Event"] for one in await webhooks.wait_for(lambda p: p.get("Event"), len(late))} == {
            "delivered"
        }
        assert provider.peak < 8
        # Each that is taken lets it grow, to what the configuration allows.
        for _ in range(5):
            if provider.peak < 8:
                assert {one["Event"] for one in await send_and_wait(20)} == {"delivered"}
        assert provider.peak == 8
