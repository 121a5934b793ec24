"""The Authentication-Results field: what it says, and that nobody else says it for us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.mail.auth_results import (
    AuthResults,
    Disowned,
    DkimCheck,
    DmarcCheck,
    IprevCheck,
    SpfCheck,
    authentication_results,
    without_forged,
)
from gateway.mail.headers import read_headers

RESULTS = AuthResults(
    iprev=IprevCheck(result="pass", name="mx.bücher.example"),
    spf=SpfCheck(identity="mailfrom", result="pass", domain="example.org", mechanism="mx"),
    helo=SpfCheck(identity="helo", result="none", domain="mx.example.org"),
    dkim=(
        DkimCheck(
            result="pass", domain="bücher.example", selector="s1", algorithm="rsa-sha256", signature="a/b="
        ),
        DkimCheck(result="pass", domain="bücher.example", selector="s2", algorithm="ed25519-sha256"),
        DkimCheck(result="fail", domain="example.org", reason='not "this" \\ body\r\nX: y'),
    ),
    dmarc=DmarcCheck(result="pass", domain="bücher.example", policy="reject", aligned=True),
)


SENDER = Address.parse("a@example.org")


def written(
    results: AuthResults,
    *,
    peer: str = "192.0.2.1",
    mail_from: Address | None = SENDER,
    helo: str = "mx.example.org",
) -> str:
    data = authentication_results("mx.example.net", results, peer=peer, mail_from=mail_from, helo=helo)
    assert data.endswith(b"\r\n")
    headers, end = read_headers(data + b"\r\n")
    assert (len(headers.fields), headers.malformed, end) == (1, False, len(data) + 2)
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    return headers.get("Authentication-Results")


def test_all_of_it() -> None:
    assert written(RESULTS) == (
        "mx.example.net; iprev=pass (mx.xn--bcher-kva.example) policy.iprev=192.0.2.1;"
        " spf=pass smtp.mailfrom=a@example.org; spf=none smtp.helo=mx.example.org;"
        ' dkim=pass header.d=xn--bcher-kva.example header.s=s1 header.a=rsa-sha256 header.b="a/b=";'
        " dkim=pass header.d=xn--bcher-kva.example header.s=s2 header.a=ed25519-sha256;"
        r' dkim=fail reason="not \"this\" \\ body??X: y" header.d=example.org;'
        " dmarc=pass (p=reject dis=none) header.from=xn--bcher-kva.example"
    )


def test_of_a_null_sender_over_ipv6() -> None:
    results = AuthResults(
        iprev=IprevCheck(result="permerror", reason="no name"),
        spf=SpfCheck(identity="helo", result="fail"),
        helo=SpfCheck(identity="helo", result="fail"),
        dkim=(),
        dmarc=DmarcCheck(result="permerror", reason="there is no From"),
    )
    assert written(results, mail_from=None, peer="2001:db8::1", helo="[192.0.2.1]") == (
        'mx.example.net; iprev=permerror reason="no name" policy.iprev="2001:db8::1";'
        ' spf=fail smtp.helo="[192.0.2.1]"; dkim=none; dmarc=permerror reason="there is no From"'
    )


def test_what_the_results_come_to() -> None:
    assert RESULTS.mail_from_validated
    assert RESULTS.msg_from_validated
    assert RESULTS.dkim_verified_domains == ("bücher.example",)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=300))
def test_nothing_breaks_the_field(helo: str, domain: str, reason: str) -> None:
    """What strangers say may hold anything."""
    results = AuthResults(
        iprev=IprevCheck(result="pass", name=domain),
        spf=SpfCheck(identity="helo", result="none"),
        helo=SpfCheck(identity="helo", result="permerror", reason=reason),
        dkim=(DkimCheck(result="fail", domain=domain, selector=domain, reason=reason),),
        dmarc=DmarcCheck(result="fail", domain=domain, reason=reason),
    )
    text = written(results, helo=helo)
    assert text.isascii()
    assert text.count(";") >= 4


# --- Forged ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"mx.example.net; spf=pass",
        b" MX.Example.NET 1; dkim=pass",
        b"\r\n\tmx.example.net;\r\n dkim=pass",
        b" (comment (nested \\) one)) mx.example.net; dkim=pass",
        b' "mx.example.net"; dkim=pass',
        b' "mx\\.example.net"; dkim=pass',
        b" mx.example.net. ; dkim=pass",
        b" mx.example.net(x); dkim=pass",
        b" mx.example.net",
        b" (" + b"x" * 2000 + b") mx.example.net; dkim=pass",
        b" (no end",
    ],
)
@pytest.mark.parametrize("name", [b"Authentication-Results:", b"AUTHENTICATION-results \t:"])
def test_a_forged_one_is_removed(name: bytes, value: bytes) -> None:
    before, after = b"Received: x\r\n", b"From: a@example.org\r\n\r\n"
    assert without_forged(before + name + value + b"\r\n" + after, "mx.example.net") == before + after


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: other.example; spf=pass\r\n",
        b"Authentication-Results: mx.example.net.example; spf=pass\r\n",
        b"X-Authentication-Results: mx.example.net; spf=pass\r\n",
        b"ARC-Authentication-Results: i=1; mx.example.net; spf=pass\r\n",
        b"Subject: x\r\n Authentication-Results: mx.example.net; spf=pass\r\n",
    ],
)
def test_others_stay(field: bytes) -> None:
    section = b"From: a@example.org\r\n" + field + b"To: b@example.org\r\n\r\n"
    assert without_forged(section, "mx.example.net") == section


@pytest.mark.parametrize("size", [1, 2, 5, 22, 23, 24, 1000])
def test_of_a_section_that_passes_all_are_renamed(size: int) -> None:
    field = b"aUthentication-Results : x; dkim=pass\r\n"
    other = b"X: y\r\n authentication-results: no field\r\nNo-Authentication-Results: z\r\n\tfolded\r\n"
    data = field + other + field + other + b"\r\n" + field + b"\r\n\r\n" + field
    disowned = Disowned()
    pieces = [disowned.write(data[at : at + size]) for at in range(0, len(data), size)]
    renamed = b"X-" + field
    expected = renamed + other + renamed + other + b"\r\n" + field + b"\r\n\r\n" + field
    assert b"".join([*pieces, disowned.rest()]) == expected
    without_end = Disowned()
    assert without_end.write(field) + without_end.rest() == renamed
    empty = Disowned()
    assert empty.write(b"\r\n" + field) + empty.rest() == b"\r\n" + field


def test_in_unicode_it_is_ours_too() -> None:
    section = "Authentication-Results: bücher.example; spf=pass\r\n\r\n".encode()
    assert without_forged(section, "xn--bcher-kva.example") == b"\r\n"


def test_many_are_removed_quickly() -> None:
    section = b"Authentication-Results: (((\r\n" * 30_000 + b"\r\n"
    assert without_forged(section, "mx.example.net") == b"\r\n"
