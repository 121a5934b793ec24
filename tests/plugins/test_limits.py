"""The plugin `limits`, and what limits do to the transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import ValidationError

from gateway import Limits, NextHop
from gateway.net.shaping import Shaper
from gateway.net.smtp_handler import Session
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from gateway_smtp.limits import LimitsSettings
from tests.plugins.mx_hosts import MxHosts, mx_hosts, that
from tests.plugins.smtp_servers import Server, delivery, results, serving, shaped_transport

DELIVERED = [("delivered", 250)]
PLAINTEXT = {"type": "smtp", "host": "127.0.0.1", "tls": "none"}
RULES = [
    {"mx": [".big.example"], "connections": 30, "messages": 100, "per_minute": 600},
    {"domains": ["slow.example", ".below.example"], "connections": 2, "wait": 5},
    {"mx": ["exact.example", "xn--bcher-kva.example"], "domains": ["both.example"], "connections": 3},
    {"mx": ["mx.big.example"], "connections": 1},  # never: the first matches it too
]
BIG = Limits(connections=30, messages_per_connection=100, per_minute=600, key="rule 1 (.big.example)")
SLOW = Limits(connections=2, key="rule 2 (slow.example)", wait=5)
BOTH = Limits(connections=3, key="rule 3 (exact.example)")
DEFAULT = Limits(connections=7)


def shaper_of(**settings: Any) -> Shaper:
    parsed = LimitsSettings.model_validate(settings)

    async def ask(hop: NextHop) -> Limits:
        return parsed.table.of(hop)

    return Shaper(ask)


# --- What the configuration says ---


@pytest.mark.parametrize(
    ("host", "domain", "limits"),
    [
        ("mx.other.example", "other.example", DEFAULT),
        ("mx.big.example", "a.example", BIG),
        ("MX.Big.Example", "b.example", BIG),
        ("big.example", "b.example", BIG),
        ("verybig.example", "b.example", DEFAULT),
        ("mx.big.example", "slow.example", BIG),  # the first that matches
        ("mx.other.example", "slow.example", SLOW),
        ("mx.other.example", "very.slow.example", DEFAULT),
        ("mx.other.example", "very.far.below.example", SLOW),
        ("exact.example", "a.example", BOTH),
        ("mx.exact.example", "a.example", DEFAULT),
        ("xn--bcher-kva.example", "a.example", BOTH),
        ("Bücher.example", "a.example", BOTH),  # as a smarthost may be written
        ("exact.example.", "a.example", BOTH),
        ("mail_relay.big.example", "a.example", BIG),
        ("mx.other.example", "both.example", BOTH),
        ("192.0.2.1", "[192.0.2.1]", DEFAULT),
        ("", "", DEFAULT),
    ],
)
def test_the_first_rule_that_matches(host: str, domain: str, limits: Limits) -> None:
    settings = LimitsSettings.model_validate({"connections": 7, "rules": RULES})
    assert settings.table.of(NextHop(domain, host, "192.0.2.1", 25, "direct")) == limits


@pytest.mark.parametrize(
    ("by", "key"), [("host", ""), ("domain", "customer.example"), ("provider", "provider.co.uk")]
)
def test_who_shares_without_a_rule(by: str, key: str) -> None:
    settings = LimitsSettings.model_validate({"by": by})
    hop = NextHop("customer.example", "mx7.eu.provider.co.uk", "192.0.2.1", 25, "direct")
    assert settings.table.of(hop) == Limits(connections=20, key=key)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rules": [{"connections": 3}]}, "names neither mx nor domains"),
        ({"rules": [{"mx": ["not a host"]}]}, "not a host"),
        ({"connections": -1}, "greater than or equal to 0"),
        ({"per_minute": float("nan")}, "per_minute"),
        ({"wait": 3600}, "less than or equal to 600"),
        ({"by": "network"}, "'host', 'provider' or 'domain'"),
        ({"rate": 3}, "Extra inputs"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LimitsSettings.model_validate(settings)


# --- Connections to one host ---


class Hanging(Server):
    """Does not answer RCPT while it `hangs`."""

    hangs = False

    def __init__(self, decide: Callable[[str, str], Reply | None]) -> None:
        super().__init__(decide)
        self.hung = trio.Event()

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        if self.hangs:
            self.hung.set()
            await trio.sleep_forever()
        return await super().rcpt(session, envelope, recipient)


async def deliver_all(of: Any, count: int, **how: Any) -> list[Any]:
    outcomes: list[Any] = []

    async def one() -> None:
        outcomes.extend(await of.deliver(delivery(**how)))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return outcomes


async def test_so_many_connections_and_no_more(tmp_path: Path) -> None:
    shaper = shaper_of(connections=3)
    async with (
        serving() as server,
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port) as relay,
    ):
        outcomes = await deliver_all(relay, 30)
    assert results(outcomes) == DELIVERED * 30
    assert len(server.sessions) == 3  # they are passed on to those who wait
    assert shaper.counters.waits == 27
    assert shaper.counters.refusals == 0


async def test_messages_on_a_connection(tmp_path: Path) -> None:
    shaper = shaper_of(messages=2)
    async with (
        serving() as server,
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port) as relay,
    ):
        for _ in range(5):
            assert results(await relay.deliver(delivery())) == DELIVERED
    assert len(server.sessions) == 3


async def test_a_rate(tmp_path: Path) -> None:
    shaper = shaper_of(per_minute=10, wait=1)
    async with (
        serving() as server,
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port) as relay,
    ):
        assert results(await relay.deliver(delivery("a@example.net", "b@example.net"))) == DELIVERED * 2
        [outcome] = await relay.deliver(delivery())
        assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.4.5")
        assert outcome.error == (
            f"not sent yet: the limit for 127.0.0.1:{server.port} is 10 messages a minute,"
            " and it has no turn in time"
        )
        assert outcome.remote_mta == "127.0.0.1"
    assert len(server.transactions) == 1


async def test_a_place_comes_free_however_an_attempt_ends(tmp_path: Path) -> None:
    """Refused, broken off in the middle, or not even connected."""
    shaper = shaper_of(connections=1, wait=0.5)
    refuse: list[str] = []

    def decide(step: str, localpart: str) -> Reply | None:
        if step in refuse:
            return Reply(554 if step == "connect" else 550, "5.0.0", ("No",))
        return None

    async with (
        serving(server := Hanging(decide)),
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port, keep={"idle": 0}) as relay,
    ):
        for refused in ("mail", "rcpt", "dot", "connect"):
            refuse[:] = [refused]
            assert results(await relay.deliver(delivery())) in ([("permanent", 550)], [("permanent", 554)])
        refuse.clear()
        server.hangs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.deliver, delivery())
            await server.hung.wait()
            nursery.cancel_scope.cancel()
        server.hangs = False
        assert results(await relay.deliver(delivery())) == DELIVERED
    share = await shaper.share(NextHop("", "127.0.0.1", "", server.port, ""))
    assert share.pace.open == 0
    async with shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port) as nobody:
        assert results(await nobody.deliver(delivery())) == [("temporary", 0)]
    assert share.pace.open == 0


# --- A server that asks for less ---


@pytest.mark.parametrize(
    ("step", "reply", "slows"),
    [
        ("mail", Reply(421, "4.3.2", ("Later",)), True),
        ("connect", Reply(421, "4.7.0", ("Too many connections",)), True),
        ("rcpt", Reply(451, "4.7.1", ("Too fast",)), True),
        ("dot", Reply(450, "4.7.28", ("Unusual rate",)), True),
        ("rcpt", Reply(450, "4.2.0", ("Busy",)), False),
        ("rcpt", Reply(550, "5.7.1", ("No",)), False),
    ],
)
async def test_what_slows_down(tmp_path: Path, step: str, reply: Reply, slows: bool) -> None:
    shaper = shaper_of(connections=8, per_minute=60_000)
    said: list[Reply] = []
    async with (
        serving(Server(lambda asked, _: said[0] if said and asked == step else None)) as server,
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port, keep={"idle": 0}) as relay,
    ):
        assert results(await relay.deliver(delivery())) == DELIVERED
        said.append(reply)
        await relay.deliver(delivery())
        pace = (await shaper.share(NextHop("", "127.0.0.1", "", server.port, ""))).pace
        assert (pace.slow, shaper.counters.slowdowns) == (slows, int(slows))
        assert pace.per_minute == (30_000 if slows else 60_000)
        said.clear()
        if slows:
            before = pace.connections
            assert results(await relay.deliver(delivery())) == DELIVERED
            assert pace.connections > before


async def test_the_end_of_an_idle_connection_does_not(tmp_path: Path) -> None:
    shaper = shaper_of()
    sent = 0

    def decide(step: str, localpart: str) -> Reply | None:
        nonlocal sent
        if step == "mail":
            sent += 1
            return Reply(421, "4.4.2", ("Idle for too long",)) if sent == 2 else None
        return None

    async with (
        serving(Server(decide)) as server,
        shaped_transport(tmp_path, shaper, **PLAINTEXT, port=server.port) as relay,
    ):
        for _ in range(2):
            assert results(await relay.deliver(delivery())) == DELIVERED
        assert len(server.transactions) == 2
        assert shaper.counters.slowdowns == 0
        assert (await shaper.share(NextHop("", "127.0.0.1", "", server.port, ""))).pace.open == 1


# --- Several hosts of one provider ---


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as made:
        for name, address in (("mx1", "127.0.2.1"), ("mx2", "127.0.2.2")):
            made.address(f"{name}.provider.example", address)
            made.domain(f"{name}.example", f"{name}.provider.example")
        made.domain("both.example", "mx1.provider.example", "mx2.provider.example")
        yield made


async def test_domains_of_a_provider_share_a_limit(hosts: MxHosts) -> None:
    """The kept connection to one host is closed to make room for one to the other."""
    shaper = shaper_of(rules=[{"mx": [".provider.example"], "connections": 1}])
    servers = [await hosts.server("127.0.2.1"), await hosts.server("127.0.2.2")]
    async with hosts.transport(shaper=shaper) as direct:
        for number in (1, 2, 1):
            assert results(await direct.deliver(delivery(f"a@mx{number}.example"))) == DELIVERED
        share = await shaper.share(NextHop("", "mx9.provider.example", "", 25, ""))
        assert share.pace.open == 1
        assert (shaper.counters.waits, shaper.counters.refusals) == (2, 0)
    assert [len(server.sessions) for server in servers] == [2, 1]


async def test_a_limit_leads_to_no_other_host(hosts: MxHosts) -> None:
    shaper = shaper_of(per_minute=1, wait=0)
    servers = [await hosts.server("127.0.2.1"), await hosts.server("127.0.2.2")]
    async with hosts.transport(shaper=shaper) as direct:
        assert results(await direct.deliver(delivery("a@both.example"))) == DELIVERED
        [outcome] = await direct.deliver(delivery("a@both.example"))
        assert (outcome.result.value, outcome.remote_mta) == ("temporary", "mx1.provider.example")
        assert outcome.dialed == {}
    assert [len(server.transactions) for server in servers] == [1, 0]


async def test_a_host_without_the_tls_that_is_needed_keeps_no_place(hosts: MxHosts) -> None:
    shaper = shaper_of(connections=1, wait=1)
    await hosts.script("127.0.2.1", that())
    hosts.policy("mx1.example", "mx1.provider.example")
    async with hosts.transport(shaper=shaper) as direct:
        for _ in range(3):
            [outcome] = await direct.deliver(delivery("a@mx1.example"))
            assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")
        # Ours is no answer of the server's.
        assert shaper.counters.slowdowns == 0
    assert (await shaper.share(NextHop("", "mx1.provider.example", "", hosts.port, ""))).pace.open == 0
