"""What the client makes of DSN, REQUIRETLS and LIMITS."""

import pytest

from gateway.smtp.client import SmtpClient
from gateway.smtp.commands import Mail, Rcpt, parse_command
from gateway.smtp.dsn import DsnWish, xtext
from gateway.smtp.events import Finished, Ready
from gateway.smtp.replies import Reply
from gateway.smtp.transaction import Capabilities, Transaction
from tests.smtp.helpers import transaction

DSN = frozenset({"DSN"})


def commands(offered: bytes, what: Transaction) -> list[bytes]:
    client = SmtpClient("client.example")
    client.receive_data(b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n" + offered)
    client.data_to_send()
    client.begin(what)
    return client.data_to_send().splitlines(keepends=True)


def test_dsn_as_the_server_reads_it() -> None:
    wishes = (DsnWish(("SUCCESS", "DELAY"), "rfc822;a+b=c @x"), DsnWish(("NEVER",)), DsnWish())
    what = transaction("b@x", "c@x", "d@x", ret="HDRS", envid="id +=\xe9?", dsn=wishes)
    mail, *rcpts, data = commands(b"250 DSN\r\n", what)
    assert data == b"DATA\r\n"
    read = parse_command(mail, DSN)
    assert isinstance(read, Mail)
    assert (read.ret, read.envid) == ("HDRS", "id +=??")
    for line, wish in zip(rcpts, wishes, strict=True):
        rcpt = parse_command(line, DSN)
        assert isinstance(rcpt, Rcpt)
        assert DsnWish(rcpt.notify, rcpt.orcpt) == wish


def test_dsn_not_offered() -> None:
    what = transaction("b@x", ret="HDRS", envid="x", dsn=(DsnWish(("NEVER",), "rfc822;b@x"),))
    assert commands(b"250 SIZE\r\n", what) == [
        b"MAIL FROM:<a@example.org>\r\n",
        b"RCPT TO:<b@x>\r\n",
        b"DATA\r\n",
    ]


@pytest.mark.parametrize(
    ("orcpt", "written"),
    [
        ("rfc822;a@x", " ORCPT=rfc822;a@x"),
        ("rfc822;a\r\nDATA", " ORCPT=rfc822;a+0D+0ADATA"),
        ("a b;x", " ORCPT=a+20b;x"),
        ("utf-8;\xfc@x", " ORCPT=utf-8;\\x{FC}@x"),
        ("utf-8;\\x{FC}@x", " ORCPT=utf-8;\\x{FC}@x"),
        ("utf-8;\\x{fc}@x", " ORCPT=utf-8;\\x{fc}@x"),
        ("UTF-8;a+b\\c\n", " ORCPT=UTF-8;a\\x{2B}b\\x{5C}c\\x{0A}"),
        ("utf-8;" + "x" * 500, " ORCPT=utf-8;" + "x" * 500),
        ("utf-8;" + "\u7528" * 63, ""),  # more than 500 characters when it is written, and refused therefore
        ("nothing", ""),
        ("", ""),
    ],
)
def test_orcpt(orcpt: str, written: str) -> None:
    assert DsnWish(orcpt=orcpt).parameters() == written


def test_xtext_has_every_character() -> None:
    assert xtext("".join(map(chr, range(33)))) == "".join(f"+{number:02X}" for number in range(33))
    assert xtext("a+b=c~\x7f") == "a+2Bb+3Dc~+7F"


@pytest.mark.parametrize(
    ("offered", "required", "said"),
    [
        (b"250 REQUIRETLS\r\n", True, b"MAIL FROM:<a@example.org> REQUIRETLS\r\n"),
        (b"250 REQUIRETLS\r\n", False, b"MAIL FROM:<a@example.org>\r\n"),
        (b"250 X\r\n", False, b"MAIL FROM:<a@example.org>\r\n"),
        (b"250 X\r\n", True, b""),
        (b"250 SIZE 1\r\n", True, b""),
        (b"250 XREQUIRETLS\r\n", True, b""),
    ],
)
def test_requiretls(offered: bytes, required: bool, said: bytes) -> None:
    said_first = next(iter(commands(offered, transaction(require_tls=required))), b"")
    assert said_first == said


def test_requiretls_not_offered() -> None:
    """No recipient is asked for, and the connection can be used for another message."""
    client = SmtpClient("client.example")
    client.receive_data(b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n")
    assert isinstance(client.next_event(), Ready)
    client.data_to_send()
    client.begin(transaction("b@x", "c@x", require_tls=True))
    finished = client.next_event()
    assert isinstance(finished, Finished)
    for result in finished.results:
        assert (result.permanent, result.stage, result.enhanced) == (True, "mail", "5.7.30")
        assert result.text.endswith("the server does not offer REQUIRETLS")
    assert (client.data_to_send(), client.failure) == (b"", None)
    client.begin(transaction())
    assert client.data_to_send().startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        ("", (None, None, None)),
        ("RCPTMAX=20", (20, None, None)),
        ("mailmax=5 RCPTMAX=1  RCPTDOMAINMAX=3 X=9", (1, 3, 5)),
        ("RCPTMAX=0 MAILMAX RCPTDOMAINMAX=", (None, None, None)),
        ("RCPTMAX=-1 MAILMAX=x RCPTDOMAINMAX=" + "9" * 5000, (None, None, None)),
    ],
)
def test_limits(value: str, limits: tuple[int | None, ...]) -> None:
    offered = Capabilities.from_reply(Reply(250, None, ("mx", f"LIMITS {value}")))
    assert (offered.max_recipients, offered.max_domains, offered.max_transactions) == limits


def test_misuse() -> None:
    with pytest.raises(ValueError, match="for each recipient"):
        transaction("b@x", "c@x", dsn=(DsnWish(),))
