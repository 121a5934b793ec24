"""Servers that offer everything and keep to none of it: each message still has one true outcome, soon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Outcome
from tests.commands import PATIENCE
from tests.plugins.mx_hosts import MxHosts, Script, mx_hosts, that
from tests.plugins.smtp_servers import delivery


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", "mx.example.org")
        hosts.address("mx.example.org", "127.0.0.2")
        yield hosts


async def deliver(hosts: MxHosts, script: Script, *recipients: str) -> list[Outcome]:
    await hosts.script("127.0.0.2", script)
    async with hosts.transport() as direct:
        with trio.fail_after(PATIENCE):
            return list(await direct.deliver(delivery(*(recipients or ("b@example.org",)))))


def dialogue(*steps: tuple[bytes, bytes], then: bytes = b"") -> Script:
    """A server that greets, and for each step waits for these bytes and answers those. Then it says a last
    word and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mx\r\n")
        heard = b""
        for awaited, answer in steps:
            while awaited not in heard:
                data = await stream.receive_some()
                if not data:
                    return
                heard += data
            heard = heard.partition(awaited)[2]
            await stream.send_all(answer)
        await stream.send_all(then)

    return serve


def offering(*words: str) -> tuple[bytes, bytes]:
    """The step that answers EHLO."""
    lines = ["mx", *words]
    return b"EHLO", b"".join(
        b"250%c%s\r\n" % (b" -"[n < len(lines)], w.encode()) for n, w in enumerate(lines, 1)
    )


# --- What is offered ---


