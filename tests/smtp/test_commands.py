import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.addresses import Mailbox
from gateway.smtp.commands import (
    Body,
    Command,
    CommandError,
    Data,
    Hello,
    Inquiry,
    Mail,
    Quit,
    Rcpt,
    Rset,
    parse_command,
)

A = Mailbox("a", "x.example")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"EHLO client.example", Hello("client.example", extended=True)),
        (b"ehlo [192.0.2.1]  ", Hello("[192.0.2.1]", extended=True)),
        (b"HELO my_pc", Hello("my_pc", extended=False)),
        (b"MAIL FROM:<a@x.example>", Mail(A)),
        (b"mail from: <a@x.example>", Mail(A)),
        (b"MAIL FROM:<>", Mail(None)),
        (b"MAIL FROM:<@relay:a@x.example>", Mail(A)),
        (
            b"MAIL FROM:<a@x.example> size=100 BODY=8bitmime SMTPUTF8",
            Mail(A, size=100, body=Body.EIGHT_BIT, smtputf8=True),
        ),
        (b"MAIL FROM:<> BODY=7BIT", Mail(None, body=Body.SEVEN_BIT)),
        ("MAIL FROM:<ü@x.example> SMTPUTF8".encode(), Mail(Mailbox("ü", "x.example"), smtputf8=True)),
        (b"MAIL FROM:<" + b"v" * 128 + b"@x>", Mail(Mailbox("v" * 128, "x"))),
        (b"RCPT TO:<a@x.example>", Rcpt(A)),
        (b"RCPT TO:<Postmaster>", Rcpt(Mailbox("Postmaster", ""))),
        (b"DATA", Data()),
        (b"data ", Data()),
        (b"RSET", Rset()),
        (b"QUIT", Quit()),
        (b"NOOP anything", Inquiry("NOOP")),
        (b"VRFY a", Inquiry("VRFY")),
        (b"EXPN list", Inquiry("EXPN")),
        (b"HELP", Inquiry("HELP")),
    ],
)
def test_commands(line: bytes, command: Command) -> None:
    assert parse_command(line + b"\r\n") == command


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        (b"\r\n", "500 5.5.1"),
        (b"FOO\r\n", "500 5.5.1"),
        (b"GET / HTTP/1.1\r\n", "500 5.5.1"),
        (b"NOOP\n", "500 5.5.2"),
        (b"NOOP\r\r\n", "500 5.5.2"),
        (b"NO\0OP\r\n", "500 5.5.2"),
        (b"NOOP \xff\r\n", "500 5.5.2"),
        (b"EHLO\r\n", "501 5.5.4"),
        (b"EHLO a b\r\n", "501 5.5.4"),
        (b"EHLO " + b"x" * 256 + b"\r\n", "501 5.5.4"),
        (b"MAIL\r\n", "501 5.5.4"),
        (b"MAIL TO:<a@x>\r\n", "501 5.5.4"),
        (b"MAIL FROM:a@x\r\n", "501 5.1.7"),
        (b"MAIL FROM:<a>\r\n", "501 5.1.7"),
        (b"MAIL FROM:<postmaster>\r\n", "501 5.1.7"),
        (b"MAIL FROM:<" + b"v" * 129 + b"@x>\r\n", "501 5.1.7"),
        ("MAIL FROM:<ü@x>\r\n".encode(), "553 5.6.7"),
        (b"MAIL FROM:<a@x> FOO\r\n", "555 5.5.4"),
        (b"MAIL FROM:<a@x> =\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> SIZE=1 SIZE=1\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> SIZE\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> SIZE=-1\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> SIZE=" + b"9" * 21 + b"\r\n", "501 5.5.4"),
        ("MAIL FROM:<a@x> SIZE=٣\r\n".encode(), "501 5.5.4"),
        (b"MAIL FROM:<a@x> BODY=9BIT\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> BODY\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x> SMTPUTF8=1\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@x>" + b" A" * 21 + b"\r\n", "501 5.5.4"),
        (b"RCPT FROM:<a@x>\r\n", "501 5.5.4"),
        (b"RCPT TO:<>\r\n", "501 5.1.3"),
        (b"RCPT TO:<a>\r\n", "501 5.1.3"),
        (b"RCPT TO:<" + b"v" * 65 + b"@x>\r\n", "501 5.1.3"),
        (b"RCPT TO:<a@x> SIZE=1\r\n", "555 5.5.4"),
        (b"DATA now\r\n", "501 5.5.4"),
    ],
)
def test_errors(line: bytes, codes: str) -> None:
    with pytest.raises(CommandError) as info:
        parse_command(line)
    assert f"{info.value.reply.code} {info.value.reply.enhanced}" == codes


@settings(deadline=None)
@given(
    st.sampled_from([b"", b"MAIL FROM:", b"MAIL FROM:<a@x>", b"RCPT TO:", b"EHLO "]), st.binary(max_size=60)
)
def test_any_line_is_a_command_or_an_error(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(CommandError):  # and nothing else
        parse_command(start + rest + b"\r\n")
