import pytest

from gateway.smtp.replies import MAX_RECEIVED_LINE, MAX_REPLY_LINES, Reply, ReplyError, ReplyParser
from tests.smtp.helpers import CHUNKINGS


def parse(data: bytes) -> list[Reply]:
    """All replies in the data, the same whole and byte by byte."""
    results = []
    for chunking in CHUNKINGS:
        parser, replies = ReplyParser(), []
        for chunk in chunking(data):
            parser.feed(chunk)
            while (reply := parser.next_reply()) is not None:
                replies.append(reply)
        results.append(replies)
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"250 OK\r\n", Reply(250, None, ("OK",))),
        (b"250\r\n", Reply(250, None, ("",))),
        (b"250 OK\n", Reply(250, None, ("OK",))),
        (b"550 5.1.1 No such user\r\n", Reply(550, "5.1.1", ("No such user",))),
        (b"550 5.1.1\r\n", Reply(550, "5.1.1", ("",))),
        (
            b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n",
            Reply(550, "5.7.1", ("one", "two", "three")),
        ),
        (b"550-5.7.1 one\r\n550 two\r\n", Reply(550, "5.7.1", ("one", "two"))),
        (b"550-5.7.1 one\r\n550 5.7.11 two\r\n", Reply(550, "5.7.1", ("one", "5.7.11 two"))),
        (b"550 5.7.11x\r\n", Reply(550, None, ("5.7.11x",))),
        (
            b"250 5.1.1 a class that is not the code's\r\n",
            Reply(250, None, ("5.1.1 a class that is not the code's",)),
        ),
        (b"250-first\r\n450 last\r\n", Reply(450, None, ("first", "last"))),
        (b"421 4.3.2 bye\r\n", Reply(421, "4.3.2", ("bye",))),
        ("550 Empfänger ungültig\r\n".encode(), Reply(550, None, ("Empfänger ungültig",))),
        (b"550 Empf\xe4nger\r\n", Reply(550, None, ("Empf\ufffdnger",))),
        (b"550 \x1b[31mred\x00\ttab\r\n", Reply(550, None, ("\ufffd[31mred\ufffd tab",))),
        (b"550 \xed\xa0\x80\r\n", Reply(550, None, ("\ufffd\ufffd\ufffd",))),
    ],
)
def test_parse(data: bytes, reply: Reply) -> None:
    assert parse(data) == [reply]
    assert parse(data + b"250 next\r\n25") == [reply, Reply(250, None, ("next",))]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\r\n", "not an SMTP reply: 'hello'"),
        (b"\r\n", "not an SMTP reply"),
        (b"25\r\n", "not an SMTP reply"),
        (b"150 too low\r\n", "not an SMTP reply"),
        (b"600 too high\r\n", "not an SMTP reply"),
        (b"250OK\r\n", "not an SMTP reply"),
        ("٢٥٠ OK\r\n".encode(), "not an SMTP reply"),
        (b"250 " + b"x" * MAX_RECEIVED_LINE + b"\r\n", "longer than 2048"),
        (b"x" * MAX_RECEIVED_LINE * 2, "longer than 2048"),
        (b"250-x\r\n" * MAX_REPLY_LINES, "more than 128 lines"),
    ],
)
def test_garbage(data: bytes, problem: str) -> None:
    with pytest.raises(ReplyError, match=problem):
        parse(data)


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        (Reply(250, "2.1.0", ("OK",)), b"250 2.1.0 OK\r\n"),
        (Reply(250, None, ("a", "b")), b"250-a\r\n250 b\r\n"),
        (Reply(550, "5.7.1", ("a", "b")), b"550-5.7.1 a\r\n550 5.7.1 b\r\n"),
        (Reply(250, None), b"250 \r\n"),
        (Reply(550, None, ("a\r\n250 OK", "\x00ü")), b"550-a  250 OK\r\n550  ?\r\n"),
    ],
)
def test_render(reply: Reply, data: bytes) -> None:
    assert reply.render() == data


def test_render_is_bounded() -> None:
    rendered = Reply(550, "5.0.0", ("x" * 2000,) * 500).render()
    lines = rendered.split(b"\r\n")[:-1]
    assert max(map(len, lines)) == 510
    assert len(lines) == MAX_REPLY_LINES
    assert lines[-1].startswith(b"550 ")
    assert parse(rendered)[0].code == 550


@pytest.mark.parametrize(
    ("code", "enhanced"), [(199, None), (600, None), (250, "5.1.1"), (550, "5.1"), (550, "5.1.1 "), (550, "")]
)
def test_impossible_codes(code: int, enhanced: str | None) -> None:
    with pytest.raises(ValueError):
        Reply(code, enhanced)


def test_str() -> None:
    assert str(Reply(550, "5.1.1", ("No such", "user"))) == "550 5.1.1 No such user"
    assert str(Reply(250, None)) == "250"
