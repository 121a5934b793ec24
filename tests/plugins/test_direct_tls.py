"""TLS of direct delivery: without a policy, with MTA-STS, DANE, REQUIRETLS, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL

from gateway import Outcome, TlsResult
from gateway.net.mta_sts import StsAnswer
from gateway.net.plan import TlsNeed
from gateway.net.smtp_client_settings import ClientSettings
from gateway.net.streams import Stream
from gateway.net.tls import TlsStream
from gateway.net.tls_checks import Verdict, with_tls
from gateway.net.tls_results import TlsFault
from gateway.smtp.replies import Reply
from gateway_smtp.mx_server import MAX_VERDICTS
from tests.net.authority import Issued, new_root, root
from tests.net.odd_certificates import UNREADABLE, unreadable
from tests.net.test_dane import tlsa
from tests.net.test_mta_sts_policies import running as policy_server
from tests.plugins.mx_hosts import (
    BREAKS,
    MxHosts,
    breaks_in_tls,
    hangs_in_handshake,
    issued,
    mx_hosts,
    says_in_tls,
    that,
)
from tests.plugins.smtp_servers import Server, delivery

MX = "mx.example.org"
BAD = ("expired", "wrong name", "self-signed")


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    """example.org with one host, all of it authentic, and second.example with another behind it."""
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX, secure=True)
        hosts.address(MX, "127.0.0.2", secure=True)
        hosts.domain("second.example", MX, "mx2.example.org", secure=True)
        hosts.address("mx2.example.org", "127.0.0.3", secure=True)
        yield hosts


async def deliver(
    hosts: MxHosts, domain: str = "example.org", *, require_tls: bool | None = None, tls_timeout: float = 5.0
) -> Outcome:
    async with hosts.transport(tls_timeout=tls_timeout) as direct:
        [outcome] = await direct.deliver(delivery(f"b@{domain}", require_tls=require_tls))
    return outcome


def summary(outcome: Outcome) -> tuple[str, str, str]:
    return outcome.result.value, outcome.enhanced, outcome.tls


def told(results: Sequence[TlsResult]) -> list[tuple[str, str, str, str]]:
    return [(one.policy_type, one.policy_domain, one.mx_host, one.result) for one in results]


# --- Without a policy ---


@pytest.mark.parametrize("kind", ["good", *BAD])
async def test_any_certificate_will_do(hosts: MxHosts, kind: str) -> None:
    server = await hosts.server("127.0.0.2", tls=issued(kind, MX))
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "TLSv1.3, not verified")
    [session] = server.sessions.values()
    assert session.tls == "TLSv1.3"
    [result] = outcome.tls_results
    assert result == TlsResult(
        recipient_domain="example.org",
        policy_type="no-policy-found",
        policy_domain="example.org",
        mx_host=MX,
        remote_ip="127.0.0.2",
        local_ip="127.0.0.1",
    )


async def test_no_tls_offered(hosts: MxHosts) -> None:
    await hosts.server("127.0.0.2")
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "")
    assert told(outcome.tls_results) == [("no-policy-found", "example.org", MX, "starttls-not-supported")]


async def no_handshake(stream: trio.SocketStream) -> None:
    await that(replies={"STARTTLS": b"220 go\r\nnonsense\r\n"}, capabilities=("STARTTLS",))(stream)


@pytest.mark.parametrize("script", [hangs_in_handshake, no_handshake])
async def test_a_failed_handshake_is_followed_by_plain_text(hosts: MxHosts, script: object) -> None:
    assert script in (hangs_in_handshake, no_handshake)
    await hosts.script(
        "127.0.0.2", hangs_in_handshake if script is hangs_in_handshake else no_handshake, that()
    )
    outcome = await deliver(hosts, tls_timeout=0.2)
    assert summary(outcome) == ("delivered", "2.0.0", "")
    assert hosts.connections == {"127.0.0.2": 2}
    [result] = outcome.tls_results
    assert (result.policy_type, bool(result.result)) == ("no-policy-found", True)


async def test_starttls_refused(hosts: MxHosts) -> None:
    starttls = ("STARTTLS",)
    await hosts.script(
        "127.0.0.2", that(capabilities=starttls, replies={"STARTTLS": b"454 4.7.0 not now\r\n"})
    )
    assert summary(await deliver(hosts)) == ("delivered", "2.0.0", "")
    await hosts.script("127.0.0.3", that(capabilities=starttls, replies={"STARTTLS": b"421 busy\r\n"}))
    hosts.domain("busy.example", "mx2.example.org")
    outcome = await deliver(hosts, "busy.example")
    assert (outcome.result.value, outcome.code, hosts.connections["127.0.0.3"]) == ("temporary", 421, 1)


# --- A connection that ends right after the handshake ---


@pytest.mark.parametrize("how", BREAKS)
async def test_tls_that_breaks_before_a_word_is_followed_by_plain_text(hosts: MxHosts, how: str) -> None:
    await hosts.script("127.0.0.2", breaks_in_tls(how, issued("good", MX)), that())
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "")
    assert hosts.connections == {"127.0.0.2": 2}
    [result] = outcome.tls_results
    assert told([result]) == [("no-policy-found", "example.org", MX, "validation-failure")]
    assert result.detail.startswith("no TLS: right after the handshake: connection ")
    assert ("certificate required" in result.detail) == (how == "alert")


@pytest.mark.parametrize("kind", ["good", "self-signed"])
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_a_server_that_wants_our_certificate(hosts: MxHosts, version: int, kind: str) -> None:
    """Under TLS 1.2 it says so in the handshake; what comes of it is the same, whatever its own is."""
    await hosts.script("127.0.0.2", breaks_in_tls("alert", issued(kind, MX), version=version), that())
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "")
    [result] = outcome.tls_results
    assert told([result]) == [("no-policy-found", "example.org", MX, "validation-failure")]
    assert "self-signed" not in result.detail


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("policy", ["tlsa", "sts", "REQUIRETLS"])
async def test_tls_that_breaks_before_a_word_where_it_is_required(
    hosts: MxHosts, policy: str, how: str
) -> None:
    certificate = issued("good", MX)
    if policy == "tlsa":
        hosts.tlsa(MX, certificate)
    else:
        hosts.policy("example.org", MX)
    await hosts.script("127.0.0.2", breaks_in_tls(how, certificate), that())
    outcome = await deliver(hosts, require_tls=True if policy == "REQUIRETLS" else None)
    assert summary(outcome) == ("temporary", "4.7.5", "")
    assert outcome.code == 0
    assert outcome.error.startswith(f"{MX}: no TLS: right after the handshake: connection ")
    assert hosts.connections == {"127.0.0.2": 1}
    assert [(one.policy_type, one.result) for one in outcome.tls_results] == [
        ("tlsa" if policy == "tlsa" else "sts", "validation-failure")
    ]


async def test_a_policy_that_is_only_tested_does_not_keep_it_from_plain_text(hosts: MxHosts) -> None:
    hosts.policy("example.org", MX, "testing")
    await hosts.script("127.0.0.2", breaks_in_tls("alert", issued("good", MX)), that())
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "")
    assert told(outcome.tls_results) == [("sts", "example.org", MX, "validation-failure")]


@pytest.mark.parametrize(
    ("words", "code", "enhanced"),
    [
        (b"421 4.3.2 busy\r\n", 421, "4.3.2"),
        (b"451 4.7.1 later\r\n", 451, "4.7.1"),
        (b"hello\r\n", 0, "4.5.0"),
        (b"250-m", 0, "4.4.2"),
        (b"502 5.5.1 what?\r\n", 0, "4.4.2"),
    ],
)
async def test_a_server_that_has_said_anything_within_tls_has_tls(
    hosts: MxHosts, words: bytes, code: int, enhanced: str
) -> None:
    """It would say the same in plain text, and others could read the message."""
    await hosts.script("127.0.0.2", says_in_tls(words, issued("good", MX)), that())
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", code, enhanced)
    assert hosts.connections == {"127.0.0.2": 1}
    assert told(outcome.tls_results) == [("no-policy-found", "example.org", MX, "")]


async def test_a_server_that_is_slow_within_tls_has_tls(
    hosts: MxHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake went well in its time: who is busy is not asked a second time, with less."""
    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: 0.5)
    await hosts.script("127.0.0.2", says_in_tls(b"", issued("good", MX), then_waits=True), that())
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.4.2")
    assert outcome.error == f"{MX}: no reply within 0.5 seconds"
    assert hosts.connections == {"127.0.0.2": 1}
    assert told(outcome.tls_results) == [("no-policy-found", "example.org", MX, "")]


