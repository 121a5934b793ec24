"""Calls to what only the gateway's network reaches are refused, and their history says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.webhooks.client import WebhookClient
from tests.webhooks.gateways import Receiver, bench, receiving
from tests.webhooks.receivers import resolve_by

PUBLIC = "192.0.9.1"  # nothing is sent there: the tests refuse or fail before


class Answers:
    """What tests say that a name's addresses are."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = []  # one after the other; the last stays

    def __call__(self, _name: str) -> list[str]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    resolve_by(answers, monkeypatch)
    return answers


async def refusal(tmp_path: Path, url: str) -> str:
    """The error in the history of a call to the URL, of a gateway that allows no network."""
    async with bench(tmp_path) as b, WebhookClient(timeout=5) as client:
        b.client = client
        async with b.sending():
            call_id = await b.event(url, message=1)
            await b.until(call_id, lambda c: c.error != "")
            [attempt] = await b.history(call_id)
    assert (attempt.success, attempt.code, attempt.url) == (False, 0, url)
    return attempt.error


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("169.254.169.254", "169.254.169.254"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
        ("[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"),
        ("[2002:7f00:1::]", "2002:7f00:1::"),
        ("[fec0::1]", "fec0::1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("localhost", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_addresses_however_they_are_written(
    tmp_path: Path, scheme: str, host: str, address: str
) -> None:
    error = await refusal(tmp_path, f"{scheme}://{host}/hook")
    assert f"{address}: not a public address, and not in an allowed network" in error.replace(", ::1", "")


@pytest.mark.parametrize("bad", ["127.0.0.1", "::1", "169.254.169.254", "64:ff9b::a9fe:a9fe"])
@pytest.mark.parametrize("first", [False, True])
async def test_a_name_with_mixed_answers(tmp_path: Path, names: Answers, bad: str, first: bool) -> None:
    names.answers = [[bad, PUBLIC] if first else [PUBLIC, bad]]
    error = await refusal(tmp_path, "http://shop.example/hook")
    assert error == f"shop.example is at {bad}: not a public address, and not in an allowed network"


async def test_a_name_that_changes_its_answer(tmp_path: Path, names: Answers) -> None:
    """A connection is to an address that was looked at, not to what the name has become since."""
    receiver = Receiver(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    async with bench(tmp_path) as b, receiving(receiver), b.sending():
        port = receiver.url.split(":")[2].split("/")[0]
        names.answers = [["127.0.0.1"], ["10.0.0.1"]]
        call_id = await b.event(f"http://shop.example:{port}/hook", message=1)
        await b.until(call_id, lambda c: c.error != "")
        b.later(61)
        await b.until(call_id, lambda c: c.attempts == 2 and "10.0.0.1" in c.error)
        history = await b.history(call_id)
    assert [(a.code, a.error) for a in history] == [
        (503, "HTTP status 503"),
        (0, "shop.example is at 10.0.0.1: not a public address, and not in an allowed network"),
    ]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    target = Receiver()
    receiver = Receiver()
    async with bench(tmp_path) as b, receiving(receiver, target), b.sending():
        receiver.response = (
            f"HTTP/1.1 {status} There\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        call_id = await b.event(receiver.url, message=1)
        await b.until(call_id, lambda c: c.error != "")
        [attempt] = await b.history(call_id)
    assert (attempt.code, attempt.error) == (status, f"HTTP status {status}: redirects are not followed")
    assert target.requests == []
