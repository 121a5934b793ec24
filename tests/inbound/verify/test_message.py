"""A message on its way in: whatever pieces it comes in, and however slow DNS is."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ed25519
from trio.testing import MockClock

from gateway.clock import Clock, ManualClock
from gateway.inbound.verify.iprev import MAX_NAMES, check_iprev
from gateway.inbound.verify.message import Client, IncomingMessage, Verifier
from gateway.inbound.verify.spf import check_spf
from gateway.mail.address import Address
from gateway.mail.auth_results import AuthResults
from gateway.mail.dkim_body import BodyHash
from gateway.mail.headers import MAX_SECTION as LONGEST
from gateway.net.dns import NoRecords, Reply
from gateway.offload import Offload
from gateway.recent import Recent
from gateway_dkim.signature import Signer, dns_record
from tests.inbound.verify.zones import Zones

KEY = ed25519.Ed25519PrivateKey.generate()
CLIENT = Client(ip=ip_address("192.0.2.1"), helo="mx.example.org", mail_from=Address.parse("a@example.org"))
PLAIN = b"From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n\r\n. \r\n\r\n"
MESSAGE = Signer("example.org", "s", KEY).sign(PLAIN) + PLAIN
FORGED = b"Authentication-Results: mx.example.net; dkim=pass\r\n"


def zones() -> Zones:
    dns = Zones()
    dns.add("s._domainkey.example.org", "TXT", dns_record(KEY).encode())
    dns.add("example.org", "TXT", b"v=spf1 -all")
    dns.add("_dmarc.example.org", "TXT", b"v=DMARC1; p=reject")
    return dns


@pytest.fixture
async def verifier() -> AsyncIterator[Verifier]:
    async with Offload.open() as offload:
        yield Verifier("mx.example.net", zones(), offload, Clock(), lambda: 0.0)


async def put(message: IncomingMessage, data: bytes, size: int) -> bytes:
    """What is to be stored behind the head."""
    stored = b""
    for at in range(0, len(data), size):
        stored += await message.write(data[at : at + size])
    return stored


def short(results: AuthResults) -> tuple[str, list[str], str]:
    return results.spf.result, [check.result for check in results.dkim], results.dmarc.result


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10_000])
async def test_any_pieces(verifier: Verifier, size: int) -> None:
    message = verifier.message()
    body = await put(message, FORGED + MESSAGE, size)
    results = await message.results(CLIENT)
    assert short(results) == ("fail", ["pass"], "pass")
    head = message.head(results, CLIENT)
    assert head.startswith(b"Authentication-Results: mx.example.net; iprev=permerror")
    assert (head + body).endswith(b"header.from=example.org\r\n" + MESSAGE)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "there is no From"),
        (b"\r\n", "there is no From"),
        (b"\r\nFrom: a@example.org\r\n\r\n", "there is no From"),
        (b"no header at all", "there is no From"),
    ],
)
async def test_no_author(verifier: Verifier, data: bytes, problem: str) -> None:
    message = verifier.message()
    body = await put(message, data, 65_536)
    results = await message.results(CLIENT)
    assert (results.dmarc.result, results.dmarc.reason) == ("permerror", problem)
    head = message.head(results, CLIENT)
    assert head.startswith(b"Authentication-Results: mx.example.net; ")
    assert (head + body).endswith(b'"\r\n' + data)


LONG = b"X: y\r\n" * 200_000


@pytest.mark.parametrize(
    ("data", "domain", "problem"),
    [
        (b"X: " + b"y" * 1_000_001, "", "the header section is too long"),
        (LONG + b"From: a@example.org\r\n\r\n", "", "the header section is too long"),
        (b"From: a@example.org\r\n" + LONG + b"\r\n", "example.org", "the header section is too long"),
        (b"From: " + b"x\r\n " * 3_000 + b"<a@example.org>\r\n\r\n", "", "From is too long"),
    ],
)
async def test_an_author_who_hides_is_none(
    verifier: Verifier, data: bytes, domain: str, problem: str
) -> None:
    message = verifier.message()
    body = await put(message, data, 65_536)
    results = await message.results(CLIENT)
    dmarc = results.dmarc
    assert (dmarc.result, dmarc.domain, dmarc.disposition) == ("fail", domain, "reject")
    assert dmarc.reason == problem
    assert (message.head(results, CLIENT) + body + message.rest()).endswith(b"\r\n" + data)


@pytest.mark.parametrize("before", range(LONGEST - 60, LONGEST + 60, 7))
async def test_no_result_is_forged_in_a_header_section_that_is_not_read(
    verifier: Verifier, before: int
) -> None:
    """Wherever the part that is read ends: within the name, behind it, or long before."""
    line = b"X: " + b"y" * 90 + b"\r\n"
    data = line * (before // len(line))
    data += b"X:" + b"z" * (before - len(data) - 4) + b"\r\n"
    assert len(data) == before
    data += FORGED + b"X: y\r\n" + FORGED.upper() + b"\r\n"
    message = verifier.message()
    data += FORGED  # in the body, where it stays
    body = await message.write(data[: LONGEST + 1])
    body += await put(message, data[LONGEST + 1 :], 10)
    head = message.head(await message.results(CLIENT), CLIENT)
    stored = (head + body + message.rest()).lower()
    assert stored.count(b"\nx-authentication-results: mx.example.net; dkim=pass\r\n") == 2
    assert stored.count(b"\nauthentication-results:") == 1
    assert stored.endswith(b"\r\n\r\n" + FORGED.lower())


async def test_an_author_behind_many_fields_is_found(verifier: Verifier) -> None:
    message = verifier.message()
    await put(message, b"X: y\r\n" * 20_000 + b"fRom :\r\n a@example.org\r\n\r\n", 65_536)
    dmarc = (await message.results(CLIENT)).dmarc
    assert (dmarc.result, dmarc.domain, dmarc.disposition) == ("fail", "example.org", "reject")


async def test_a_header_without_a_body(verifier: Verifier) -> None:
    message = verifier.message()
    assert await message.write(b"From: a@example.org\r\n") == b""
    results = await message.results(CLIENT)
    assert (results.dmarc.result, results.dmarc.disposition) == ("fail", "reject")
    assert message.head(results, CLIENT).endswith(b"\r\nFrom: a@example.org\r\n")


async def test_bodies_are_hashed_only_for_signatures(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: BodyHash, piece: bytes) -> None:
        raise AssertionError

    monkeypatch.setattr(BodyHash, "update", never)
    message = verifier.message()
    assert await put(message, PLAIN, 10) == PLAIN.partition(b"\r\n\r\n")[2]
    assert (await message.results(CLIENT)).dkim == ()


# --- Slow DNS -------------------------------------------------------------------------------------


class Slow(Zones):
    """Addresses and names take ten seconds each."""

    async def ipv4(self, host: str) -> Reply[IPv4Address]:
        await trio.sleep(10)
        return NoRecords()

    async def ptr(self, address: IPv4Address | IPv6Address) -> Reply[str]:
        await trio.sleep(10)
        return await super().ptr(address)


async def test_what_holds_for_a_client_is_asked_once_a_minute() -> None:
    dns, clock = zones(), ManualClock()
    dns.add("1.2.0.192.in-addr.arpa", "PTR", "mx.example.org")
    dns.add("mx.example.org", "A", ip_address("192.0.2.1"))

    async def asked(client: Client) -> list[str]:
        dns.asked.clear()
        message = checker.message()
        await message.write(PLAIN)
        results = await message.results(client)
        assert results.iprev.result == ("pass" if client.ip == CLIENT.ip else "permerror")
        assert results.spf.result == "fail"
        return sorted(dns.asked)

    async with Offload.open() as offload:
        checker = Verifier("mx.example.net", dns, offload, clock, lambda: 0.0)
        first = await asked(CLIENT)
        assert first == [
            "1.2.0.192.in-addr.arpa PTR", "_dmarc.example.org TXT", "example.org TXT",
            "mx.example.org A", "mx.example.org TXT",
        ]  # fmt: skip
        assert await asked(CLIENT) == []
        bob = replace(CLIENT, mail_from=Address.parse("bob@example.org"))
        assert await asked(bob) == ["example.org TXT"]  # its record may ask for the localpart
        other = replace(CLIENT, helo="other.example.org")
        assert await asked(other) == ["example.org TXT", "other.example.org TXT"]
        assert "2.2.0.192.in-addr.arpa PTR" in await asked(replace(CLIENT, ip=ip_address("192.0.2.2")))
        clock.advance(61)
        assert await asked(CLIENT) == first


async def test_trouble_is_not_remembered() -> None:
    dns = zones()
    dns.silent.update(("1.2.0.192.in-addr.arpa", "mx.example.org"))
    async with Offload.open() as offload:
        verifier = Verifier("mx.example.net", dns, offload, ManualClock(), lambda: 0.0)
        for result in ("temperror", "permerror"):
            message = verifier.message()
            await message.write(PLAIN)
            results = await message.results(CLIENT)
            assert results.iprev.result == result
            assert results.helo.result == ("temperror" if dns.silent else "none")
            dns.silent.clear()


def test_what_is_remembered_is_bounded() -> None:
    recent: Recent[int] = Recent(lambda: 0.0, most=10)
    for number in range(12):
        recent.keep(number, number)
    assert [recent.get(number) for number in (0, 1, 2, 11)] == [None, None, 2, 11]


def test_what_is_too_old_is_let_go_of() -> None:
    class Large:
        pass

    now = 0.0
    recent: Recent[Large] = Recent(lambda: now, most=10, seconds=2)
    for number in range(3):
        recent.keep(number, Large())
    of_first = weakref.ref(recent.get(0))
    now = 2.1
    assert of_first() is not None
    recent.keep(3, Large())
    assert of_first() is None
    assert recent.get(3) is not None


async def test_no_check_takes_longer_than_twenty_seconds(autojump_clock: MockClock) -> None:
    dns = Slow()
    dns.add("example.org", "TXT", b"v=spf1 a mx exists:a.example.org exists:b.example.org -all")
    dns.add(CLIENT.ip.reverse_pointer, "PTR", *(f"h{number}.example" for number in range(100)))
    async with Offload.open() as offload:
        message = Verifier("mx.example.net", dns, offload, Clock(), lambda: 0.0).message()
        await message.write(b"From: a@example.com\r\n\r\n")
        started = trio.current_time()
        results = await message.results(CLIENT)
    assert trio.current_time() - started == 20
    assert (results.spf.result, results.spf.reason) == ("temperror", "it took longer than 20 s")
    assert (results.iprev.result, results.iprev.reason) == ("temperror", "it took longer than 20 s")


# --- Reverse DNS ----------------------------------------------------------------------------------


async def test_iprev() -> None:
    dns = Zones(silent={"slow.example"})
    v6 = ip_address("2001:db8::1")
    dns.add(CLIENT.ip.reverse_pointer, "PTR", "other.example", "mx.example.org")
    dns.add("other.example", "A", ip_address("192.0.2.9"))
    dns.add("mx.example.org", "A", ip_address("192.0.2.1"))
    dns.add(v6.reverse_pointer, "PTR", "mx.example.org")
    found = await check_iprev(dns, CLIENT.ip)
    assert (found.result, found.name) == ("pass", "mx.example.org")
    assert (await check_iprev(dns, v6)).result == "fail"
    dns.add("mx.example.org", "AAAA", v6)
    assert (await check_iprev(dns, v6)).result == "pass"
    assert (await check_iprev(dns, ip_address("192.0.2.2"))).result == "permerror"
    dns.add("3.2.0.192.in-addr.arpa", "PTR", "slow.example")
    assert (await check_iprev(dns, ip_address("192.0.2.3"))).result == "temperror"


async def test_an_address_with_many_names() -> None:
    dns = Zones()
    dns.add(CLIENT.ip.reverse_pointer, "PTR", *(f"h{number}.example" for number in range(1000)))
    assert (await check_iprev(dns, CLIENT.ip)).result == "fail"
    assert len(dns.asked) == 1 + MAX_NAMES


@pytest.mark.parametrize("domain", ["", "WORKSTATION", "[192.0.2.1]", "a..example", "x" * 64 + ".example"])
async def test_what_is_no_domain_is_not_asked_for(domain: str) -> None:
    dns = Zones()
    found = await check_spf(
        dns, ip=CLIENT.ip, domain=domain, localpart="", helo=domain, receiver="mx", identity="helo"
    )
    assert (found.result, dns.asked) == ("none", [])