# --- MTA-STS ---


async def test_mta_sts(hosts: MxHosts) -> None:
    hosts.policy("example.org", "*.example.org")
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "TLSv1.3, verified by MTA-STS")
    [result] = outcome.tls_results
    assert told([result]) == [("sts", "example.org", MX, "")]
    assert result.policy == ("version: STSv1", "mode: enforce", "mx: *.example.org", "max_age: 86400")
    assert result.mx == ("*.example.org",)
    assert len(server.transactions) == 1


@pytest.mark.parametrize("mode", ["enforce", "testing"])
@pytest.mark.parametrize(
    ("kind", "result", "error"),
    [
        ("expired", "certificate-expired", "refused by MTA-STS: the certificate has expired"),
        (
            "wrong name",
            "certificate-host-mismatch",
            "refused by MTA-STS: the certificate is not for mx.example.org",
        ),
        ("self-signed", "certificate-not-trusted", "refused by MTA-STS: the certificate is self-signed"),
        (
            "no TLS",
            "starttls-not-supported",
            "TLS is required, and the server does not offer STARTTLS",
        ),
        ("hangs", "validation-failure", "no TLS handshake within 0.2 seconds"),
    ],
)
async def test_mta_sts_fails(hosts: MxHosts, kind: str, result: str, error: str, mode: str) -> None:
    hosts.policy("example.org", MX, mode)
    server = Server()
    if kind == "hangs":
        await hosts.script("127.0.0.2", hangs_in_handshake, that())
    else:
        await hosts.server("127.0.0.2", server, tls=None if kind == "no TLS" else issued(kind, MX))
    outcome = await deliver(hosts, tls_timeout=0.2 if kind == "hangs" else 5.0)
    assert told(outcome.tls_results) == [("sts", "example.org", MX, result)]
    if mode == "enforce":
        assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.5")
        assert outcome.error == f"{MX}: {error}"
        assert outcome.transcript
        assert server.transactions == []
        assert server.sessions == {}
    else:
        assert outcome.result.value == "delivered"
        assert "verified by" not in outcome.tls


