"""Mail that is meant to harm, over a real socket: it gets the answer that an administrator expects, and the
event loop never stands still, whatever has to be read of it."""

from __future__ import annotations

import smtplib
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from gateway.mail.structure import MAX_DEPTH, MAX_PARTS
from tests.commands import PATIENCE
from tests.counting import never_stalled
from tests.mail.test_limits import MULTIPART, nested
from tests.running import Receiver, Running, running

LIMIT = 2_000_000  # bytes of a message, here


def small(raw: dict[str, Any]) -> None:
    raw["smtp"]["max_message_size"] = LIMIT


async def deliver(gateway: Running, data: bytes, **how: Any) -> tuple[int, bytes]:
    """The answer to a message."""

    def session() -> tuple[int, bytes]:
        host, port = gateway.smtp
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("x@example.org", how.get("options", []))
            code, text = client.docmd("RCPT TO:<mox@localhost>")
            if code != 250:
                return code, text
            client.docmd("DATA")
            client.send(data + b"\r\n.\r\n" if not data.endswith(b"\r\n") else data + b".\r\n")
            return client.getreply()

    return await trio.to_thread.run_sync(session)


def deepest(part: dict[str, Any]) -> int:
    depth = 0
    while part["Parts"]:
        part, depth = part["Parts"][0], depth + 1
    return depth


def marked(part: dict[str, Any]) -> bool:
    return part.get("BeyondLimits", False) or any(map(marked, part["Parts"]))


FROM = b"From: <x@example.org>\r\n"
TAKEN = {
    "1,000 nested parts in 68 kB": nested(1000)[:68_000],
    "100,000 parts": FROM + MULTIPART + b"--b\r\n\r\n\r\n" * 100_000,
    "a header of 1.5 MB": FROM + (b"X: " + b"y" * 900 + b"\r\n") * 1_650 + b"\r\nhi",
    "20,000 addresses": FROM + b"To: " + b"u@example.org,\r\n " * 19_999 + b"v@example.org\r\n\r\nhi",
    "9,900 fields": FROM + b"X: y\r\n" * 9_900 + b"\r\nhi",
    "an empty message": b"",
    "an empty line": b"\r\n",
    "no header": b"just text, no header",
    "NULs": FROM + b"Subject: a\0b\r\n\r\n\0\0\0",
    "octets of no charset": FROM
    + b"Subject: \xff\xfe\r\nContent-Type: text/plain; charset=x\r\n\r\n\xff\xfe",
    "wrong boundary": FROM + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--y\r\n\r\nhi\r\n--y--",
    "no boundary": FROM + b"Content-Type: multipart/mixed\r\n\r\n--y\r\n\r\nhi\r\n--y--",
    "winmail.dat": FROM
    + MULTIPART
    + b"--b\r\n\r\nhi\r\n--b\r\nContent-Type: application/ms-tnef; name=winmail.dat\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\neJ8+IgAQ\r\n--b--",
}


@pytest.mark.parametrize("what", TAKEN)
async def test_it_is_taken_and_stored_as_it_came(tmp_path: Path, webhooks: Receiver, what: str) -> None:
    data = TAKEN[what]
    async with running(tmp_path, webhooks, change=small) as gateway:
        with never_stalled():
            code, text = await deliver(gateway, data)
            assert code == 250, text
            [arrived] = await webhooks.incoming()
            found = await gateway.call("MessageGet", {"MsgID": arrived["Meta"]["MsgID"]})
        assert found["Structure"] == arrived["Structure"]
        raw = await gateway.raw(arrived["Meta"]["MsgID"])
        assert raw.endswith(data.removesuffix(b"\r\n") + b"\r\n" if data else b"\r\n")
        beyond = what in ("1,000 nested parts in 68 kB", "100,000 parts", "a header of 1.5 MB")
        assert marked(found["Structure"]) is beyond
        if what == "1,000 nested parts in 68 kB":
            assert deepest(found["Structure"]) == MAX_DEPTH
        if what == "100,000 parts":
            assert len(found["Structure"]["Parts"]) == MAX_PARTS
        if what == "20,000 addresses":
            assert len(found["Message"]["To"]) == 20_000
        if what == "winmail.dat":
            attached = found["Structure"]["Parts"][1]
            assert (attached["Filename"], attached["DecodedSize"]) == ("winmail.dat", 6)


