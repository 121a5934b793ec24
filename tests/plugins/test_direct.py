"""Direct delivery over real sockets: which hosts are tried, and what answers and faults come to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Delivery, Outcome, Result
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import ConfigError, StoreUnavailable
from gateway.net.network import PLAN_KEPT
from gateway.net.simulated_dns import simulated_resolver
from gateway.net.smtp_client_settings import ClientSettings
from gateway.outbound.transports import read_transports
from gateway.smtp.replies import Reply
from gateway_smtp.direct import Direct
from gateway_smtp.mx import MAX_DIALS
from tests.commands import PATIENCE
from tests.networks import KnownPolicies, a_network
from tests.plugins.mx_hosts import MxHosts, mx_hosts, sends, silent, that
from tests.plugins.smtp_servers import Server, delivery, results

DELIVERED = [("delivered", 250)]


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    """example.org with the hosts mx1 and mx2, of which none is up."""
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", "mx1.example.org", "mx2.example.org")
        hosts.address("mx1.example.org", "127.0.0.2")
        hosts.address("mx2.example.org", "127.0.0.3")
        yield hosts


def to(*recipients: str, **changes: Any) -> Delivery:
    return delivery(*(recipients or ("b@example.org",)), **changes)


async def deliver(hosts: MxHosts, message: Delivery | None = None, **settings: Any) -> list[Outcome]:
    async with hosts.transport(**settings) as direct:
        return list(await direct.deliver(message or to()))


def refusing(step: str, reply: Reply) -> Server:
    return Server(lambda at, localpart: reply if at == step else None)


# --- Which hosts ---


async def test_the_first_host(hosts: MxHosts) -> None:
    first, second = await hosts.server("127.0.0.2"), await hosts.server("127.0.0.3")
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.error, outcome.tls) == ("delivered", 250, "", "")
    assert (outcome.remote_mta, outcome.remote_ip) == ("mx1.example.org", "127.0.0.2")
    assert outcome.dialed == {"mx1.example.org": ("127.0.0.2",)}
    assert (len(first.transactions), len(second.transactions)) == (1, 0)
    [session] = first.sessions.values()
    assert session.hello
    assert session.hello.name == "gateway.example"


async def test_a_host_that_is_down(hosts: MxHosts) -> None:
    await hosts.server("127.0.0.3")
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.remote_mta) == ("delivered", "mx2.example.org")
    assert outcome.dialed == {"mx1.example.org": ("127.0.0.2",), "mx2.example.org": ("127.0.0.3",)}


async def test_all_are_down(hosts: MxHosts) -> None:
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.remote_mta) == ("temporary", 0, "mx2.example.org")
    refused = f"can't connect to 127.0.0.3 port {hosts.port}: Connection refused"
    assert outcome.error == f"mx2.example.org: {refused}"
    assert outcome.enhanced == "4.4.1"


async def test_an_address_that_does_not_answer(hosts: MxHosts) -> None:
    """As behind a firewall that throws packets away: there is no refusal, and no connection."""
    with out_of_reach("127.0.0.2", hosts.port):
        [outcome] = await deliver(hosts, connect_timeout=0.3)
        assert (outcome.result.value, outcome.remote_mta) == ("temporary", "mx2.example.org")
        await hosts.server("127.0.0.3")
        [outcome] = await deliver(hosts, connect_timeout=0.3)
        assert (outcome.result.value, outcome.remote_mta) == ("delivered", "mx2.example.org")
        hosts.domain("example.org", "mx1.example.org")
        [outcome] = await deliver(hosts, connect_timeout=0.3)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.4.1")
    error = f"mx1.example.org: no connection to 127.0.0.2 port {hosts.port} within 0.3 seconds"
    assert outcome.error == error


@contextmanager
def out_of_reach(address: str, port: int) -> Iterator[None]:
    """A listener whose queue is full: the system throws further connections away, unanswered."""
    with socket.socket() as listener, socket.socket() as waiting:
        listener.bind((address, port))
        listener.listen(0)
        waiting.connect((address, port))
        yield


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("connect", Reply(421, None, ("Busy",))),
        ("mail", Reply(451, "4.7.1", ("Greylisted",))),
        ("rcpt", Reply(450, "4.2.1", ("Later",))),
        ("dot", Reply(451, "4.3.0", ("Later",))),
    ],
)
async def test_what_is_temporary_goes_to_the_next_host(hosts: MxHosts, step: str, reply: Reply) -> None:
    await hosts.server("127.0.0.2", refusing(step, reply))
    [outcome] = await deliver(hosts)
    # The next one is down: what the first one said is more telling.
    assert (outcome.result.value, outcome.code) == ("temporary", reply.code)
    assert outcome.remote_mta == "mx1.example.org"
    second = await hosts.server("127.0.0.3")
    assert results(await deliver(hosts)) == DELIVERED
    assert len(second.transactions) == 1


@pytest.mark.parametrize("step", ["connect", "mail", "rcpt", "dot"])
async def test_what_is_permanent_ends_the_attempt(hosts: MxHosts, step: str) -> None:
    await hosts.server("127.0.0.2", refusing(step, Reply(550, "5.7.1", ("No",))))
    second = await hosts.server("127.0.0.3")
    [outcome] = await deliver(hosts)
    code = 554 if step == "connect" else 550
    assert (outcome.result.value, outcome.code // 100) == ("permanent", code // 100)
    assert second.sessions == {}


async def test_each_recipient_goes_its_own_way(hosts: MxHosts) -> None:
    def some(step: str, localpart: str) -> Reply | None:
        if step != "rcpt" or localpart == "a":
            return None
        return Reply(550, "5.1.1", ("No",)) if localpart == "gone" else Reply(451, None, ("Later",))

    first, second = await hosts.server("127.0.0.2", Server(some)), await hosts.server("127.0.0.3")
    outcomes = await deliver(hosts, to("a@example.org", "gone@example.org", "late@example.org"))
    assert results(outcomes) == [("delivered", 250), ("permanent", 550), ("delivered", 250)]
    assert [one.remote_mta for one in outcomes] == ["mx1.example.org"] * 2 + ["mx2.example.org"]
    assert (first.recipients, second.recipients) == ([["a"]], [["late"]])


async def test_two_domains_at_once(hosts: MxHosts) -> None:
    hosts.domain("example.net", "mx2.example.org")
    await hosts.server("127.0.0.2")
    second = await hosts.server("127.0.0.3")
    outcomes = await deliver(hosts, to("a@example.org", "b@example.net", "c@nowhere.example"))
    assert results(outcomes) == [("delivered", 250), ("delivered", 250), ("permanent", 0)]
    assert second.recipients == [["b"]]


@pytest.mark.parametrize(
    ("domain", "outcome"),
    [
        ("nowhere.example", ("permanent", 0, "5.1.2", "there is no domain nowhere.example")),
        ("null.example", ("permanent", 0, "5.1.10", "null.example takes no mail (it has a null MX)")),
        ("broken.example", ("temporary", 0, "4.4.3", "DNS: no answer for broken.example MX: ")),
        ("loop.example", ("temporary", 0, "4.4.3", "DNS: no answer for loop.example MX: ")),
        ("empty.example", ("temporary", 0, "4.4.4", "empty.example has no address")),
    ],
)
async def test_domains_without_hosts(hosts: MxHosts, domain: str, outcome: tuple[str, int, str, str]) -> None:
    hosts.dns.add("null.example", "MX", "0 .")
    hosts.dns.fail("broken.example", "MX", "SERVFAIL")
    hosts.dns.add("loop.example", "CNAME", "loop.example.")
    hosts.dns.add("empty.example", "TXT", "nothing")
    [found] = await deliver(hosts, to(f"b@{domain}"))
    assert (found.result.value, found.code, found.enhanced) == outcome[:3]
    assert found.error.startswith(outcome[3])


async def test_implicit_mx_and_alias(hosts: MxHosts) -> None:
    hosts.dns.add("www.example", "CNAME", "example.org.")
    hosts.address("bare.example", "127.0.0.3")
    server = await hosts.server("127.0.0.3")
    assert results(await deliver(hosts, to("b@bare.example"))) == DELIVERED
    assert results(await deliver(hosts, to("b@www.example"))) == DELIVERED
    assert len(server.transactions) == 2


async def test_address_literal(hosts: MxHosts) -> None:
    await hosts.server("127.0.0.3")
    [outcome] = await deliver(hosts, to("b@[127.0.0.3]"))
    assert (outcome.result.value, outcome.remote_mta) == ("delivered", "[127.0.0.3]")


async def test_fifty_mx(hosts: MxHosts) -> None:
    names = [f"mx{number}.many.example" for number in range(50)]
    hosts.domain("many.example", *names)
    for number, name in enumerate(names):
        hosts.address(name, f"127.0.1.{2 * number + 1}", f"127.0.1.{2 * number + 2}")
    [outcome] = await deliver(hosts, to("b@many.example"))
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert sum(len(addresses) for addresses in outcome.dialed.values()) == MAX_DIALS


async def test_fifty_mx_of_which_one_is_up(hosts: MxHosts) -> None:
    names = [f"mx{number}.many.example" for number in range(50)]
    hosts.domain("many.example", *names)
    for number, name in enumerate(names):
        hosts.address(name, f"127.0.1.{number + 1}")
    await hosts.server("127.0.1.21")
    [first] = await deliver(hosts, to("b@many.example"))
    assert (first.result, list(first.dialed)) == (Result.TEMPORARY, names[:16])
    [second] = await deliver(hosts, replace(to("b@many.example"), dialed=first.dialed))
    assert (second.result, list(second.dialed)) == (Result.DELIVERED, names[16:21])


async def test_policies_that_cannot_be_read(hosts: MxHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **_how: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(KnownPolicies, "find", broken)
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.error) == ("temporary", "hosts of example.org: disk full")


# --- Addresses ---


async def test_another_address_of_the_same_host(hosts: MxHosts) -> None:
    hosts.address("two.example", "127.0.0.4", "127.0.0.5")
    await hosts.server("127.0.0.5")
    for _ in range(4):  # they are shuffled
        [outcome] = await deliver(hosts, to("b@two.example"))
        assert (outcome.result.value, outcome.remote_ip) == ("delivered", "127.0.0.5")


async def test_an_address_that_was_not_tried_before(hosts: MxHosts) -> None:
    hosts.address("two.example", "127.0.0.4", "127.0.0.5")
    for address in ("127.0.0.4", "127.0.0.5"):
        await hosts.server(address)
    async with hosts.transport() as direct:
        for address, other in (("127.0.0.4", "127.0.0.5"), ("127.0.0.5", "127.0.0.4")) * 3:
            message = replace(to("b@two.example"), dialed={"two.example": [address]})
            [outcome] = await direct.deliver(message)
            assert outcome.remote_ip == other  # whatever connection is kept
            assert outcome.dialed == {"two.example": (other,)}


async def test_a_local_address_that_is_not_there_is_told_at_start(
    hosts: MxHosts, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosts.transport(local_addresses=["127.0.0.77"]):
        assert caplog.messages == []
    async with hosts.transport(local_addresses=["127.0.0.77", "2001:db8::25"]):
        [said] = caplog.messages
    assert said.startswith("transports.out.local_addresses: 2001:db8::25 is no address of this machine; ")


async def test_local_address_and_families(hosts: MxHosts) -> None:
    server = await hosts.server("127.0.0.2")
    hosts.dns.add("mx1.example.org", "AAAA", "::1")
    ours = ["127.0.0.77", "::1"]
    assert results(await deliver(hosts, local_addresses=ours, families=["ipv4"])) == DELIVERED
    [session] = server.sessions.values()
    assert str(session.peer) == "127.0.0.77"
    assert "mx1.example.org AAAA" not in hosts.dns.asked
    [outcome] = await deliver(hosts, local_addresses=["192.0.2.1"], families=["ipv4"])
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert outcome.error.endswith(
        f" port {hosts.port}: 192.0.2.1 is no address of this machine;"
        " repair local_addresses of [transports.out]"
    )


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (None, [("delivered", 250)]),
        (Reply(554, "5.7.1", ("No",)), [("permanent", 554)]),
        (Reply(451, "4.7.1", ("Later",)), [("temporary", 451)]),
    ],
)
async def test_a_refusal_of_one_ip_version(
    hosts: MxHosts, other: Reply | None, expected: list[tuple[str, int]]
) -> None:
    hosts.address("dual.example", "127.0.0.4", "::1")
    blocked = Reply(550, "5.7.25", ("No reverse DNS",))
    await hosts.server("::1", refusing("rcpt", blocked))
    await hosts.server("127.0.0.4", None if other is None else refusing("rcpt", other))
    [outcome] = await deliver(hosts, to("b@dual.example"))
    assert results([outcome]) == expected
    assert outcome.dialed == {"dual.example": ("::1", "127.0.0.4")}
    # Whoever was there before is not new to us.
    again = replace(to("b@dual.example"), dialed={"dual.example": ["127.0.0.4"]})
    assert results(await deliver(hosts, again)) == [("permanent", 550)]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_a_refusal_when_the_other_ip_version_is_down(hosts: MxHosts) -> None:
    hosts.address("dual.example", "127.0.0.4", "::1")
    await hosts.server("::1", refusing("mail", Reply(550, "5.7.25", ("No reverse DNS",))))
    [outcome] = await deliver(hosts, to("b@dual.example"))
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 550, "5.7.25")


# --- Servers that behave badly ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: 0.2)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (silent, "mx1.example.org: no reply within 0.2 seconds"),
        (sends(b"220-mx\r\n" * 100_000), "mx1.example.org: reply has more than"),
        (sends(b"220 " + b"x" * 1_000_000 + b"\r\n"), "mx1.example.org: reply line is longer than"),
        (sends(b"\xff\xfe\x00\x01\r\n"), "mx1.example.org: not an SMTP reply: "),
        (sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "mx1.example.org: not an SMTP reply: "),
        (sends(b"220-mx\r\nnonsense\r\n220 mx\r\n"), "mx1.example.org: not an SMTP reply: 'nonsense'"),
        (sends(b"", then_waits=False), "mx1.example.org: connection closed by the server"),
        (that(replies={"EHLO": b"", "HELO": b""}), "mx1.example.org: connection closed by the server"),
        (that(replies={"MAIL": b""}), "mx1.example.org: connection closed by the server"),
        (that(replies={"DATA": b"250 what\r\n"}), "mx1.example.org: unexpected reply: 250 what"),
        (that(replies={"RCPT": b"421 4.3.2 bye\r\n"}), "remote answered 421 4.3.2 bye"),
    ],
    ids=lambda value: value[:60].partition(": ")[2] if isinstance(value, str) else "",
)
async def test_nonsense(hosts: MxHosts, impatient: None, script: Any, error: str) -> None:
    await hosts.script("127.0.0.2", script)
    hosts.domain("alone.example", "mx1.example.org")
    with trio.fail_after(PATIENCE):
        [outcome] = await deliver(hosts, to("b@alone.example"))
    assert outcome.result.value == "temporary"
    assert outcome.error.startswith(error)
    nonsense = "reply" in error and "no reply" not in error
    expected = ("4.3.2",) if outcome.code else ("4.5.0",) if nonsense else ("4.4.1", "4.4.2")
    assert outcome.enhanced in expected
    assert outcome.transcript
    assert len(outcome.error) < 1000
    second = await hosts.server("127.0.0.3")
    assert results(await deliver(hosts)) == DELIVERED
    assert len(second.transactions) == 1


async def test_replies_that_are_not_ascii(hosts: MxHosts) -> None:
    replies = {"RCPT": "550 5.1.1 Empfänger ungültig \x07\r\n".encode() + b""}
    await hosts.script("127.0.0.2", that(replies=replies))
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 550, "5.1.1")
    assert outcome.error == "remote answered 550 5.1.1 Empfänger ungültig \ufffd"
    latin = {"RCPT": "450 4.2.2 Empfänger voll\r\n".encode("latin-1")}
    await hosts.script("127.0.0.3", that(replies=latin))
    hosts.domain("latin.example", "mx2.example.org")
    [outcome] = await deliver(hosts, to("b@latin.example"))
    assert outcome.error == "remote answered 450 4.2.2 Empf\ufffdnger voll"


async def test_closed_after_the_final_dot(hosts: MxHosts) -> None:
    await hosts.script("127.0.0.2", that(replies={".": b""}))
    second = await hosts.server("127.0.0.3")
    [outcome] = await deliver(hosts)
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert outcome.error == (
        "outcome unknown, the message may have been delivered: connection closed by the server"
    )
    assert (outcome.remote_mta, outcome.enhanced) == ("mx1.example.org", "4.4.2")
    assert "> (message)" in outcome.transcript
    assert second.sessions == {}  # it would have been delivered twice


async def test_time_is_up(hosts: MxHosts) -> None:
    await hosts.server("127.0.0.2", refusing("mail", Reply(451, None, ("Later",))))
    await hosts.script("127.0.0.3", silent)
    message = to()
    short = replace(message, deadline=message.started.replace(microsecond=500_000))
    [outcome] = await deliver(hosts, short)
    assert (outcome.result.value, outcome.code) == ("temporary", 451)


async def test_time_is_up_while_a_server_says_nothing(hosts: MxHosts) -> None:
    """The history tells how far it came."""
    await hosts.script("127.0.0.2", that(replies={"RCPT": b" "}))
    message = to("a@example.org", "b@example.org")
    outcomes = await deliver(hosts, replace(message, deadline=message.started.replace(microsecond=500_000)))
    assert results(outcomes) == [("temporary", 0)] * 2
    for outcome in outcomes:
        assert outcome.error == "mx1.example.org: connection closed before there was an answer"
        assert outcome.remote_mta == "mx1.example.org"
        assert "> RCPT TO:<a@example.org>" in outcome.transcript


async def test_time_is_up_after_the_final_dot(hosts: MxHosts) -> None:
    gone = {"RCPT TO:<gone@example.org>": b"550 5.1.1 No\r\n"}
    await hosts.script("127.0.0.2", that(replies={".": b" "} | gone))
    message = to("a@example.org", "gone@example.org", "b@example.org")
    short = replace(message, deadline=message.started.replace(microsecond=500_000))
    outcomes = await deliver(hosts, short)
    assert results(outcomes) == [("temporary", 0), ("permanent", 550), ("temporary", 0)]
    assert [one.enhanced for one in outcomes] == ["4.4.2", "5.1.1", "4.4.2"]
    assert outcomes[2].error == (
        "outcome unknown, the message may have been delivered: connection closed before there was an answer"
    )
    assert outcomes[0].remote_mta == "mx1.example.org"


# --- Kept connections ---


async def test_domains_of_one_provider_share_connections(hosts: MxHosts) -> None:
    hosts.domain("example.net", "mx1.example.org")
    server = await hosts.server("127.0.0.2")
    async with hosts.transport() as direct:
        for domain in ("example.org", "example.net", "example.org"):
            [outcome] = await direct.deliver(to(f"b@{domain}"))
            assert outcome.dialed == {"mx1.example.org": ("127.0.0.2",)}
        assert len(server.sessions) == 1
        await direct.deliver(replace(to(), hostname="other.example"))
        assert len(server.sessions) == 2


async def test_a_connection_that_ended_while_idle(hosts: MxHosts) -> None:
    async def one_message(stream: trio.SocketStream) -> None:
        with trio.move_on_after(0.1):
            await that()(stream)

    await hosts.script("127.0.0.2", one_message)
    async with hosts.transport() as direct:
        assert results(await direct.deliver(to())) == DELIVERED
        await trio.sleep(0.2)
        assert results(await direct.deliver(to())) == DELIVERED
    assert hosts.connections == {"127.0.0.2": 2}


async def test_the_longest_idle_makes_room(hosts: MxHosts) -> None:
    hosts.domain("second.example", "mx2.example.org")
    first, second = await hosts.server("127.0.0.2"), await hosts.server("127.0.0.3")
    async with hosts.transport(keep={"connections": 1}) as direct:
        for domain in ("example.org", "second.example", "second.example", "example.org"):
            assert results(await direct.deliver(to(f"b@{domain}"))) == DELIVERED
    assert (len(first.sessions), len(second.sessions)) == (2, 1)


async def test_an_address_that_is_in_dns_no_more(hosts: MxHosts) -> None:
    old, new = await hosts.server("127.0.0.2"), await hosts.server("127.0.0.4")
    hosts.dns.add("mx1.example.org", "A", "127.0.0.2", ttl=0)
    async with hosts.transport() as direct:
        await direct.deliver(to())
        hosts.dns.remove("mx1.example.org", "A")
        hosts.dns.add("mx1.example.org", "A", "127.0.0.4", ttl=0)
        await direct.deliver(to())
    assert (len(old.transactions), len(new.transactions)) == (1, 1)


async def test_a_plan_is_kept_for_a_moment(hosts: MxHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    await hosts.server("127.0.0.2")
    now = 1000.0
    monkeypatch.setattr(Clock, "monotonic", lambda _: now)
    asked = hosts.policies.asked
    async with hosts.transport() as direct:
        for times in (1, 2, 2, 2):  # the first one's was asked for in DNS
            assert results(await direct.deliver(to())) == DELIVERED
            assert asked == ["example.org"] * times
        await direct.deliver(to(require_tls=False))
        assert len(asked) == 3
        await direct.deliver(replace(to(), dialed={"mx1.example.org": ("127.0.0.2",)}))
        assert len(asked) == 4
        now += PLAN_KEPT + 0.1
        await direct.deliver(to())
        assert len(asked) == 5


async def test_where_dns_is_simulated(hosts: MxHosts, tmp_path: Path) -> None:
    server = await hosts.server("127.0.0.1")
    simulated = Settings.model_validate(
        {"hostname": "mx.example.org", "domains": {"example.org": {}}, "dns": {"simulated": True}}
    )
    async with hosts.transport() as direct:
        direct._network = replace(a_network(), resolver=simulated_resolver(simulated, tmp_path))
        for _ in range(2):
            assert results(await direct.deliver(to())) == DELIVERED
    assert len(server.transactions) == 2


async def test_a_plan_that_chance_had_a_part_in_is_not_kept(hosts: MxHosts) -> None:
    hosts.address("mx1.example.org", "127.0.0.2", "127.0.0.4")
    servers = [await hosts.server(address) for address in ("127.0.0.2", "127.0.0.4")]
    async with hosts.transport(keep={"idle": 0}) as direct:
        for _ in range(30):
            await direct.deliver(to())
    assert min(len(server.transactions) for server in servers) > 3


# --- Settings ---


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"port": 0}, "port: "),
        ({"families": []}, 'families: is to be "ipv4", "ipv6" or both'),
        ({"families": ["ipv4", "ipv4"]}, 'families: is to be "ipv4", "ipv6" or both'),
        ({"families": ["ipv5"]}, "families[0]: "),
        ({"local_addresses": ["mx.example"]}, "is not an IP address"),
        ({"local_addresses": ["127.0.0.1", "127.0.0.2"]}, "local_addresses: at most one IPv4 and one IPv6"),
        ({"ca_file": "gone"}, "gone: cannot be read as a PEM file"),
        ({"host": "mx.example"}, "host: there is no such setting"),
        ({"type": "socks"}, "proxy: "),
        ({"type": "socks", "proxy": "10.0.0.1", "hostname": "mx.example"}, "is no host and port"),
        ({"type": "socks", "proxy": "::1:1080", "hostname": "mx.example"}, "is no host and port"),
        ({"type": "socks", "proxy": "10.0.0.1:x", "hostname": "mx.example"}, "is no host and port"),
        (
            {"type": "socks", "proxy": "10.0.0.1:1", "hostname": "a.example", "auth": {"username": "a"}},
            "auth: give either password or password_file",
        ),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_transports({"x": {"type": "direct"} | settings}, Direct().transports(), tmp_path)
    assert error in str(raised.value)
