"""Stages `read_report` and `match_report`: plugins of a third party in their place, and some that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import IncomingReport, ReportMatch, hookimpl
from tests.reports import dsn, recipient_block
from tests.running import Receiver, Running, running
from tests.thirdparty.failing import Way, every_way, failing, failures
from tests.thirdparty.gateways import usual, with_sets

MATCHERS = ("mox.fromid", "mox.envid", "mox.messageid")


async def delivered(gateway: Running) -> tuple[str, str]:
    """A message that was delivered: its Message-ID and the address that it was sent from."""
    answer = await gateway.send()
    told = await gateway.webhooks.event("delivered", MessageID=answer["MessageID"])
    await gateway.webhooks.wait_for(lambda p: "Event" not in p and p["MessageID"] == answer["MessageID"])
    return answer["MessageID"], f"mox+{told['FromID']}@localhost"


def old_bounce(message_id: str) -> bytes:
    return (
        "From: <MAILER-DAEMON@old.example>\r\nSubject: failure notice\r\n\r\n"
        "Sorry, no mailbox here by that name: <user@example.org>\r\n\r\n"
        f"--- Below is a copy.\r\n\r\nSubject: hi\r\nMessage-ID: {message_id}\r\n\r\nhello\r\n"
    ).encode()


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_plugin_of_ones_own(tmp_path: Path, webhooks: Receiver, trusted: bool) -> None:
    plugins = ["acme.bounces", *usual(without=MATCHERS)]
    change = with_sets(plugins, {"acme.bounces": {"trusted": trusted}})
    async with running(tmp_path, webhooks, change=change) as gateway:
        message_id, _ = await delivered(gateway)
        await gateway.mail(old_bounce(message_id), to="mox@localhost", sender="")
        failed = await webhooks.event("failed")
        assert (failed["MatchedBy"], failed["DSN"], failed["Suppressing"]) == ("acme", True, trusted)
        assert (failed["SMTPCode"], failed["Error"]) == (550, "no mailbox here")
        # What it does not know stays ordinary mail.
        await gateway.mail(old_bounce("<other@example.org>"), to="mox@localhost", sender="")
        arrived = await webhooks.incoming(2)
        assert [p["Subject"] for p in arrived] == ["hi", "failure notice"]


async def test_a_reader_of_ones_own(tmp_path: Path, webhooks: Receiver) -> None:
    """What it understands, no other reader sees; what it does not, they do."""
    change = with_sets(["acme.reading", *usual()])
    async with running(tmp_path, webhooks, change=change) as gateway:
        _, unique = await delivered(gateway)
        bounce = b"From: <x@acme.example>\r\n\r\nACME-BOUNCE user@example.org 550 5.1.1 nobody here\r\n"
        await gateway.mail(bounce, to=unique, sender="")
        failed = await webhooks.event("failed")
        assert (failed["MatchedBy"], failed["DSN"], failed["Suppressing"]) == ("fromid", True, True)
        assert (failed["SMTPCode"], failed["SMTPEnhancedCode"]) == (550, "5.1.1")
        assert (failed["Error"], failed["RemoteMTA"]) == ("nobody here", "acme")
    change = with_sets(["acme.reading", *usual()], {"acme.reading": {"word": "OTHER"}})
    async with running(tmp_path / "second", webhooks, change=change) as gateway:
        _, unique = await delivered(gateway)
        await gateway.mail(bounce, to=unique, sender="")
        assert (await webhooks.event("unrecognized"))["DSN"] is False
        await gateway.mail(dsn(recipient_block("user@example.org")), to=unique, sender="")
        await webhooks.event("failed", Error="550 5.1.1 no such user")


READERS = tuple(name for name in usual() if name.startswith("reports."))


@every_way
@pytest.mark.parametrize("alone", [False, True], ids=["before", "alone"])
async def test_a_report_that_a_plugin_cannot_read(
    way: Way, alone: bool, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are asked; when there are none, something came to a unique address, and is no report."""
    change = failing(way, "read_report", without=READERS if alone else ())
    data = dsn(recipient_block("user@example.org"))
    async with running(tmp_path, webhooks, change=change) as gateway:
        _, unique = await delivered(gateway)
        await gateway.mail(data, to=unique, sender="")
        if alone:
            told = await webhooks.event("unrecognized")
            assert (told["DSN"], told["Suppressing"]) == (False, False)
            assert "no delivery status notification" in told["Error"]
        else:
            failed = await webhooks.event("failed")
            assert (failed["MatchedBy"], failed["Suppressing"]) == ("fromid", True)
    assert failures(caplog, way, "read_report")

    async with running(tmp_path, webhooks) as gateway:
        await gateway.mail(data, to=unique, sender="")
        await webhooks.event("failed", MatchedBy="fromid")


@every_way
@pytest.mark.parametrize("alone", [False, True], ids=["before", "alone"])
async def test_a_report_is_never_lost(
    way: Way, alone: bool, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are asked; when there are none, the report is announced as any mail."""
    change = failing(way, "match_report", without=MATCHERS if alone else ())
    data = dsn(recipient_block("user@example.org"))
    async with running(tmp_path, webhooks, change=change) as gateway:
        _, unique = await delivered(gateway)
        await gateway.mail(data, to=unique, sender="")
        if alone:
            [_, arrived] = await webhooks.incoming(2)
            assert arrived["Meta"]["RcptTo"] == unique
            assert arrived["Meta"]["Automated"]
            assert b"550 5.1.1" in await gateway.raw(arrived["Meta"]["MsgID"])
            assert (await gateway.message(1))[0].success is True
        else:
            failed = await webhooks.event("failed")
            assert (failed["MatchedBy"], failed["Suppressing"]) == ("fromid", True)
    assert len(failures(caplog, way, "match_report")) == 1

    async with running(tmp_path, webhooks) as gateway:
        await gateway.mail(data, to=unique, sender="")
        await webhooks.event("failed", MatchedBy="fromid")


async def test_another_account_s_message_is_not_touched(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a plugin answers."""

    def change(raw: dict[str, Any]) -> None:
        with_sets(["acme.claims", *usual()])(raw)
        raw["accounts"]["other"] = {"addresses": ["other@localhost"]}

    async with running(tmp_path, webhooks, change=change, plugins={"acme.claims": Claims()}) as gateway:
        await delivered(gateway)
        await gateway.mail(dsn(recipient_block("user@example.org")), to="other@localhost", sender="")
        item, attempts = await gateway.message(1)
        assert (item.success, len(attempts)) == (True, 1)
    assert "match_report: account other has no message 1" in caplog.text


class Claims:
    """Every report is on message 1."""

    @hookimpl
    def match_report(self, report: IncomingReport) -> ReportMatch | None:
        return ReportMatch(1, "acme", report.dsn.recipients[0] if report.dsn else None, trusted=True)
