from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import (
    MAX_LOCALPART,
    Address,
    AddressError,
    ascii_domain,
    format_mailbox,
    parse_domain,
)
from gateway.mail.address_list import NameAddress, parse_address_list


@pytest.mark.parametrize(
    ("text", "localpart", "domain", "printed"),
    [
        ("User@EXAMPLE.org", "User", "example.org", "User@example.org"),
        ("a.b+c_d=e@x", "a.b+c_d=e", "x", "a.b+c_d=e@x"),
        ('"a b"@x.org', "a b", "x.org", '"a b"@x.org'),
        (r'"a\"b\\c"@x.org', 'a"b\\c', "x.org", r'"a\"b\\c"@x.org'),
        ('"plain"@x.org', "plain", "x.org", "plain@x.org"),
        ('"a@b"@x.org', "a@b", "x.org", '"a@b"@x.org'),
        ('""@x.org', "", "x.org", '""@x.org'),
        ("jürgen@BÜCHER.example", "jürgen", "bücher.example", "jürgen@bücher.example"),
        ("ju\u0308rgen@x.org", "j\xfcrgen", "x.org", "j\xfcrgen@x.org"),
        ("a@xn--bcher-kva.example", "a", "bücher.example", "a@bücher.example"),
        ("a@faß.example", "a", "faß.example", "a@faß.example"),
        ("a@xn--i-7iq.ws", "a", "xn--i-7iq.ws", "a@xn--i-7iq.ws"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[ipv6:2001:DB8:0::1]", "a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
    ],
)
def test_parse(text: str, localpart: str, domain: str, printed: str) -> None:
    address = Address.parse(text)
    assert (address.localpart, address.domain) == (localpart, domain)
    assert str(address) == printed
    assert Address.parse(printed) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("a", "no @"),
        ("@b.org", "nothing before"),
        ("a@", "domain is empty"),
        ("a@b@c", "more than one @"),
        ("a..b@c", "dots in a row"),
        (".a@c", "dots in a row"),
        ("a b@c", "spaces"),
        ("<a@b.org>", "special characters"),
        ('"a@b', "must end in a quote"),
        ('"a"b@c', "must end in a quote"),
        ('"a\r\nb"@c', "control character"),
        ('"a\x85b"@c', "control character"),
        ("a\r\nX: y@c", "special characters"),
        ("a\u2028@c", "separator"),
        ("\ud800@c", "control character"),
        ("a\u200bb@c", "invisible"),
        ("a\u202eb@c", "invisible"),
        ("a@b\n", "label"),
        ("a@-b.org", "label"),
        ("a@b..org", "label"),
        ("a@b.", "label"),
        ("a@" + "b" * 64, "label"),
        ("a@" + "b." * 130 + "org", "longer than 253"),
        ("a@" + "ü" * 250, "internationalized"),
        ("a@☃.example", "internationalized"),
        ("a@b_c.org", "label"),
        ("a@[1.2.3]", "literal"),
        ("a@[IPv6:fe80::1%eth0]", "zone"),
        ("a@[::1]", "literal"),
        ("a@[192.0.2.1", "literal"),
        ("a" * (MAX_LOCALPART + 1) + "@b", "longer than 128 octets"),
        ("ü" * 65 + "@b", "longer than 128 octets"),
        ("a" * 1000 + "@b", "longer than 600"),
    ],
)
def test_errors_name_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        Address.parse(text)


def test_the_constructor_checks_and_normalizes_too() -> None:
    assert Address("a", "EXAMPLE.org") == Address.parse("a@example.org")
    with pytest.raises(AddressError):
        Address("a\r\nb", "example.org")
    with pytest.raises(AddressError):
        Address("a", "example.org>\r\nX: y")


def test_formats() -> None:
    address = Address.parse("a@bücher.example")
    assert address.ascii_domain == "xn--bcher-kva.example"
    assert address.format(utf8=False) == "a@xn--bcher-kva.example"
    assert address.format(utf8=True) == "a@bücher.example"
    assert address.is_ascii
    international = Address.parse("ü@example.org")
    assert not international.is_ascii
    with pytest.raises(AddressError, match="SMTPUTF8"):
        international.format(utf8=False)


def test_domains() -> None:
    assert parse_domain("Example.ORG") == "example.org"
    assert ascii_domain(parse_domain("例え.テスト")) == "xn--r8jz45g.xn--zckzah"


@given(st.text(max_size=40), st.text(max_size=20))
def test_parse_raises_address_errors_only_and_prints_what_it_parses(localpart: str, domain: str) -> None:
    try:
        address = Address.parse(f"{localpart}@{domain}")
    except AddressError:
        return
    assert Address.parse(str(address)) == address
    assert address.ascii_domain.isascii()


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=30))
def test_any_localpart_can_be_quoted(localpart: str) -> None:
    address = Address(localpart, "example.org")
    assert Address.parse(str(address)) == address


NAMES = [
    "Plain Name",
    "O'Brien, Pat",
    'with "quotes" and \\',
    "Dr. J. (PhD)",
    "Jürgen Müller",
    "日本語のとても長い名前" * 10,
    "=?utf-8?q?not_encoded?=",
    "  space  around  ",
    "x" * 300,
    "\U0001f600 smile",
    "a@b.org",
    "name <a@b.org>",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("utf8", [False, True])
def test_display_names_read_back(name: str, utf8: bool) -> None:
    formatted = format_mailbox(name, Address.parse("q@example.org"), utf8)
    assert utf8 or formatted.isascii()
    # Space around a name has no meaning in the format, and is not kept.
    assert parse_address_list(formatted) == (NameAddress(name.strip(), "q@example.org"),)


def test_only_the_first_are_read_if_only_these_are_wanted() -> None:
    found = parse_address_list("G: a@b.c, d@e.f; g@h.i", 2)
    assert [one.address for one in found] == ["a@b.c", "d@e.f"]