LONG_LINE = b"X: " + b"y" * 1_000_000
REFUSED = {
    "10 times the size": (FROM + b"\r\n" + (b"x" * 78 + b"\r\n") * (10 * LIMIT // 80), (), 552, b"5.3.4"),
    "10 times the size, declared": (FROM, (f"SIZE={10 * LIMIT}",), 503, b"5.5.1"),
    "a header line of 1 MB": (FROM + LONG_LINE[:900_000] + b"\r\n\r\nhi", (), 550, b"5.6.0"),
    "a bare LF": (FROM + b"\r\nhi\n.\nMAIL FROM:<a@b.example>\r\n", (), 550, b"5.6.0"),
    "a loop": (b"Received: x\r\n" * 101 + FROM + b"\r\nhi", (), 554, b"5.4.6"),
    "a loop in a large header": (b"Received: x\r\n" * 60_000 + FROM + b"\r\nhi", (), 554, b"5.4.6"),
    "a loop in a header of 1.5 MB": (
        b"Received: x\r\n" * 200 + (b"X: " + b"y" * 900 + b"\r\n") * 1_650 + FROM + b"\r\nhi",
        (),
        554,
        b"5.4.6",
    ),
    "two From fields": (FROM + b"From: <y@localhost>\r\n\r\nhi", (), 550, b"5.7.2"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_it_is_refused(tmp_path: Path, webhooks: Receiver, what: str) -> None:
    data, options, code, enhanced = REFUSED[what]
    async with running(tmp_path, webhooks, change=small) as gateway:
        with never_stalled():
            answer = await deliver(gateway, data, options=list(options))
            assert (answer[0], answer[1][:5]) == (code, enhanced), answer
            await gateway.mail(FROM + b"Subject: next\r\n\r\nhi\r\n")  # it goes on
            [arrived] = await webhooks.incoming()
        assert arrived["Subject"] == "next"
        assert len((await gateway.call("MessageList", {}))["Messages"]) == 1


async def test_1001_recipients(gateway: Running) -> None:
    """A thousand are taken, whoever gives more is told to send the rest later; they share one content."""

    def session() -> list[tuple[int, bytes]]:
        host, port = gateway.smtp
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("x@example.org")
            answers = [client.docmd(f"RCPT TO:<u{n}x@example.org>") for n in range(1001)]
            answers.append(client.data(FROM + b"\r\nhi\r\n"))
            return answers

    with never_stalled():
        *answers, end = await trio.to_thread.run_sync(session)
    assert {code for code, _ in answers[:1000]} == {250}
    assert (answers[1000][0], answers[1000][1][:5], end[0]) == (452, b"4.5.3", 250)
    rows = await gateway.gateway.store.read(
        lambda conn: conn.exec_driver_sql("SELECT count(*), count(DISTINCT content_id) FROM received").one()
    )
    assert tuple(rows) == (1000, 1)


async def test_many_commands_at_once(gateway: Running) -> None:
    """A thousand recipients that a client sends without waiting, some of them refused in between."""

    def session() -> list[bytes]:
        with socket.create_connection(gateway.smtp, timeout=PATIENCE) as client:
            file = client.makefile("rb")
            greeting = [file.readline()]
            commands = [b"HELO x", b"MAIL FROM:<x@example.org>"]
            for number in range(1000):
                commands.append(b"RCPT TO:<u%dx@localhost>" % number)
                if number % 25 == 0:
                    commands.append(b"RCPT TO:<>")
            commands += [b"RSET", b"QUIT"]
            client.sendall(b"".join(command + b"\r\n" for command in commands))
            return greeting + [file.readline() for _ in commands]

    with never_stalled():
        answers = await trio.to_thread.run_sync(session)
    assert [answer[:3] for answer in answers].count(b"501") == 40
    assert answers[-1].startswith(b"221"), answers[-1]


async def test_memory_is_bounded(tmp_path: Path, webhooks: Receiver) -> None:
    """A message without an end is read to it, and thrown away as it comes."""

    def flood() -> int:
        before = psutil.Process().memory_info().rss
        with socket.create_connection(gateway.smtp, timeout=PATIENCE) as client:
            file = client.makefile("rb")
            file.readline()
            for command in (b"HELO x", b"MAIL FROM:<x@example.org>", b"RCPT TO:<mox@localhost>", b"DATA"):
                client.sendall(command + b"\r\n")
                file.readline()
            try:
                for _ in range(400):
                    client.sendall((b"x" * 78 + b"\r\n") * 3_000)  # 96 MB in all
            except OSError:
                pass  # it had enough
        return psutil.Process().memory_info().rss - before

    async with running(tmp_path, webhooks, change=small) as gateway:
        with never_stalled():
            grown = await trio.to_thread.run_sync(flood)
        assert grown < 30_000_000


async def test_a_client_of_one_byte_a_second_holds_a_connection_and_nothing_else(
    tmp_path: Path, webhooks: Receiver
) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["smtp"]["command_timeout"] = 1.0

    async with running(tmp_path, webhooks, change=change) as gateway:
        slow = await trio.open_tcp_stream(*gateway.smtp)
        await slow.receive_some(1000)
        with never_stalled():
            with trio.fail_after(PATIENCE):
                said = b""
                for octet in b"EHLO a.very.long.name.example":
                    await slow.send_all(bytes([octet]))
                    with trio.move_on_after(0.2):
                        said += await slow.receive_some(1000)
                    if said:
                        break
                    await gateway.mail(FROM + b"\r\nhi\r\n")  # all the while others are served
            assert said.startswith(b"421 4.4.2")
        await slow.aclose()
