"""The resolver against a server on real sockets, with the faults that DNS has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from dns.rdatatype import RdataType
from dns.resolver import BaseResolver

from gateway.config.settings import DnsSettings
from gateway.net import dns
from gateway.net.dns import Answer, DnsTrouble, Mx, NoRecords, Resolver, Tlsa
from tests.commands import PATIENCE
from tests.dns_server import DnsServer, Fault, dns_server

MX = Mx(10, "mx.example.org")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with dns_server() as server:
        server.add("example.org", "MX", "10 mx.example.org.", secure=True)
        yield server


def resolver(server: DnsServer, *, validating: bool = True, timeout: float = 2.0) -> Resolver:
    return Resolver(server.settings(validating=validating, timeout=timeout))


# --- What is asked, and answered --------------------------------------------------------------------


async def test_every_kind(server: DnsServer) -> None:
    server.add("h.example", "A", "192.0.2.1")
    server.add("h.example", "AAAA", "2001:db8::1")
    server.add("h.example", "TXT", '"v=one; " "id=1\\200"')
    server.add("_2525._tcp.h.example", "TLSA", "3 1 1 " + "ab" * 32)
    server.add("1.2.0.192.in-addr.arpa", "PTR", "h.example.")
    asking = resolver(server)
    assert await asking.mx("example.org") == Answer((MX,), True, "example.org")
    assert await asking.ipv4("h.example") == Answer((ip_address("192.0.2.1"),), False, "h.example")
    assert await asking.ipv6("h.example") == Answer((ip_address("2001:db8::1"),), False, "h.example")
    assert await asking.txt("h.example") == Answer((b"v=one; id=1\xc8",), False, "h.example")
    tlsa = await asking.tlsa("h.example", 2525)
    assert isinstance(tlsa, Answer)
    assert tlsa.records == (Tlsa(3, 1, 1, b"\xab" * 32),)
    assert str(tlsa.records[0]) == "3 1 1 " + "ab" * 32
    assert await asking.ptr(ip_address("192.0.2.1")) == Answer(
        ("h.example",), False, "1.2.0.192.in-addr.arpa"
    )


async def test_domains_are_in_unicode_here_and_in_a_labels_there(server: DnsServer) -> None:
    server.add("xn--bcher-kva.example", "MX", "1 xn--mx-eka.example.", "2 _odd.example.", "0 .")
    answer = await resolver(server).mx("bücher.example")
    assert isinstance(answer, Answer)
    assert set(answer.records) == {Mx(1, "ömx.example"), Mx(2, "_odd.example"), Mx(0, ".")}
    assert answer.canonical == "bücher.example"
    assert server.asked == ["xn--bcher-kva.example MX"]


@pytest.mark.parametrize("name", ["a" * 64 + ".example", ".".join(["a" * 60] * 5), "a..example", "ü" * 80])
async def test_names_that_nothing_can_have(server: DnsServer, name: str) -> None:
    assert await resolver(server).mx(name) == NoRecords(nxdomain=True)
    assert await resolver(server).tlsa(name, 25) == NoRecords(nxdomain=True)
    assert server.asked == []


async def test_what_is_not_there(server: DnsServer) -> None:
    asking = resolver(server)
    assert await asking.ipv4("example.org") == NoRecords()
    assert await asking.mx("nowhere.example") == NoRecords(nxdomain=True)
    server.secure_denial = True
    assert await asking.ipv6("example.org") == NoRecords(authentic=True)
    assert await asking.mx("other.example") == NoRecords(nxdomain=True, authentic=True)


async def test_fifty_mx(server: DnsServer) -> None:
    texts = [f"{n} mx.a-rather-long-name-for-a-host-{n}.example." for n in range(50)]
    server.add("many.example", "MX", *texts)
    answer = await resolver(server).mx("many.example")
    assert isinstance(answer, Answer)
    assert len(answer.records) == 50
    assert server.asked == ["many.example MX", "many.example MX TCP"]


# --- Authenticity -----------------------------------------------------------------------------------


async def test_authentic_only_where_the_operator_says_so(server: DnsServer) -> None:
    trusting, careful = resolver(server), resolver(server, validating=False)
    assert await trusting.mx("example.org") == Answer((MX,), True, "example.org")
    assert await careful.mx("example.org") == Answer((MX,), False, "example.org")
    server.lying = True
    careful = resolver(server, validating=False)
    assert await careful.mx("example.org") == Answer((MX,), False, "example.org")
    assert await careful.mx("nowhere.example") == NoRecords(nxdomain=True)


async def test_aliases(server: DnsServer) -> None:
    server.add("a.example", "CNAME", "b.example.", secure=True)
    server.add("b.example", "CNAME", "c.example.")
    server.add("c.example", "A", "192.0.2.3", secure=True)
    asking = resolver(server)
    assert await asking.ipv4("a.example") == Answer((ip_address("192.0.2.3"),), False, "c.example")
    assert await asking.cname("a.example") == Answer(("b.example",), True, "a.example")
    assert await asking.cname("b.example") == Answer(("c.example",), False, "b.example")
    assert await asking.cname("c.example") == NoRecords()


async def test_aliases_in_a_circle(server: DnsServer) -> None:
    server.add("a.example", "CNAME", "b.example.")
    server.add("b.example", "CNAME", "c.example.")
    server.add("c.example", "CNAME", "b.example.")
    asking = resolver(server)
    reply = await asking.ipv4("a.example")
    assert reply == DnsTrouble("DNS: no answer for a.example A: 127.0.0.1: its aliases (CNAME) have no end")


async def test_aliases_without_end(server: DnsServer) -> None:
    for number in range(20):
        server.add(f"a{number}.example", "CNAME", f"a{number + 1}.example.")
    server.add("a20.example", "A", "192.0.2.1")
    reply = await resolver(server).ipv4("a0.example")
    assert isinstance(reply, DnsTrouble)
    assert reply.text.endswith("its aliases (CNAME) have no end")


async def test_an_alias_of_what_is_not_there(server: DnsServer) -> None:
    server.add("a.example", "CNAME", "gone.example.")
    assert await resolver(server).mx("a.example") == NoRecords(nxdomain=True)


# --- Faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("SERVFAIL", "DNS: no answer for example.org MX: 127.0.0.1: SERVFAIL"),
        ("REFUSED", "DNS: no answer for example.org MX: 127.0.0.1: REFUSED"),
        ("silent", "DNS: no answer in time for example.org MX: 127.0.0.1: timed out"),
        ("garbage", "DNS: no answer in time for example.org MX: 127.0.0.1: timed out"),
        ("truncated for ever", "DNS: no answer for example.org MX: 127.0.0.1: truncated over TCP"),
        (
            "tcp broken",
            "DNS: no answer for example.org MX: 127.0.0.1: hung up in the middle of its answer",
        ),
    ],
)
async def test_trouble(server: DnsServer, fault: Fault, text: str) -> None:
    server.fail("example.org", "MX", fault)
    asking = resolver(server, timeout=0.3)
    assert await asking.mx("example.org") == DnsTrouble(text)
    server.repair("example.org", "MX")  # and is not remembered
    assert await asking.mx("example.org") == Answer((MX,), True, "example.org")


@pytest.mark.parametrize("fault", ["truncated", "forged id", "forged question"])
async def test_faults_that_are_overcome(server: DnsServer, fault: Fault) -> None:
    server.fail("example.org", "MX", fault)
    assert await resolver(server).mx("example.org") == Answer((MX,), True, "example.org")
    assert server.asked == ["example.org MX"] + ["example.org MX TCP"] * (fault == "truncated")


@pytest.mark.parametrize("fault", ["other names", "more names"])
async def test_records_that_nobody_asked_for_are_not_believed(server: DnsServer, fault: Fault) -> None:
    server.add("victim.example", "MX", "10 mx.example.org.")
    server.fail("example.org", "MX", fault)
    asking = resolver(server)
    answer = Answer((MX,), True, "example.org") if fault == "more names" else NoRecords(authentic=True)
    assert await asking.mx("example.org") == answer
    assert await asking.mx("victim.example") == Answer((MX,), False, "victim.example")
    assert "victim.example MX" in server.asked


async def test_an_answer_has_a_size(server: DnsServer) -> None:
    """What anybody may have in DNS is not read at any length: that takes time, and is nobody else's."""
    server.add("large.example", "TXT", *(f'"{number:03}{"x" * 250}"' for number in range(60)))
    server.add("larger.example", "TXT", *(f'"{number:03}{"x" * 250}"' for number in range(65)))
    asking = resolver(server, timeout=30.0)
    answer = await asking.txt("large.example")
    assert isinstance(answer, Answer)
    assert len(answer.records) == 60
    trouble = await asking.txt("larger.example")
    assert isinstance(trouble, DnsTrouble)
    assert re.fullmatch(
        r"DNS: no answer for larger.example TXT: 127.0.0.1: an answer of \d+ bytes, which is more than 16384",
        trouble.text,
    )


