"""Checks of a host against real handshakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.net import dane
from gateway.net.certificates import Certificate
from gateway.net.dns import Tlsa
from gateway.net.plan import Check, TlsNeed
from gateway.net.tls import TlsStream
from gateway.net.tls_checks import NO_STARTTLS, Verdict, with_tls, without_tls
from gateway.net.tls_contexts import observing_context, server_context
from gateway.net.tls_results import UNREADABLE_CERTIFICATE, TlsFault
from tests.net.authority import Issued, new_root, root
from tests.net.odd_certificates import UNREADABLE, unreadable

HOST = "mx.example.org"
NOW = datetime.now(UTC)


def tlsa(issued: Issued, usage: int) -> Tlsa:
    """The whole certificate."""
    return Tlsa(usage, 0, 0, issued.certificate.public_bytes(Encoding.DER))


@asynccontextmanager
async def connected(issued: Issued, tmp_path: Path, host: str = HOST) -> AsyncIterator[TlsStream]:
    """A client that knows `root()`, after its handshake with a server that has this certificate."""
    assert isinstance(issued.key, ec.EllipticCurvePrivateKey)
    context = server_context(Certificate(tuple(issued.chain), issued.key))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    below, above = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: TlsStream.accept(above, context, timeout=5))
        yield await TlsStream.connect(below, observing_context(ca_file=str(ca_file)), host, timeout=5)


def need(*checks: Check) -> TlsNeed:
    return TlsNeed(required=any(check.enforced for check in checks), server_name=HOST, checks=checks)


def dane_check(*records: Tlsa, enforced: bool = True) -> Check:
    assert dane.usable(records) == records
    return Check(type="tlsa", domain=HOST, enforced=enforced, names=(HOST, "example.org"), tlsa=records)


def sts_check(*, enforced: bool = True, fault: TlsFault | None = None) -> Check:
    return Check(type="sts", domain="example.org", enforced=enforced, names=(HOST,), fault=fault)


GOOD, OTHER_NAME, EXPIRED, UNKNOWN = (
    root().issue(HOST),
    root().issue("other.example"),
    root().issue(HOST, days=-1),
    new_root("Unknown Root").issue(HOST),
)


@pytest.mark.parametrize(
    ("issued", "dane_record", "dane_fault", "sts_fault"),
    [
        (GOOD, tlsa(GOOD, 3), None, None),
        (GOOD, tlsa(root(), 2), None, None),
        (GOOD, tlsa(UNKNOWN, 3), "validation-failure", None),
        (UNKNOWN, tlsa(UNKNOWN, 3), None, "certificate-not-trusted"),
        (UNKNOWN, tlsa(root(), 2), "certificate-not-trusted", "certificate-not-trusted"),
        (EXPIRED, tlsa(EXPIRED, 3), None, "certificate-expired"),
        (EXPIRED, tlsa(root(), 2), "certificate-expired", "certificate-expired"),
        (OTHER_NAME, tlsa(OTHER_NAME, 3), None, "certificate-host-mismatch"),
        (OTHER_NAME, tlsa(root(), 2), "certificate-host-mismatch", "certificate-host-mismatch"),
    ],
)
async def test_both_must_pass(
    issued: Issued, dane_record: Tlsa, dane_fault: str | None, sts_fault: str | None, tmp_path: Path
) -> None:
    async with connected(issued, tmp_path) as stream:
        for enforced in (True, False):
            wanted = need(dane_check(dane_record, enforced=enforced), sts_check(enforced=enforced))
            verdicts = with_tls(wanted, stream, NOW)
            assert [verdict.fault and verdict.fault.type for verdict in verdicts] == [dane_fault, sts_fault]
            assert [verdict.refuses for verdict in verdicts] == [
                enforced and fault is not None for fault in (dane_fault, sts_fault)
            ]


async def test_without_a_policy_anybody_will_do(tmp_path: Path) -> None:
    none = need(Check(type="no-policy-found", domain="example.org"))
    async with connected(UNKNOWN, tmp_path) as stream:
        assert with_tls(none, stream, NOW) == (Verdict(none.checks[0]),)


async def test_a_fault_that_is_known_before_stays(tmp_path: Path) -> None:
    known = TlsFault("validation-failure", "another host")
    wanted = need(sts_check(enforced=False, fault=known))
    async with connected(GOOD, tmp_path) as stream:
        assert with_tls(wanted, stream, NOW) == (Verdict(wanted.checks[0], known),)
    assert without_tls(wanted) == (Verdict(wanted.checks[0], known),)


def test_without_tls() -> None:
    policy, report = dane_check(tlsa(GOOD, 3)), sts_check(enforced=False)
    verdicts = without_tls(need(policy, report))
    assert verdicts == (Verdict(policy, NO_STARTTLS), Verdict(report, NO_STARTTLS))
    assert [verdict.refuses for verdict in verdicts] == [True, False]
    failed = TlsFault("validation-failure", "no TLS: wrong version number")
    assert without_tls(need(policy), failed) == (Verdict(policy, failed),)


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_a_certificate_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    """Nobody is known by it, and nothing is raised."""
    odd = unreadable(kind, root(), HOST)
    async with connected(odd, tmp_path) as stream:
        verdicts = with_tls(need(dane_check(tlsa(root(), 2)), sts_check()), stream, NOW)
        assert all(verdict.refuses for verdict in verdicts)


@pytest.mark.parametrize("error", [ValueError("no"), x509.InvalidVersion("no", 3), RuntimeError("whatever")])
async def test_whatever_is_raised_of_a_certificate(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peer_chain(stream: TlsStream) -> list[x509.Certificate]:
        raise error

    monkeypatch.setattr(TlsStream, "peer_chain", property(peer_chain))
    async with connected(GOOD, tmp_path) as stream:
        verdicts = with_tls(need(dane_check(tlsa(GOOD, 3)), sts_check()), stream, NOW)
    assert [verdict.fault for verdict in verdicts] == [UNREADABLE_CERTIFICATE] * 2