async def test_the_next_host_may_do(hosts: MxHosts) -> None:
    hosts.policy("second.example", "*.example.org")
    first = await hosts.server("127.0.0.2", tls=issued("expired", MX))
    await hosts.server("127.0.0.3", tls=issued("good", "mx2.example.org"))
    outcome = await deliver(hosts, "second.example")
    assert (outcome.result.value, outcome.remote_mta) == ("delivered", "mx2.example.org")
    assert told(outcome.tls_results) == [
        ("sts", "second.example", MX, "certificate-expired"),
        ("sts", "second.example", "mx2.example.org", ""),
    ]
    assert first.transactions == []


async def test_a_host_that_is_not_in_the_policy(hosts: MxHosts) -> None:
    hosts.policy("example.org", "mail.example.net")
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")
    assert told(outcome.tls_results) == [("sts", "example.org", MX, "validation-failure")]
    assert server.sessions == {}


async def test_a_policy_from_its_web_server(hosts: MxHosts, tmp_path: Path) -> None:
    """Announced in DNS, fetched once, and kept when nobody can fetch it any more."""
    async with policy_server(tmp_path / "store") as world:
        hosts.real_policies = world.policies()
        hosts.dns = world.dns
        hosts.domain("example.org", MX)
        hosts.address(MX, "127.0.0.2")
        await hosts.server("127.0.0.2", tls=issued("expired", MX))
        outcome = await deliver(hosts)
        assert told(outcome.tls_results) == [("sts", "example.org", MX, "certificate-expired")]
        assert (outcome.result.value, outcome.enhanced, len(world.requests)) == ("temporary", "4.7.5", 1)
        world.announce("2")
        world.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        outcome = await deliver(hosts)
        assert told(outcome.tls_results) == [
            ("sts", "example.org", "", "sts-policy-fetch-error"),
            ("sts", "example.org", MX, "certificate-expired"),
        ]
        assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")