async def test_another_server_answers_when_one_does_not(server: DnsServer) -> None:
    settings = server.settings(timeout=1.0)
    nobody = settings.model_copy(update={"nameservers": ("127.0.0.99", "127.0.0.1")})
    assert await Resolver(nobody).mx("example.org") == Answer((MX,), True, "example.org")


async def test_no_server_is_known(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def nothing(*_args: object) -> None:
        raise OSError("cannot open /etc/resolv.conf")

    monkeypatch.setattr(BaseResolver, "read_resolv_conf", nothing)
    assert Resolver(DnsSettings())._inner.nameservers == ["127.0.0.1"]
    assert "dns.nameservers: none are set, and /etc/resolv.conf names none" in caplog.text


# --- The cache --------------------------------------------------------------------------------------


async def test_kept_for_as_long_as_the_owner_allows(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(trio, "current_time", lambda: now)
    server.add("short.example", "MX", "1 mx.example.", ttl=30)
    server.add("long.example", "MX", "1 mx.example.", ttl=1_000_000)
    server.add("never.example", "MX", "1 mx.example.", ttl=0)
    asking = resolver(server)

    async def asked(domain: str) -> int:
        before = len(server.asked)
        await asking.mx(domain)
        return len(server.asked) - before

    for domain in ("short.example", "long.example", "none.example", "never.example"):
        assert await asked(domain) == 1
    assert await asked("SHORT.example") == await asked("none.example") == 0
    assert await asked("never.example") == 1
    now += 31
    assert await asked("short.example") == 1
    assert await asked("none.example") == 0
    now += 30  # the SOA's minimum is 60
    assert await asked("none.example") == 1
    now += dns.MAX_TTL - 62
    assert await asked("long.example") == 0
    now += 2
    assert await asked("long.example") == 1


@pytest.mark.parametrize(
    ("soa", "times"), [(".", 1), ("example.", 1), ("", 2), ("other.example.", 2)]
)  # of zones that the name is in, of none, and of another
@pytest.mark.parametrize(
    ("domain", "nxdomain"), [("none.example", True), ("text.example", False), ("alias.example", True)]
)
async def test_that_there_is_nothing_is_kept_only_as_an_soa_allows(
    server: DnsServer, soa: str, times: int, domain: str, nxdomain: bool
) -> None:
    server.add("text.example", "TXT", "hello")
    server.add("alias.example", "CNAME", "gone.example.")
    server.soa = soa
    asking = resolver(server)
    for _ in range(2):
        assert await asking.mx(domain) == NoRecords(nxdomain=nxdomain)
    assert len(server.asked) == times


async def test_the_cache_has_a_size() -> None:
    cache = dns._Cache(5000)
    for number in range(100):
        cache.put((f"{number}.example", RdataType.A), Answer(("192.0.2.1",)), 60)
        cache.get(("0.example", RdataType.A))  # in use, and so kept
    assert cache.get(("0.example", RdataType.A)) is not None
    assert cache.get(("1.example", RdataType.A)) is None
    assert cache.get(("99.example", RdataType.A)) is not None
    assert cache._size <= 5000
    cache.put(("huge.example", RdataType.TXT), Answer((b"x" * 6000,)), 60)
    assert cache._size == 0
    cache.put(("a.example", RdataType.A), NoRecords(), 60)
    cache.put(("a.example", RdataType.A), NoRecords(), 0)  # replaced by what may not be kept
    assert cache._size == 0
    assert cache.get(("a.example", RdataType.A)) is None


async def test_silent_domains_hold_up_no_others(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.net.dns._MAX_QUERIES", 3)
    monkeypatch.setattr("gateway.net.dns._SLOW_AFTER", 0.05)
    asking = resolver(server, timeout=10 * PATIENCE)
    server.add("good.example", "A", "192.0.2.1")
    for number in range(9):
        server.fail(f"s{number}.example", "A", "silent")
    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(asking.ipv4, f"s{number}.example")
        await trio.sleep(0.01)
        with trio.fail_after(PATIENCE):
            assert isinstance(await asking.ipv4("good.example"), Answer)
        nursery.cancel_scope.cancel()
    assert asking._limiter.borrowed_tokens == 0


async def test_equal_questions_are_asked_once(server: DnsServer) -> None:
    asking = resolver(server)
    answers = []

    async def ask() -> None:
        answers.append(await asking.mx("example.org"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert answers == [Answer((MX,), True, "example.org")] * 10
    assert server.asked == ["example.org MX"]


async def test_who_asked_first_may_be_cancelled(server: DnsServer) -> None:
    server.fail("example.org", "MX", "silent")
    asking = resolver(server)
    answers = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await asking.mx("example.org"))

    first = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, first)
        await server.arrived.wait()
        for _ in range(3):
            nursery.start_soon(ask, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        server.repair("example.org", "MX")
        first.cancel()
    assert answers == [Answer((MX,), True, "example.org")] * 3
    assert len(server.asked) == 2
