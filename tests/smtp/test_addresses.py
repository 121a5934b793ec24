import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.addresses import AddressError, Mailbox, parse_mailbox, split_path


@pytest.mark.parametrize(
    ("text", "localpart", "domain"),
    [
        ("a@example.org", "a", "example.org"),
        ("A.b+c@Example.ORG", "A.b+c", "Example.ORG"),
        ("!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~", "x"),
        ('"a b"@x', "a b", "x"),
        ('"a\\"b\\\\c"@x', 'a"b\\c', "x"),
        ('"a@b"@x', "a@b", "x"),
        ('""@x', "", "x"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
        ("postmaster", "postmaster", ""),
        ("PostMaster", "PostMaster", ""),
        ("ü@bücher.example", "ü", "bücher.example"),
        ("a@b_c.example", "a", "b_c.example"),
        ("a" * 64 + "@x", "a" * 64, "x"),
    ],
)
def test_mailbox(text: str, localpart: str, domain: str) -> None:
    mailbox = parse_mailbox(text)
    assert (mailbox.localpart, mailbox.domain) == (localpart, domain)
    assert parse_mailbox(str(mailbox)) == mailbox


def test_needless_quotes_are_left_out() -> None:
    assert str(parse_mailbox('"a.b"@x')) == "a.b@x"
    assert parse_mailbox('"a"@x') == parse_mailbox("a@x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@x",
        "a@",
        "a@@x",
        "a@b@c",
        ".a@x",
        "a.@x",
        "a..b@x",
        "a b@x",
        '"a@x',
        'a"b"@x',
        '"a"b@x',
        "a@-x",
        "a@x-",
        "a@x..y",
        "a@.x",
        "a@x.",
        "a@x y",
        "a@[192.0.2]",
        "a@[192.0.2.1",
        "a@[2001:db8::1]",
        "a@[IPv6:192.0.2.1]",
        "a@[IPv6:fe80::1%eth0]",
        "a@[x-tag:data]",
        "a\r\n@x",
        '"a\nb"@x',
        "a@x\n",
        "a\u2028@x",
        "a\ud800@x",
        "a" * 65 + "@x",
        "ü" * 33 + "@x",
        "a@" + "x" * 64,
        "a@" + ".".join(["x" * 31] * 9),
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailbox(text)


@pytest.mark.parametrize(
    ("text", "path", "rest"),
    [
        ("<a@x>", "a@x", ""),
        ("<>", "", ""),
        (" <a@x>", "a@x", ""),
        ("<a@x> SIZE=1", "a@x", " SIZE=1"),
        ("<@r1,@r2:a@x>", "a@x", ""),
        ("<@[192.0.2.1]:a@x>", "a@x", ""),
        ('<"a>b"@x> X', '"a>b"@x', " X"),
        ('<"@r:a"@x>', '"@r:a"@x', ""),
    ],
)
def test_path(text: str, path: str, rest: str) -> None:
    assert split_path(text) == (path, rest)


@pytest.mark.parametrize("text", ["", "a@x", "<a@x", "a@x>", "<a@x>SIZE=1", "<<a@x>>", "<a b@x>", '<"a@x>'])
def test_malformed_path(text: str) -> None:
    with pytest.raises(AddressError):
        split_path(text)


@pytest.mark.parametrize(
    ("localpart", "domain"), [("a\r\nRSET", "x"), ("a", "x>\r\n"), ("a", "x y"), ("a", "")]
)
def test_a_mailbox_can_not_carry_a_command(localpart: str, domain: str) -> None:
    with pytest.raises(AddressError):
        Mailbox(localpart, domain)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_localpart_that_is_taken_can_be_read_again(localpart: str) -> None:
    try:
        mailbox = Mailbox(localpart, "example.org")
    except AddressError:
        return
    path, rest = split_path(f"<{mailbox}>")
    assert rest == ""
    assert parse_mailbox(path, max_localpart=1000) == mailbox