async def test_a_policy_that_cannot_be_had_is_told_of(hosts: MxHosts) -> None:
    hosts.policies.of["example.org"] = StsAnswer(fault=TlsFault("sts-policy-fetch-error", "HTTP status 500"))
    await hosts.server("127.0.0.2")
    outcome = await deliver(hosts)
    assert outcome.result.value == "delivered"
    assert told(outcome.tls_results) == [
        ("sts", "example.org", "", "sts-policy-fetch-error"),
        ("no-policy-found", "example.org", MX, "starttls-not-supported"),
    ]


# --- DANE ---


@pytest.mark.parametrize("kind", ["good", *BAD])
async def test_dane_goes_by_the_certificate(hosts: MxHosts, kind: str) -> None:
    certificate = issued(kind, MX)
    hosts.tlsa(MX, certificate)
    await hosts.server("127.0.0.2", tls=certificate)
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "TLSv1.3, verified by DANE")
    assert told(outcome.tls_results) == [("tlsa", MX, MX, "")]


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
async def test_dane_with_each_sort_of_record(
    hosts: MxHosts, usage: int, selector: int, matching: int
) -> None:
    """In a session with the server that the record is for, and with another."""
    other = new_root()
    issued_by = {MX: root(), "mx2.example.org": other}
    for (name, authority), address in zip(issued_by.items(), ("127.0.0.2", "127.0.0.3"), strict=True):
        certificate = authority.issue(name)
        await hosts.server(
            address, tls=Issued(certificate.certificate, certificate.key, (authority.certificate,))
        )
        if name == MX:
            named = authority if usage == 2 else certificate
            record = str(tlsa(named.certificate, usage, selector, matching))
    for name in issued_by:
        hosts.dns.add(f"_{hosts.port}._tcp.{name}", "TLSA", record, secure=True)
    hosts.domain("other.example", "mx2.example.org", secure=True)
    assert summary(await deliver(hosts)) == ("delivered", "2.0.0", "TLSv1.3, verified by DANE")
    outcome = await deliver(hosts, "other.example")
    assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")
    assert outcome.error.startswith("mx2.example.org: refused by DANE: ")


async def test_dane_another_certificate(hosts: MxHosts) -> None:
    hosts.tlsa(MX, issued("good", MX))
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.5")
    assert outcome.error.startswith(f"{MX}: refused by DANE: ")
    assert told(outcome.tls_results) == [("tlsa", MX, MX, "validation-failure")]
    assert server.sessions == {}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_dane_with_a_certificate_that_cannot_be_read(hosts: MxHosts, kind: str) -> None:
    """The next host is tried, as with any other that is of no use."""
    hosts.tlsa(MX, root(), usage=2)
    server = await hosts.server("127.0.0.2", tls=unreadable(kind, root(), MX))
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.5")
    assert outcome.error.startswith(f"{MX}: refused by DANE: ")
    assert outcome.transcript
    assert [result for *_, result in told(outcome.tls_results)] != [""]
    await hosts.server("127.0.0.3", tls=issued("good", "mx2.example.org"))
    outcome = await deliver(hosts, "second.example")
    assert (outcome.result.value, outcome.remote_mta) == ("delivered", "mx2.example.org")
    assert server.sessions == {}


