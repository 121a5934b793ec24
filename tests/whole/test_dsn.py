"""The extension DSN (RFC 3461) from end to end: what is asked for is kept, and told to the next server."""

from __future__ import annotations

import smtplib
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.smtp.events import Envelope
from tests.plugins.smtp_servers import serving
from tests.running import AUTH, PATIENCE, Receiver, Running, running

MESSAGE = b"From: mox@localhost\r\nTo: user@example.org\r\nSubject: hi\r\n\r\nhello\r\n"


async def by_api(gateway: Running) -> None:
    await gateway.send(EnvID="order 1+1", DSNNotify=["SUCCESS", "DELAY"], DSNReturn="FULL")


async def by_smtp(gateway: Running) -> None:
    [address] = gateway.gateway.addresses["submissions"]

    def submit() -> None:
        with smtplib.SMTP_SSL(address.host, address.port, timeout=PATIENCE) as client:
            client.login(*AUTH)
            client.sendmail(
                AUTH[0],
                ["user@example.org"],
                MESSAGE,
                mail_options=["ENVID=order+201+2B1", "RET=FULL"],
                rcpt_options=["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;user+2Bold@example.com"],
            )

    await trio.to_thread.run_sync(submit)


async def sent_on(
    directory: Path, webhooks: Receiver, submit: Any, extensions: tuple[str, ...]
) -> tuple[Envelope, list[bytes]]:
    """What the next server is told, and what is in the sender's Inbox afterwards."""
    async with serving(more_extensions=lambda: extensions) as server:

        def change(raw: dict[str, Any]) -> None:
            raw["transports"] = {
                "out": {"type": "smtp", "host": "127.0.0.1", "port": server.port, "tls": "none"}
            }
            raw["routes"] = [{"transport": "out"}]

        async with running(directory, webhooks, change=change) as gateway:
            await submit(gateway)
            await webhooks.event("delivered")
            listed = await gateway.call("MessageList", {"MailboxName": "Inbox"})
            inbox = [await gateway.raw(message["MsgID"]) for message in listed["Messages"]]
    [(envelope, _)] = server.transactions
    return envelope, inbox


@pytest.mark.parametrize("submit", [by_api, by_smtp])
async def test_the_next_server_reports(tmp_path: Path, webhooks: Receiver, submit: Any) -> None:
    envelope, inbox = await sent_on(tmp_path, webhooks, submit, ("DSN",))
    assert (envelope.envid, envelope.ret) == ("order 1+1", "FULL")
    [wish] = envelope.dsn
    assert wish.notify == ("SUCCESS", "DELAY")
    assert wish.orcpt == ("rfc822;user+old@example.com" if submit is by_smtp else "")
    assert inbox == []


@pytest.mark.parametrize("submit", [by_api, by_smtp])
async def test_the_next_server_does_not(tmp_path: Path, webhooks: Receiver, submit: Any) -> None:
    envelope, [notice] = await sent_on(tmp_path, webhooks, submit, ())
    assert (envelope.envid, envelope.ret, envelope.dsn[0].notify) == ("", "", ())
    report = message_from_bytes(notice)
    assert report.get_content_type() == "multipart/report"
    status = notice.decode()
    assert "Original-Envelope-Id: order 1+1\r\n" in status
    assert "Action: relayed\r\n" in status
    assert ("Original-Recipient: rfc822;user+old@example.com\r\n" in status) == (submit is by_smtp)