@pytest.mark.parametrize(
    "words",
    [
        ("LIMITS RCPTMAX=99999999999999999999 MAILMAX=0 RCPTDOMAINMAX=-1",),
        ("LIMITS RCPTMAX= =5 RCPTMAX MAILMAX=1x RCPTDOMAINMAX=\u0665 UNKNOWN=1",),
        ("LIMITS RCPTMAX=0",),
        ("SIZE 0",),
        ("SIZE",),
        ("SIZE 184467440737095516160000000",),
        ("SIZE -1",),
        ("AUTH " + " ".join(f"M{number}" for number in range(300)),),
        ("AUTH=PLAIN", "AUTH"),
        tuple(f"X-{number}" for number in range(100)),
        ("", " ", "=", "-"),
        ("PIPELINING now", "CHUNKING 7", "BINARYMIME", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME"),
    ],
    ids=lambda words: words[0][:30],
)
async def test_nonsense_in_what_is_offered_is_passed_over(hosts: MxHosts, words: tuple[str, ...]) -> None:
    script = that(capabilities=words) if "CHUNKING 7" not in words else taking_chunks(words)
    [first, second] = await deliver(hosts, script, "a@example.org", "b@example.org")
    assert [first.result.value, second.result.value] == ["delivered", "delivered"], first.error


def taking_chunks(words: tuple[str, ...]) -> Script:
    return dialogue(
        offering(*words), (b"MAIL", b"250 ok\r\n"), (b"RCPT", b"250 ok\r\n"), (b"RCPT", b"250 ok\r\n"),
        (b"LAST\r\n", b"250 ok\r\n"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", [("AUTH " + " ".join(["SCRAM-SHA-256"] * 500),), tuple(["8BITMIME"] * 100_000)]
)
async def test_what_is_offered_has_bounds(hosts: MxHosts, words: tuple[str, ...]) -> None:
    [outcome] = await deliver(hosts, dialogue(offering(*words)))
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.5.0")
    assert outcome.error.startswith("mx.example.org: reply ")
    assert len(outcome.transcript) < 2000


async def test_each_recipient_on_a_connection_of_its_own(hosts: MxHosts) -> None:
    recipients = [f"b{number}@example.org" for number in range(30)]
    outcomes = await deliver(hosts, that(capabilities=("LIMITS RCPTMAX=1 MAILMAX=1",)), *recipients)
    assert {one.result.value for one in outcomes} == {"delivered"}
    assert hosts.connections == {"127.0.0.2": 30}


# --- Answers out of step ---

OK = b"250 2.0.0 ok\r\n"
CHUNKS = offering("PIPELINING", "CHUNKING")
DATA = offering("PIPELINING")


@pytest.mark.parametrize(
    ("script", "result", "enhanced", "said"),
    [
        # Before there was a chunk: who has sent nothing is believed nothing.
        (dialogue(CHUNKS, (b"RCPT", OK * 3)), "temporary", "4.5.0", "unexpected reply: 250 2.0.0 ok"),
        (dialogue(CHUNKS, (b"RCPT", OK * 2), (b"BDAT", b"354 go on\r\n")), "temporary", "4.5.0", "354 go on"),
        (dialogue(CHUNKS, (b"RCPT", OK * 2), (b"BDAT", b"503 5.5.1 no\r\n")), "permanent", "5.5.1", "503"),
        (dialogue(CHUNKS, (b"RCPT", OK * 2), (b"LAST\r\n", OK * 5)), "delivered", "2.0.0", ""),
        (dialogue(DATA, (b"DATA", OK * 2 + b"354 go\r\n" + OK)), "temporary", "4.5.0", "unexpected reply"),
        (dialogue(DATA, (b"DATA", OK * 2 + b"354 go\r\n"), (b"\r\n.\r\n", OK * 4)), "delivered", "2.0.0", ""),
        (dialogue(DATA, (b"DATA", OK * 2 + b"250 go\r\n")), "temporary", "4.5.0", "unexpected reply: 250 go"),
        (dialogue(DATA, (b"DATA", b"354 go\r\n" * 3)), "temporary", "4.5.0", "unexpected reply: 354 go"),
        (dialogue(DATA, (b"DATA", OK + b"550 5.1.1 no\r\n354 go\r\n")), "permanent", "5.1.1", "550 5.1.1 no"),
    ],
)
async def test_answers_out_of_step(
    hosts: MxHosts, script: Script, result: str, enhanced: str, said: str
) -> None:
    [outcome] = await deliver(hosts, script)
    assert (outcome.result.value, outcome.enhanced) == (result, enhanced), outcome.error
    assert said in outcome.error


async def test_an_answer_before_its_question_is_for_no_later_message(hosts: MxHosts) -> None:
    """The connection has more answers in it than there were questions: it takes no other message."""
    early = dialogue(DATA, (b"DATA", OK * 2 + b"354 go\r\n"), (b"\r\n.\r\n", OK + b"550 5.1.1 early\r\n"))
    await hosts.script("127.0.0.2", early, that())
    async with hosts.transport() as direct:
        [first] = await direct.deliver(delivery("a@example.org"))
        [second] = await direct.deliver(delivery("b@example.org"))
    assert (first.result.value, second.result.value) == ("delivered", "delivered"), second.error
    assert hosts.connections == {"127.0.0.2": 2}


ANSWERS = [b"250 mail\r\n", b"250 first\r\n", b"550 5.1.1 second\r\n", b"354 go\r\n", b"250 dot\r\n"]


@pytest.mark.parametrize("number", range(len(ANSWERS) + 1))
async def test_hangs_up_after_so_many_answers(hosts: MxHosts, number: int) -> None:
    """Of a pipeline: who was refused stays refused, and nobody is called delivered before the last answer."""
    given = ANSWERS[:number]
    steps: list[Any] = [DATA, (b"DATA", b"".join(given[:4]))]
    if number >= 4:
        steps.append((b"\r\n.\r\n", b"".join(given[4:])))
    [first, second] = await deliver(hosts, dialogue(*steps), "a@example.org", "b@example.org")
    assert first.result.value == ("delivered" if number == 5 else "temporary")
    assert ("outcome unknown" in first.error) == (number == 4)
    assert second.result.value == ("permanent" if number >= 3 else "temporary")
    assert {first.enhanced, second.enhanced} <= {"4.4.2", "5.1.1", ""}