async def test_a_connection_is_closed_when_its_checks_fail(
    hosts: MxHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if by a fault of ours."""
    streams: list[TlsStream] = []

    def broken(need: TlsNeed, stream: TlsStream, now: datetime) -> tuple[Verdict, ...]:
        streams.append(stream)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("gateway_smtp.mx_server.with_tls", broken)
    await hosts.server("127.0.0.2", tls=issued("good", MX))
    with pytest.raises(ExceptionGroup) as caught:
        await deliver(hosts)
    assert caught.group_contains(RuntimeError, match="a fault of ours")
    below = streams[0].transport_stream
    assert isinstance(below, Stream)
    assert below.socket.fileno() == -1


async def test_dane_without_starttls(hosts: MxHosts) -> None:
    hosts.tlsa(MX, issued("good", MX))
    server = await hosts.server("127.0.0.2")
    outcome = await deliver(hosts)
    assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")
    assert server.sessions == {}


async def test_dane_with_unusable_records_needs_tls_only(hosts: MxHosts) -> None:
    hosts.dns.add(f"_{hosts.port}._tcp.{MX}", "TLSA", "0 0 1 " + "ab" * 32, secure=True)
    await hosts.server("127.0.0.2", tls=issued("self-signed", MX))
    outcome = await deliver(hosts)
    assert summary(outcome) == ("delivered", "2.0.0", "TLSv1.3, not verified")
    assert told(outcome.tls_results) == [("tlsa", MX, MX, "tlsa-invalid")]


async def test_dane_and_mta_sts_both_hold(hosts: MxHosts) -> None:
    hosts.policy("example.org", MX)
    good, alone = issued("good", MX), issued("self-signed", "mx2.example.org")
    hosts.tlsa(MX, good)
    await hosts.server("127.0.0.2", tls=good)
    outcome = await deliver(hosts)
    assert outcome.tls == "TLSv1.3, verified by DANE and MTA-STS"
    hosts.domain("both.example", "mx2.example.org", secure=True)
    hosts.policy("both.example", "mx2.example.org")
    hosts.tlsa("mx2.example.org", alone)
    server = await hosts.server("127.0.0.3", tls=alone)
    outcome = await deliver(hosts, "both.example")
    assert outcome.error == "mx2.example.org: refused by MTA-STS: the certificate is self-signed"
    assert told(outcome.tls_results) == [
        ("tlsa", "mx2.example.org", "mx2.example.org", ""),
        ("sts", "both.example", "mx2.example.org", "certificate-not-trusted"),
    ]
    assert server.sessions == {}


# --- REQUIRETLS, and TLS-Required: No ---


async def test_requiretls(hosts: MxHosts) -> None:
    hosts.policy("example.org", MX)
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    outcome = await deliver(hosts, require_tls=True)
    assert outcome.result.value == "delivered"
    [(envelope, _)] = server.transactions
    assert envelope.require_tls


async def test_requiretls_without_a_policy(hosts: MxHosts) -> None:
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    outcome = await deliver(hosts, require_tls=True)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 0, "5.7.30")
    assert server.sessions == {}


async def test_requiretls_not_offered(hosts: MxHosts) -> None:
    hosts.policy("second.example", "*.example.org")
    await hosts.script("127.0.0.2", that(tls=issued("good", MX)))
    outcome = await deliver(hosts, "second.example", require_tls=True)
    assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.4.1")  # the other host is down
    await hosts.script("127.0.0.3", that(tls=issued("good", "mx2.example.org")))
    outcome = await deliver(hosts, "second.example", require_tls=True)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 0, "5.7.30")
    assert outcome.error.endswith("no server of the domain offers REQUIRETLS")


async def test_requiretls_offered_by_the_second(hosts: MxHosts) -> None:
    hosts.policy("second.example", "*.example.org")
    await hosts.script("127.0.0.2", that(tls=issued("good", MX)))
    await hosts.server("127.0.0.3", tls=issued("good", "mx2.example.org"))
    outcome = await deliver(hosts, "second.example", require_tls=True)
    assert (outcome.result.value, outcome.remote_mta) == ("delivered", "mx2.example.org")


@pytest.mark.parametrize("kind", ["no TLS", *BAD])
async def test_tls_required_no(hosts: MxHosts, kind: str) -> None:
    hosts.policy("example.org", MX)
    hosts.tlsa(MX, issued("good", MX))
    await hosts.server("127.0.0.2", tls=None if kind == "no TLS" else issued(kind, MX))
    outcome = await deliver(hosts, require_tls=False)
    assert outcome.result.value == "delivered"
    assert "verified by" not in outcome.tls
    assert [result != "" for *_, result in told(outcome.tls_results)] == [True, True]


# --- Kept connections ---


async def test_a_connection_is_kept_for_those_whose_need_it_satisfies(hosts: MxHosts) -> None:
    """The same host, one domain with a policy and one without."""
    hosts.domain("strict.example", MX)
    hosts.policy("strict.example", MX)
    server = await hosts.server("127.0.0.2", tls=issued("good", MX))
    async with hosts.transport() as direct:
        tls = [
            (await direct.deliver(delivery(f"b@{domain}", require_tls=require_tls)))[0].tls
            for domain, require_tls in (
                ("example.org", None),
                ("strict.example", None),
                ("strict.example", True),
                ("example.org", None),
            )
        ]
    assert tls == [
        "TLSv1.3, not verified",
        "TLSv1.3, verified by MTA-STS",
        "TLSv1.3, verified by MTA-STS",
        "TLSv1.3, not verified",
    ]
    assert len(server.sessions) == 1


async def test_a_connection_is_not_used_by_those_who_need_more(hosts: MxHosts) -> None:
    hosts.domain("strict.example", MX)
    hosts.policy("strict.example", MX)
    server = await hosts.server("127.0.0.2", tls=issued("self-signed", MX))
    async with hosts.transport() as direct:
        [outcome] = await direct.deliver(delivery("b@example.org"))
        assert outcome.result.value == "delivered"
        [outcome] = await direct.deliver(delivery("b@strict.example"))
        assert (outcome.result.value, outcome.enhanced) == ("temporary", "4.7.5")
        [outcome] = await direct.deliver(delivery("b@example.org"))
        assert outcome.result.value == "delivered"
    assert len(server.transactions) == 2


async def test_the_certificate_of_a_kept_connection_is_looked_at_once(
    hosts: MxHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each need, of which some are remembered."""
    looked: list[tuple[TlsStream, TlsNeed]] = []

    def counted(need: TlsNeed, stream: TlsStream, now: datetime) -> tuple[Verdict, ...]:
        looked.append((stream, need))
        return with_tls(need, stream, now)

    monkeypatch.setattr("gateway_smtp.mx_server.with_tls", counted)
    hosts.domain("strict.example", MX)
    hosts.policy("strict.example", MX)
    await hosts.server("127.0.0.2", tls=issued("self-signed", MX))
    async with hosts.transport() as direct:
        for domain in ("example.org", *["strict.example"] * 3, "example.org"):
            await direct.deliver(delivery(f"b@{domain}"))
        assert len(looked) == len(set(looked)) == 5  # one is kept, three are refused
        for number in range(MAX_VERDICTS):
            hosts.domain(f"d{number}.example", MX)
            await direct.deliver(delivery(f"b@d{number}.example"))
        assert len(set(looked)) == 5 + MAX_VERDICTS
        await direct.deliver(delivery("b@example.org"))
        assert len(looked) == 6 + MAX_VERDICTS


async def test_a_connection_in_plain_text_is_not_used_where_tls_is_needed(hosts: MxHosts) -> None:
    hosts.domain("strict.example", MX)
    hosts.policy("strict.example", MX)
    await hosts.script("127.0.0.2", that(), that(tls=issued("good", MX)))
    async with hosts.transport() as direct:
        [outcome] = await direct.deliver(delivery("b@example.org"))
        assert (outcome.result.value, outcome.tls) == ("delivered", "")
        [outcome] = await direct.deliver(delivery("b@strict.example"))
        assert (outcome.result.value, outcome.tls) == ("delivered", "TLSv1.3, verified by MTA-STS")
    assert hosts.connections == {"127.0.0.2": 2}


async def test_results_are_told_once_for_each_connection(hosts: MxHosts) -> None:
    await hosts.server(
        "127.0.0.2", Server(lambda step, who: Reply(451, None, ("Later",)) if who == "late" else None)
    )
    async with hosts.transport() as direct:
        outcomes = await direct.deliver(delivery("a@example.org", "late@example.org", "c@example.org"))
        assert [len(one.tls_results) for one in outcomes] == [1, 0, 0]
        [outcome] = await direct.deliver(delivery("a@example.org"))
        assert outcome.tls_results == ()  # on the same connection
