"""A third party's `receive_policy`, at each step of a transaction: what it sees; what its failures cost."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from gateway import Reception, hookimpl
from tests.commands import PATIENCE
from tests.running import Receiver, Running, running, with_plugins

LIMIT = 0.3  # seconds, for what hangs
BODY = (b"x" * 78 + b"\r\n") * 2_500  # large enough for a file
MAIL = b"From: <x@example.org>\r\nSubject: %s\r\n\r\nhi\r\n"

Step = Literal["mail", "rcpt", "data"]


class Guard:
    """Sees all; fails at one step of the first transaction, and has nothing to say of the next ones."""

    def __init__(self, step: Step) -> None:
        self.step, self.failed = step, False
        self.seen: list[Reception] = []
        self.contents: list[bytes] = []

    def due(self, reception: Reception) -> bool:
        due = reception.step == self.step and not self.failed
        self.failed = self.failed or due
        return due

    async def look(self, reception: Reception) -> None:
        self.seen.append(reception)
        if reception.content is not None:
            self.contents.append(await reception.content.read())


class Raises(Guard):
    @hookimpl
    async def receive_policy(self, reception: Reception) -> None:
        await self.look(reception)
        if self.due(reception):
            raise RuntimeError("broke down")


class Hangs(Guard):
    @hookimpl
    async def receive_policy(self, reception: Reception) -> None:
        await self.look(reception)
        if self.due(reception):
            await trio.sleep_forever()


class HangsInAThread(Guard):
    @hookimpl(thread=True)
    def receive_policy(self, reception: Reception) -> None:
        self.seen.append(reception)
        if self.due(reception):
            time.sleep(4 * LIMIT)


class Nonsense(Guard):
    @hookimpl
    async def receive_policy(self, reception: Reception) -> Any:
        await self.look(reception)
        return 42 if self.due(reception) else None


WAYS: dict[type[Guard], str] = {
    Raises: "raised RuntimeError: broke down",
    Hangs: f"no answer in {LIMIT} s",
    HangsInAThread: f"no answer in {LIMIT} s",
    Nonsense: "answered int; expected Accept, Reject or None",
}


def guarded(raw: dict[str, Any]) -> None:
    with_plugins("guard")(raw)
    raw["plugin"]["guard"] = {"limits": {"receive_policy": LIMIT}}


def transaction(client: smtplib.SMTP, subject: bytes) -> tuple[Step, bytes]:
    """How far a message comes, and the answer to that step."""
    code, said = client.mail("x@example.org")
    if code != 250:
        return "mail", b"%d %s" % (code, said)
    code, said = client.rcpt("mox@localhost")
    if code != 250:
        return "rcpt", b"%d %s" % (code, said)
    code, said = client.data(MAIL % subject + BODY)
    return "data", b"%d %s" % (code, said)


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("fails", WAYS, ids=lambda way: way.__name__)
async def test_a_failure_puts_the_message_off_and_nothing_else(
    fails: Callable[[Step], Guard],
    step: Step,
    tmp_path: Path,
    webhooks: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = fails(step)

    def session(gateway: Running) -> list[tuple[Step, bytes]]:
        with smtplib.SMTP(*gateway.smtp, local_hostname="x.example.org", timeout=PATIENCE) as client:
            client.ehlo()
            first = transaction(client, b"first")
            client.rset()
            return [first, transaction(client, b"again")]

    async with running(tmp_path, webhooks, change=guarded, plugins={"guard": guard}) as gateway:
        answers = await trio.to_thread.run_sync(session, gateway)
        assert answers == [(step, b"451 4.3.0 Local error; try again later"), ("data", b"250 2.0.0 OK")]
        [arrived] = await webhooks.incoming()
        assert arrived["Subject"] == "again"
        assert len((await gateway.call("MessageList", {}))["Messages"]) == 1
        stored = await gateway.raw(arrived["Meta"]["MsgID"])
        [file] = (
            path for path in (tmp_path / "data").rglob("*") if path.is_file() and BODY in path.read_bytes()
        )
        assert file.read_bytes() == stored  # and nothing is left of the other
    said = [record.getMessage() for record in caplog.records if "plugin 'guard'" in record.getMessage()]
    assert said == [f"plugin 'guard', hook 'receive_policy': {WAYS[type(guard)]}"]

    second = guard.seen[-3:]
    assert [reception.step for reception in second] == ["mail", "rcpt", "data"]
    for reception in second:
        assert (reception.remote_ip, reception.helo) == ("127.0.0.1", "x.example.org")
        assert str(reception.reverse_path) == "x@example.org"
        to = [] if reception.step == "mail" else ["mox@localhost"]
        assert [str(recipient) for recipient in reception.recipients] == to
    assert second[2].header == (MAIL % b"again").removesuffix(b"hi\r\n")
    assert second[2].auth is not None
    assert guard.contents[-1:] == ([] if isinstance(guard, HangsInAThread) else [stored])
