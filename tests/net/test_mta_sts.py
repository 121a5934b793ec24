"""TXT records and policies of MTA-STS, as RFC 8461 has them and as they should not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.mta_sts import MAX_AGE, Policy, PolicyError, parse_policy, parse_record

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 86400\r\n"


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=a"], "a"),
        ([b"v=STSv1 ; id=a ; "], "a"),
        ([b"v=STSv1; more=x:y; id=a;"], "a"),
        ([b"v=STSv1; id=a; id=b"], "a"),
        ([b"v=spf1 -all", b"v=STSv1; id=a"], "a"),
        ([b"v=STSv1", b"v=STSv1; id=a"], "a"),
        ([], None),
        ([b"v=spf1 -all"], None),
        ([b"v=STSv1; id=a", b"v=STSv1; id=b"], None),
        ([b"v=STSv1; id=a", b"v=STSv1; nonsense"], None),
        ([b"v=STSv10; id=a"], None),
        ([b"V=STSv1; id=a"], None),
        ([b" v=STSv1; id=a"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; ID=a"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv1; id=" + b"a" * 32], "a" * 32),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id=a;;"], None),
        ([b"v=STSv1; id=a b"], None),
        ([b"v=STSv1; id=a; x=1=2"], None),
        ([b"v=STSv1; id=a; x"], None),
        ([b"v=STSv1; id=\xc3\xa4"], None),
    ],
)
def test_record(records: list[bytes], found: str | None) -> None:
    assert parse_record(records) == found


def test_policy() -> None:
    policy = parse_policy(GOOD)
    assert policy == Policy("enforce", ("mx1.example.org", "*.example.net"), 86400, GOOD)
    assert policy.lines == (
        "version: STSv1", "mode: enforce", "mx: mx1.example.org", "mx: *.example.net", "max_age: 86400"
    )  # fmt: skip
    assert policy.active


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace(b"\r\n", b"\n"), ("enforce", ("mx1.example.org", "*.example.net"), 86400)),
        (GOOD.rstrip(), ("enforce", ("mx1.example.org", "*.example.net"), 86400)),
        (b"\n\n" + GOOD + b"\r\n\r\n", ("enforce", ("mx1.example.org", "*.example.net"), 86400)),
        (b"max_age:9\nmx:MX.Example.ORG.\nmode:testing \nversion:STSv1", ("testing", ("mx.example.org",), 9)),
        (b"version: STSv1\nmode: none\nmax_age: 0", ("none", (), 0)),
        (b"mode: none\n" + GOOD, ("none", ("mx1.example.org", "*.example.net"), 86400)),  # the first counts
        (GOOD + b"x-more.y: f\xc3\xbcr: x\n", ("enforce", ("mx1.example.org", "*.example.net"), 86400)),
        (b"version: STSv1\nmode: enforce\nmx: xn--mx-fka.at\nmax_age: 1", ("enforce", ("xn--mx-fka.at",), 1)),
        (GOOD.replace(b"86400", b"9999999999"), ("enforce", ("mx1.example.org", "*.example.net"), MAX_AGE)),
    ],
)  # fmt: skip
def test_spellings_of_a_policy(text: bytes, expected: tuple[str, tuple[str, ...], int]) -> None:
    policy = parse_policy(text)
    assert (policy.mode, policy.mx, policy.max_age) == expected
    assert policy.active == (policy.mode != "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "version is not STSv1"),
        (GOOD.replace(b"STSv1", b"STSv2"), "version is not STSv1"),
        (GOOD.replace(b"enforce", b"Enforce"), "mode is neither"),
        (GOOD.replace(b"mode", b"made"), "mode is neither"),
        (GOOD.replace(b"86400", b"-1"), "max_age is no number"),
        (GOOD.replace(b"86400", b"12345678901"), "max_age is no number"),
        (GOOD.replace(b"86400", "٣".encode()), "max_age is no number"),
        (GOOD.replace(b"max_age: 86400", b""), "max_age is no number"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1", "names no MX host"),
        (b"version: STSv1\nmode: testing\nmax_age: 1", "names no MX host"),
        (GOOD + b"mx: *.*.example", "line 6 of the policy has no host name"),
        (GOOD + b"mx: mx*.example", "line 6 of the policy has no host name"),
        (GOOD + b"mx: *", "line 6 of the policy has no host name"),
        (GOOD + b"mx:", "line 6 of the policy has no host name"),
        (GOOD + b"mx: .example", "line 6 of the policy has no host name"),
        (GOOD + b"mx: [192.0.2.1]", "line 6 of the policy has no host name"),
        (GOOD + "mx: mxö.example".encode(), "line 6 of the policy has no host name"),
        (GOOD + b"mx: " + b"a." * 30_000, "line 6 of the policy has no host name"),
        (GOOD + b"nonsense", "line 6 of the policy is not of the form key: value"),
        (GOOD + b"two words: x", "line 6 of the policy is not of the form key: value"),
        (GOOD + b"x: a\rb", "line 6 of the policy has a control character"),
        (GOOD + b"\n" * 65_536, "longer than 65536 bytes"),
    ],
)
def test_no_policy(text: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: GOOD + tail))
def test_any_bytes(text: bytes) -> None:
    try:
        policy = parse_policy(text)
    except PolicyError:
        return
    assert 0 <= policy.max_age <= MAX_AGE
    assert parse_policy(policy.text) == policy


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("mx1.example.org", True),
        ("MX1.example.org.", True),
        ("mx2.example.org", False),
        ("example.org", False),
        ("a.mx1.example.org", False),
        ("a.example.net", True),
        ("A.Example.NET", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("xexample.net", False),
        ("bücher.example", True),
        ("xn--bcher-kva.example", True),
        ("[192.0.2.1]", False),
        ("a_b.example.net", False),
        ("", False),
        (".", False),
    ],
)
def test_matching(host: str, matches: bool) -> None:
    policy = parse_policy(GOOD + b"mx: xn--bcher-kva.example\r\n")
    assert policy.matches(host) == matches
