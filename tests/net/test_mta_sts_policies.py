"""Policies from a real DNS server and a real HTTPS server, kept in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
import trio
import trio.testing

from gateway.clock import ManualClock
from gateway.errors import StoreUnavailable
from gateway.net import mta_sts_policies
from gateway.net.dns import DnsTrouble, Resolver
from gateway.net.mta_sts import Policy, StsAnswer, parse_policy
from gateway.net.mta_sts_policies import MtaStsPolicies
from gateway.store import mta_sts as stored
from gateway.store.store import Store
from gateway.store.tables import mta_sts_policy
from tests.dns_server import DnsServer, dns_server
from tests.net.authority import new_root, root
from tests.net.policy_server import HOST, TEXT, PolicyServer

OTHER = TEXT.replace(b"enforce", b"testing")
TXT = "_mta-sts.example.org", "TXT"
DAY = 86400
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]

T = TypeVar("T")


@dataclass(kw_only=True)
class World(PolicyServer):
    """Everything around the policies of example.org."""

    dns: DnsServer
    clock: ManualClock
    store: Store

    def policies(self) -> MtaStsPolicies:
        """As after a start: nothing is known but what the store has."""
        resolver = Resolver(self.dns.settings(timeout=1.0))
        context = root().client_context()
        return MtaStsPolicies(resolver, self.store, self.clock, context=context, port=self.port)

    async def find(self, domain: str = "example.org") -> StsAnswer | DnsTrouble:
        return await self.policies().find(domain, allow_networks=LOOPBACK)

    def announce(self, record_id: str) -> None:
        self.dns.add(*TXT, f'"v=STSv1; id={record_id};"', ttl=0)


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock()
    async with dns_server() as dns, Store.open(tmp_path, clock) as store, trio.open_nursery() as nursery:
        world = World(dns=dns, clock=clock, store=store)
        dns.add(HOST, "A", "127.0.0.1")
        world.announce("1")
        await world.listen(nursery)
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as world:
        yield world


def policy(answer: StsAnswer | DnsTrouble) -> Policy | None:
    assert isinstance(answer, StsAnswer)
    return answer.policy


# --- Without anything kept --------------------------------------------------------------------------


async def test_fetched_and_kept(world: World) -> None:
    assert await world.find() == StsAnswer(parse_policy(TEXT))
    [request] = world.requests
    assert request.startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.org\r\n")
    assert await world.find() == StsAnswer(parse_policy(TEXT))
    assert len(world.requests) == 1


async def test_no_record_no_policy(world: World) -> None:
    world.dns.remove(*TXT)
    assert await world.find() == StsAnswer()
    world.dns.add(*TXT, '"v=STSv1; nonsense"')
    assert await world.find() == StsAnswer()
    assert await world.find("[192.0.2.1]") == StsAnswer()
    assert world.requests == []


async def test_record_not_known(world: World) -> None:
    world.dns.fail(*TXT, "SERVFAIL")
    assert await world.find() == DnsTrouble(
        "DNS: no answer for _mta-sts.example.org TXT: 127.0.0.1: SERVFAIL"
    )


async def test_a_domain_in_unicode(world: World) -> None:
    world.certificate = root().issue("mta-sts.xn--bcher-kva.example")
    world.dns.add("_mta-sts.xn--bcher-kva.example", "TXT", '"v=STSv1; id=1"')
    world.dns.add("mta-sts.xn--bcher-kva.example", "A", "127.0.0.1")
    assert policy(await world.find("bücher.example")) == parse_policy(TEXT)
    assert b"Host: mta-sts.xn--bcher-kva.example\r\n" in world.requests[0]


async def test_a_name_too_long_for_the_records(world: World) -> None:
    assert await world.find(".".join(["a" * 60] * 4)) == StsAnswer()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "sts-policy-fetch-error", "HTTP status 404"),
        (b"HTTP/1.1 503 Later\r\n\r\n" + b"x" * 70_000, "sts-policy-fetch-error", "HTTP status 503"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://other.example/\r\nContent-Length: 0\r\n\r\n",
            "sts-policy-fetch-error",
            "HTTP status 301",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + TEXT, "sts-policy-invalid", "text/plain"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + TEXT, "sts-policy-invalid", "text/plain"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nversion: 2",
            "sts-policy-invalid",
            "version is not",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 70_000,
            "sts-policy-fetch-error",
            "longer than 65536 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\nx\r\n" * 50_000,
            "sts-policy-fetch-error",
            "longer than 65536 bytes",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "sts-policy-fetch-error", "longer than 65536 bytes"),
        (b"220 mail.example.org ESMTP\r\n", "sts-policy-fetch-error", "no proper HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000, "sts-policy-fetch-error", "no proper HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 90\r\n\r\n" + TEXT[:20],
            "sts-policy-fetch-error",
            "no proper HTTP",
        ),
        (b"", "sts-policy-fetch-error", "no proper HTTP"),
    ],
)
async def test_a_failing_first_fetch_means_no_policy(
    world: World, answer: bytes, kind: str, text: str
) -> None:
    world.answer = answer
    found = await world.find()
    assert isinstance(found, StsAnswer)
    assert found.policy is None
    assert found.fault is not None
    assert found.fault.type == kind
    assert text in found.fault.text


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (lambda: root().issue("example.org"), "Hostname mismatch"),
        (lambda: root().issue(HOST, days=-1), "certificate has expired"),
        (lambda: new_root().issue(HOST), "unable to get local issuer|self-signed certificate"),
    ],
)
async def test_a_certificate_that_is_not_right(world: World, certificate: object, text: str) -> None:
    assert callable(certificate)
    world.certificate = certificate()
    found = await world.find()
    assert isinstance(found, StsAnswer)
    assert found.policy is None
    assert found.fault is not None
    assert found.fault.type == "sts-webpki-invalid"
    assert any(part in found.fault.text for part in text.split("|"))
    assert world.requests == []


async def test_nobody_there(world: World) -> None:
    with_nobody = world.policies()
    [free] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with_nobody._port = free.socket.getsockname()[1]
    await free.aclose()
    found = await with_nobody.find("example.org", allow_networks=LOOPBACK)
    assert isinstance(found, StsAnswer)
    assert found.fault is not None
    assert found.fault.text.startswith(f"cannot connect to {HOST} port")
    world.dns.remove(HOST, "A")
    found = await world.find()
    assert isinstance(found, StsAnswer)
    assert found.fault is not None
    assert found.fault.text == f"{HOST} has no address"


async def test_addresses_that_are_not_public_are_not_connected_to(world: World) -> None:
    """Whoever has the domain could have us talk to what only our network reaches."""
    policies = world.policies()
    found = await policies.find("example.org")
    assert isinstance(found, StsAnswer)
    assert found.fault is not None
    assert (found.policy, found.fault.type) == (None, "sts-policy-fetch-error")
    assert found.fault.text == f"{HOST} has no public address, only 127.0.0.1"
    world.dns.add(HOST, "AAAA", "::ffff:127.0.0.1", "fd00::1", "::1")
    found = await world.policies().find("example.org")
    assert isinstance(found, StsAnswer)
    assert found.fault is not None
    assert world.connections == 0
    # That it failed for one is nothing to those who may connect there.
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(TEXT)


async def test_a_server_that_says_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mta_sts_policies, "FETCH_TIME", 0.2)
    world.silent = True
    found = await world.find()
    assert isinstance(found, StsAnswer)
    assert found.fault is not None
    assert found.fault.text == f"no answer of {HOST} within 0.2 seconds"


async def test_after_a_failure_there_is_a_pause(world: World) -> None:
    world.answer = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    policies = world.policies()
    first = await policies.find("example.org", allow_networks=LOOPBACK)
    assert await policies.find("example.org", allow_networks=LOOPBACK) == first
    assert len(world.requests) == 1
    world.answer = None
    world.clock.advance(mta_sts_policies.RETRY_AFTER + 1)
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(TEXT)


async def test_a_new_record_ends_the_pause(world: World) -> None:
    world.answer = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    policies = world.policies()
    await policies.find("example.org", allow_networks=LOOPBACK)
    world.answer = None
    world.announce("2")
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(TEXT)


async def test_many_at_once_fetch_once(world: World) -> None:
    policies = world.policies()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(partial(policies.find, "example.org", allow_networks=LOOPBACK))
    assert len(world.requests) == 1


# --- With a kept policy -----------------------------------------------------------------------------


async def test_a_new_record_brings_a_new_policy(world: World) -> None:
    await world.find()
    world.page = OTHER
    assert policy(await world.find()) == parse_policy(TEXT)
    world.announce("2")
    assert policy(await world.find()) == parse_policy(OTHER)
    assert policy(await world.find()) == parse_policy(OTHER)
    assert len(world.requests) == 2


async def test_what_the_store_has_is_remembered_for_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = world.store.read

    async def counted(work: Callable[[sa.Connection], T]) -> T:
        reads.append(work)
        return await read(work)

    monkeypatch.setattr(world.store, "read", counted)
    world.page = TEXT.replace(b"86400", b"90")
    policies = world.policies()
    await policies.find("example.org", allow_networks=LOOPBACK)
    world.dns.fail(*TXT, "SERVFAIL")
    world.clock.advance(40)
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(world.page)
    assert len(reads) == 1
    world.clock.advance(40)
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(world.page)
    assert len(reads) == 2
    world.clock.advance(10)  # it has expired
    assert isinstance(await policies.find("example.org", allow_networks=LOOPBACK), DnsTrouble)
    assert len(reads) == 2


@pytest.mark.parametrize("trouble", ["no record", "SERVFAIL", "two records"])
async def test_without_a_record_it_holds_until_it_expires(world: World, trouble: str) -> None:
    await world.find()
    if trouble == "SERVFAIL":
        world.dns.fail(*TXT, "SERVFAIL")
    else:
        world.dns.remove(*TXT)
    if trouble == "two records":
        world.dns.add(*TXT, '"v=STSv1; id=3"', '"v=STSv1; id=4"', ttl=0)
    world.clock.advance(DAY - 1)
    assert await world.find() == StsAnswer(parse_policy(TEXT))
    world.clock.advance(1)
    found = await world.find()
    assert isinstance(found, DnsTrouble) if trouble == "SERVFAIL" else found == StsAnswer()


async def test_when_its_refresh_fails_it_holds(world: World) -> None:
    await world.find()
    world.announce("2")
    world.answer = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    found = await world.find()
    assert isinstance(found, StsAnswer)
    assert found.policy == parse_policy(TEXT)
    assert found.fault is not None
    assert found.fault.type == "sts-policy-fetch-error"
    world.clock.advance(DAY)
    assert policy(await world.find()) is None


async def test_mode_none_is_kept_as_well(world: World) -> None:
    world.page = b"version: STSv1\nmode: none\nmax_age: 86400\n"
    for _ in range(2):
        found = policy(await world.find())
        assert found is not None
        assert not found.active
    assert len(world.requests) == 1


async def test_max_age_zero_is_not_kept(world: World) -> None:
    world.page = TEXT.replace(b"86400", b"0")
    for _ in range(2):
        assert policy(await world.find()) == parse_policy(world.page)
    assert len(world.requests) == 2


async def test_refresh(world: World) -> None:
    policies = world.policies()
    await policies.find("example.org", allow_networks=LOOPBACK)
    await policies.refresh()
    assert len(world.requests) == 1
    world.clock.advance(DAY / 2)
    world.page = OTHER
    await policies.refresh()
    assert len(world.requests) == 2
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(OTHER)
    world.clock.advance(DAY - 1)  # it would have expired without the refresh
    assert policy(await policies.find("example.org", allow_networks=LOOPBACK)) == parse_policy(OTHER)
    world.dns.remove(*TXT)
    await policies.refresh()
    assert len(world.requests) == 2
    world.clock.advance(1)
    await policies.refresh()
    assert await world.store.read(lambda conn: conn.execute(mta_sts_policy.select()).all()) == []


async def test_what_nobody_needs_is_not_refreshed(world: World) -> None:
    world.page = TEXT.replace(b"86400", b"31557600")
    policies = world.policies()
    await policies.find("example.org", allow_networks=LOOPBACK)
    world.clock.advance(29 * DAY)
    await policies.refresh()
    assert len(world.requests) == 2
    world.clock.advance(2 * DAY)
    await policies.refresh()
    assert len(world.requests) == 2
    await policies.find("example.org", allow_networks=LOOPBACK)  # in use again
    await policies.refresh()
    assert len(world.requests) == 3


async def test_what_an_earlier_version_kept_and_this_one_cannot_read(world: World) -> None:
    now = world.clock.now()
    old = stored.StoredPolicy(
        domain="example.org",
        record_id="1",
        text=b"version: STSv0",
        fetched=now,
        expires=now.replace(year=2031),
        used=now,
    )
    await world.store.write(partial(stored.put, new=old))
    assert policy(await world.find()) == parse_policy(TEXT)


async def test_serving_goes_on_after_a_failure_of_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.2
    policies, again, calls = world.policies(), trio.Event(), 0

    async def refresh() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("the disk is full")
        again.set()

    monkeypatch.setattr(policies, "refresh", refresh)
    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        await nursery.start(policies.serve)
        await again.wait()
        assert trio.current_time() - started >= mta_sts_policies.EVERY
        nursery.cancel_scope.cancel()


async def test_the_second_address_is_tried(world: World) -> None:
    """Nobody listens at ::1."""
    world.dns.add(HOST, "AAAA", "::1")
    assert policy(await world.find()) == parse_policy(TEXT)
