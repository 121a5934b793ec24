"""DKIM signatures that came in: what signers make verifies, what was changed or may not count does not."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import Clock
from gateway.inbound.verify.dkim import check_dkim
from gateway.mail.auth_results import DkimCheck
from gateway.mail.dkim_body import BodyHash, Canonicalization
from gateway.mail.dkim_signature import (
    MAX_SIGNATURES,
    Signature,
    check_signatures,
    read_signatures,
)
from gateway.offload import Offload
from gateway_dkim.signature import Signer, dns_record
from tests.counting import at_most
from tests.inbound.verify.zones import Zones

RSA = rsa.generate_private_key(65537, 1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()
PEM = RSA.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
)
HEADER = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net,\r\n\tcarol@example.net\r\n"
    b"Subject:  Hello  there \r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\nX-Other: x\r\n\r\n"
)
BODY = b"Hello  Bob. \r\n\r\n.\ttabs\t\r\n \r\n\r\n\r\n"
NOW = int(time.time())


def record(key: Any = RSA, **tags: str) -> bytes:
    more = "".join(f"; {name}={value}" for name, value in tags.items())
    return (dns_record(key) + more).encode()


def verify(message: bytes, key_record: bytes | None = None, now: int = NOW) -> list[DkimCheck]:
    """All signatures, with one key for them all."""
    head, _, body = message.partition(b"\r\n\r\n")
    section = head + b"\r\n\r\n"
    hashes: dict[Canonicalization, bytes] = {}
    kinds: tuple[Canonicalization, ...] = ("simple", "relaxed")
    for kind in kinds:
        one = BodyHash(kind)
        one.update(body)
        hashes[kind] = one.digest()
    results: list[DkimCheck] = []
    for found in read_signatures(section):
        if isinstance(found, DkimCheck):
            results.append(found)
        else:
            results += check_signatures(
                section, [(found, record() if key_record is None else key_record)], hashes, now
            )
    return results


def signed(message: bytes = HEADER + BODY, **options: Any) -> bytes:
    """By dkimpy, with RSA."""
    field: bytes = dkim.sign(message, b"sel", b"example.org", PEM, **options)
    return field + message


def only(checks: list[DkimCheck]) -> tuple[str, str]:
    [check] = checks
    return check.result, check.reason


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize("content", [BODY, b"", b"\r\n\r\n", b" \t\r\n", b"x\r\n", b"a  b\r\n\r\nc \r\n"])
def test_what_dkimpy_signs(header: bytes, body: bytes, content: bytes) -> None:
    message = signed(HEADER + content, canonicalize=(header, body))
    assert verify(message) == [
        DkimCheck(
            result="pass",
            domain="example.org",
            selector="sel",
            algorithm="rsa-sha256",
            signature=_begin(message),
        )
    ]
    assert only(verify(message.replace(b"Subject", b"Subjekt")))[0] == "fail"
    assert only(verify(message + b"more\r\n")) == ("fail", "the body was changed")


def _begin(message: bytes) -> str:
    [found] = read_signatures(message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert isinstance(found, Signature)
    return base64.b64encode(found.value).decode()[:8]


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_what_the_plugin_signs(key: Any) -> None:
    message = HEADER + BODY
    message = Signer("example.org", "s1", key).sign(message) + message
    [check] = verify(message, record(key))
    assert (check.result, check.selector, check.domain) == ("pass", "s1", "example.org")
    assert only(verify(message.replace(b"Hello", b"Hallo", 1), record(key)))[0] == "fail"
    assert only(verify(b"From: eve@example.com\r\n" + message, record(key)))[0] == "fail"  # over-signed


lines = st.lists(st.sampled_from([b"a", b"  ", b"\t", b" b ", b"\r\n", b"\r\n", b"."]), max_size=30).map(
    b"".join
)


@given(body=lines, cuts=st.lists(st.integers(0, 60), max_size=5), relaxed=st.booleans())
def test_the_body_in_any_pieces(body: bytes, cuts: list[int], relaxed: bool) -> None:
    policy = dkim.canonicalization.Relaxed if relaxed else dkim.canonicalization.Simple
    body = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    wanted = hashlib.sha256(policy.canonicalize_body(body)).digest()
    one = BodyHash("relaxed" if relaxed else "simple")
    at = 0
    for cut in [*sorted(cuts), len(body)]:
        one.update(body[at:cut])
        at = max(at, cut)
    assert one.digest() == wanted


def test_many_empty_lines_before_the_end() -> None:
    kinds: tuple[Canonicalization, ...] = ("simple", "relaxed")
    for kind in kinds:
        whole, parts = BodyHash(kind), BodyHash(kind)
        whole.update(b"a\r\n" + b"\r\n" * 200_001 + b"b\r\n\r\n")
        parts.update(b"a\r\n\r")
        parts.update(b"\n" + b"\r\n" * 200_000 + b"b")
        parts.update(b"\r\n\r\n")
        assert whole.digest() == parts.digest()


# --- What does not count --------------------------------------------------------------------------


def test_a_length_is_a_failure() -> None:
    assert only(verify(signed(length=True))) == ("fail", "l= leaves a part of the body unsigned")


@pytest.mark.parametrize(
    ("key_record", "wanted"),
    [
        (b"v=DKIM1; p=", ("permerror", "the key is revoked")),
        (b"v=DKIM2; p=AAAA", ("permerror", "the key record is none of DKIM")),
        (b"hello", ("permerror", "b'hello' is no tag")),
        (record(h="sha1"), ("permerror", "the key is not for SHA-256")),
        (record(s="tlsrpt"), ("permerror", "the key is not for email")),
        (record(h="sha1:sha256", s="email", n="note"), ("pass", "")),
        (record(t="y:s"), ("pass", "")),
        (record(ED25519), ("permerror", "the key is of another kind than a=")),
        (b"v=DKIM1; k=rsa; p=AAAA", ("permerror", "the RSA key cannot be read")),
        (b"v=DKIM1; k=dsa; p=AAAA", ("permerror", "k=b'dsa' is no kind of key that is known")),
        (b"v=DKIM1; k=ed25519; p=AAAA", ("permerror", "the Ed25519 key cannot be read")),
        (b"v=DKIM1; p=" + b"A" * 5000, ("permerror", "the key record is longer than 4096 octets")),
        (record().replace(b"v=DKIM1; ", b""), ("pass", "")),
        (b"v=DKIM1; v=DKIM1; p=AAAA", ("permerror", "v= is there twice")),
    ],
    ids=range(14),
)
def test_key_records(key_record: bytes, wanted: tuple[str, str]) -> None:
    assert only(verify(signed(), key_record)) == wanted


def test_sizes_of_rsa_keys() -> None:
    small = _crafted(2**767 + 1, 65537)
    assert only(verify(signed(), small)) == ("fail", "the RSA key has only 768 bits")
    large = _crafted(2**8191 + 1, 65537)
    assert only(verify(signed(), large)) == ("fail", "the RSA key is too large (8192 bits)")
    slow = _crafted(2**2047 + 1, 2**2000 + 1)
    assert only(verify(signed(), slow)) == ("fail", "the RSA key is too large (2048 bits)")


def _crafted(modulus: int, exponent: int) -> bytes:
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def test_a_key_on_trial_fails_nobody() -> None:
    message = signed() + b"more\r\n"
    assert only(verify(message, record(t="y"))) == ("neutral", "the body was changed")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"v=1", b"v=2", "v= is not 1"),
        (b"rsa-sha256", b"rsa-sha1", "a='rsa-sha1' is no algorithm that counts"),
        (b" bh=", b" bx=", "bh= is missing"),
        (b" bh=", b" bh=!", "bh= is not base64"),
        (b"from", b"frum", "h= is without From"),
        (b"q=dns/txt", b"q=dns/other", "q= has no method that is known"),
        (b"i=@example.org", b"i=@example.com", "i= is of another domain than d="),
        (b"i=@example.org", b"i=@notexample.org", "i= is of another domain than d="),
        (b"s=sel", b"s=..", "s= and d= name no key"),
        (b"s=sel", b"s=" + b"a-" * 7000, "s= and d= name no key"),
        (b"s=sel", b"s=sel; s=sel", "s= is there twice"),
        (b"example.org", b"[192.0.2.1]", "s= and d= name no key"),
        (b"s=sel", b"s=sel; x=1", "x= is before t="),
        (b"s=sel", b"s=sel; x=9z", "x= is no number"),
        (b"s=sel", b"s=sel; \xff\xfe", "b' \\xff\\xfe' is no tag"),
        (b"c=relaxed", b"c=plain", "c= is no canonicalization"),
        (b"s=sel", b"s=sel; z=" + b"a" * 17000, "the signature is longer than 16384 octets"),
        (b"h=from", b"h=from" + b":x" * 501, "h= has more than 500 names"),
    ],
)
def test_signatures_that_cannot_be_read(old: bytes, new: bytes, reason: str) -> None:
    message = signed()
    head, _, rest = message.partition(HEADER)
    assert old in head
    assert only(verify(head.replace(old, new) + HEADER + rest)) == ("neutral", reason)


def test_expiry_and_identity() -> None:
    tampered = signed().replace(b"s=sel;", b"s=sel; x=%d;" % (NOW + 86_400))
    assert only(verify(tampered)) == ("fail", "the signature is not of this header, or of another key")
    assert only(verify(tampered, now=NOW + 86_401)) == ("fail", "the signature has expired")
    below = signed(identity=b"@lists.example.org")
    assert only(verify(below)) == ("pass", "")
    assert only(verify(below, record(t="s")))[0] == "permerror"


# --- With look-ups --------------------------------------------------------------------------------


async def check(dns: Zones, message: bytes) -> tuple[DkimCheck, ...]:
    head, _, body = message.partition(b"\r\n\r\n")
    section = head + b"\r\n\r\n"
    hashes: dict[Canonicalization, bytes] = {}
    kinds: tuple[Canonicalization, ...] = ("simple", "relaxed")
    for kind in kinds:
        one = BodyHash(kind)
        one.update(body)
        hashes[kind] = one.digest()
    async with Offload.open() as offload:
        now = int(Clock().now().timestamp())
        return await check_dkim(dns, offload, section, read_signatures(section), hashes, now)


async def test_several_signatures() -> None:
    message = HEADER + BODY
    message = Signer("example.org", "a", RSA).sign(message) + message
    message = Signer("bücher.example", "b", ED25519).sign(message) + message
    message = Signer("gone.example", "c", RSA).sign(message) + message
    message = Signer("slow.example", "d", RSA).sign(message) + message
    message = Signer("two.example", "e", RSA).sign(message) + message
    dns = Zones()
    dns.add("a._domainkey.example.org", "TXT", record())
    dns.add("b._domainkey.xn--bcher-kva.example", "TXT", record(ED25519))
    dns.silent.add("d._domainkey.slow.example")
    dns.add("e._domainkey.two.example", "TXT", record(), record(ED25519))
    found = await check(dns, message)
    assert [(one.domain, one.result, one.reason) for one in found] == [
        ("two.example", "permerror", "there are several keys"),
        ("slow.example", "temperror", "DNS: no answer in time"),
        ("gone.example", "permerror", "there is no key"),
        ("bücher.example", "pass", ""),
        ("example.org", "pass", ""),
    ]


async def test_a_thousand_signatures() -> None:
    """Ten are looked at, and as many keys at most looked up."""
    message = HEADER + BODY
    bad = b"".join(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n" % number
        for number in range(1000)
    )
    dns = Zones()
    with at_most(20_000):
        found = await check(dns, bad + message)
    assert len(found) == len(dns.asked) == MAX_SIGNATURES
    assert {one.result for one in found} == {"permerror"}


async def test_a_large_header_goes_to_a_worker() -> None:
    message = HEADER.replace(b"X-Other: x\r\n", b"X-Other: x\r\n" * 9000) + BODY
    message = Signer("example.org", "a", RSA).sign(message) + message
    dns = Zones()
    dns.add("a._domainkey.example.org", "TXT", record())
    assert [one.result for one in await check(dns, message)] == ["pass"]


@given(st.binary(max_size=300))
def test_anything_can_stand_in_a_signature(value: bytes) -> None:
    section = b"DKIM-Signature: " + value.replace(b"\n", b"") + b"\r\n" + HEADER
    assert len(read_signatures(section)) >= 1


@given(st.binary(max_size=300))
def test_anything_can_stand_in_dns(value: bytes) -> None:
    assert only(verify(signed(), value))[0] in ("permerror", "fail")
