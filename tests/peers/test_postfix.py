"""Deliveries to a real Postfix: as a smarthost with SASL, and as a domain's server with TLS."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509

from gateway import Address, DsnRequest, Outcome
from tests.peers.postfix import FULL, MAILBOX, NAME, PASSWORD, USER, Postfix, running_postfix
from tests.plugins.mx_hosts import mx_hosts
from tests.plugins.smtp_servers import delivery, results, transport
from tests.running import AUTH, PATIENCE, receiving, running

MESSAGE = (
    "From: gateway@example.org\r\nTo: user@example.org\r\nMessage-ID: <{id}@example.org>\r\n"
    "Subject: hi\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n.Grüße\r\n.\r\n..\r\nFin\r\n"
)
SENDER = Address.parse(USER)


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    with running_postfix() as it:
        yield it


def message(number: str) -> bytes:
    return MESSAGE.format(id=number).encode()


def smarthost(postfix: Postfix, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "host": "localhost",
        "port": postfix.submissions if kind == "submissions" else postfix.submission,
        "ca_file": postfix.ca_file,
        "auth": {"username": USER, "password": PASSWORD, "plain": True},
    } | changes


@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_as_a_smarthost(postfix: Postfix, tmp_path: Path, kind: str) -> None:
    async with transport(tmp_path, **smarthost(postfix, kind)) as relay:
        outcomes = await relay.deliver(
            delivery(MAILBOX, "nobody@example.org", data=message(kind), sender=SENDER, has_8bit=True)
        )
        again = await relay.deliver(delivery(MAILBOX, data=message(f"{kind}-2"), sender=SENDER))
    assert results(outcomes) == [("delivered", 250), ("permanent", 550)], outcomes
    assert outcomes[1].enhanced == "5.1.1"
    assert "verified" in outcomes[0].tls
    assert results(again) == [("delivered", 250)]
    text = (await trio.to_thread.run_sync(postfix.received, f"{kind}@example.org")).get_payload(decode=True)
    assert text == ".Grüße\n.\n..\nFin\n".encode()
    session = await trio.to_thread.run_sync(postfix.session, f"message-id=<{kind}-2@example.org>")
    assert " auth=1 mail=2 rcpt=2/3 bdat=2 " in session  # by CHUNKING, on one connection
    assert "sasl_method=SCRAM-SHA-256, sasl_username=gateway@example.org" in postfix.log


async def test_messages_together_with_their_envelopes(postfix: Postfix, tmp_path: Path) -> None:
    """From the second on, whatever became of the ones before; what nobody takes is read to its end."""
    lines = b"MAIL FROM:<x@example.org>\r\nRCPT TO:<user@example.org>\r\nQUIT\r\n"
    async with transport(tmp_path, **smarthost(postfix, "submission")) as relay:
        outcomes: list[Outcome] = []
        for number, recipients in enumerate(
            (
                [MAILBOX],
                ["nobody@example.org"],
                [MAILBOX, "nobody@example.org"],
                ["nobody@example.org"],
                [MAILBOX],
            )
        ):
            data = message(f"together-{number}") + lines
            outcomes += await relay.deliver(delivery(*recipients, data=data, sender=SENDER, has_8bit=True))
    assert [outcome.code for outcome in outcomes] == [250, 550, 250, 550, 550, 250]
    for number in (0, 2, 4):
        received = await trio.to_thread.run_sync(postfix.received, f"together-{number}@example.org")
        content = received.get_payload(decode=True)
        assert isinstance(content, bytes)
        assert content.endswith(lines.replace(b"\r\n", b"\n"))
    session = await trio.to_thread.run_sync(postfix.session, "message-id=<together-4@example.org>")
    assert " auth=1 mail=5 rcpt=3/6 bdat=3/5 " in session  # on one connection


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN"])
async def test_logins(postfix: Postfix, tmp_path: Path, mechanism: str) -> None:
    configuration = postfix.directory / "etc" / "sasl" / "smtpd.conf"
    before = configuration.read_text()
    configuration.write_text(before.partition("mech_list")[0] + f"mech_list: {mechanism}\n")
    try:
        async with transport(tmp_path, **smarthost(postfix, "submission")) as relay:
            data = message(f"login-{mechanism}")
            [outcome] = await relay.deliver(delivery(MAILBOX, data=data, sender=SENDER))
    finally:
        configuration.write_text(before)
    assert results([outcome]) == [("delivered", 250)], outcome.error
    assert f"sasl_method={mechanism}, " in postfix.log


async def test_a_wrong_password(postfix: Postfix, tmp_path: Path) -> None:
    auth = {"username": USER, "password": "wrong", "plain": True}
    async with transport(tmp_path, **smarthost(postfix, "submission", auth=auth)) as relay:
        [outcome] = await relay.deliver(delivery(MAILBOX, sender=SENDER))
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.0")
    assert outcome.error.startswith("transport 'relay': login with SCRAM-SHA-256 failed: remote answered 535")


@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_a_message_that_requires_tls_is_not_for_a_smarthost_without_requiretls(
    postfix: Postfix, tmp_path: Path, kind: str
) -> None:
    async with transport(tmp_path, **smarthost(postfix, kind)) as relay:
        data = message(f"requires-{kind}")
        [outcome] = await relay.deliver(delivery(MAILBOX, data=data, sender=SENDER, require_tls=True))
        after = await relay.deliver(delivery(MAILBOX, data=message(f"after-{kind}"), sender=SENDER))
    assert results([outcome, *after]) == [("permanent", 0), ("delivered", 250)]
    assert outcome.enhanced == "5.7.30"
    session = await trio.to_thread.run_sync(postfix.session, f"message-id=<after-{kind}@example.org>")
    assert " mail=1 " in session
    assert f"<requires-{kind}@example.org>" not in postfix.log


@pytest.mark.parametrize("policy", ["none", "DANE", "MTA-STS"])
async def test_as_the_server_of_a_domain(postfix: Postfix, tmp_path: Path, policy: str) -> None:
    async with mx_hosts(tmp_path) as hosts:
        hosts.port = postfix.smtp
        hosts.domain("example.org", NAME, secure=True)
        hosts.address(NAME, "127.0.0.1", secure=True)
        if policy == "DANE":
            pem = (postfix.directory / "tls.pem").read_bytes()
            hosts.tlsa_of(NAME, x509.load_pem_x509_certificate(pem))
        elif policy == "MTA-STS":
            hosts.policy("example.org", NAME)
        async with hosts.transport() as direct:
            wish = DsnRequest(ret="HDRS", notify=("FAILURE",), orcpt="rfc822;user@example.org")
            data = message(f"mx-{policy}")
            [outcome] = await direct.deliver(
                delivery(MAILBOX, data=data, dsn=(wish,), env_id="ours+1", has_8bit=True)
            )
            [unknown] = await direct.deliver(delivery("nobody@example.org"))
    assert results([outcome, unknown]) == [("delivered", 250), ("permanent", 550)]
    verified = "not verified" if policy == "none" else f"verified by {policy}"
    assert outcome.tls == f"TLSv1.3, {verified}"
    assert outcome.dsn_passed_on
    received = await trio.to_thread.run_sync(postfix.received, f"mx-{policy}@example.org")
    assert received["Return-Path"] == "<app@example.org>"


async def test_what_is_sent_by_the_api(postfix: Postfix, tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["transports"] = {"out": smarthost(postfix, "submission")}
        raw["routes"] = [{"transport": "out"}]

    async with receiving() as webhooks, running(tmp_path, webhooks, change=change) as gateway:
        sent = await gateway.send(MAILBOX, Text="Grüße\n.\n")
        await webhooks.event("delivered")
        await gateway.send("nobody@example.org")
        failed = await webhooks.event("failed")
    assert (failed["SMTPCode"], failed["SMTPEnhancedCode"], failed["Suppressing"]) == (550, "5.1.1", True)
    received = await trio.to_thread.run_sync(partial(postfix.received, sent["MessageID"].strip("<>")))
    assert received["DKIM-Signature"]
    assert received["Subject"] == "hi"


@pytest.mark.parametrize(
    ("recipient", "event", "returned_as"),
    # The whole message comes back of a failure only (RFC 3461, 4.3).
    [(MAILBOX, "delivered", "text/rfc822-headers"), (FULL, "failed", "message/rfc822")],
)
async def test_what_was_asked_for_at_submission_is_reported_by_the_last_server(
    postfix: Postfix, tmp_path: Path, recipient: str, event: str, returned_as: str
) -> None:
    """ENVID, RET, NOTIFY and ORCPT (RFC 3461) go all the way, and the report comes back as an event."""

    def change(raw: dict[str, Any]) -> None:
        raw["transports"] = {
            "out": {"type": "smtp", "host": "127.0.0.1", "port": postfix.smtp, "tls": "none"}
        }
        raw["routes"] = [{"transport": "out"}]

    async with receiving() as webhooks, running(tmp_path, webhooks, change=change) as gateway:
        [address] = gateway.gateway.addresses["submissions"]

        def submit() -> None:
            with smtplib.SMTP_SSL(address.host, address.port, timeout=PATIENCE) as client:
                client.login(*AUTH)
                client.sendmail(
                    AUTH[0],
                    [recipient],
                    message(f"reported-{event}").replace(USER.encode(), AUTH[0].encode()),
                    mail_options=[f"ENVID=order+201+2B{event}", "RET=FULL", "BODY=8BITMIME"],
                    rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;user+2Bold@example.com"],
                )

        await trio.to_thread.run_sync(submit)
        queued = (await webhooks.event("delivered"))["QueueMsgID"]
        report: Any = await trio.to_thread.run_sync(postfix.report, f"order 1+{event}")
        _, status, returned = report.get_payload()
        assert f"Action: {event}\n" in str(status)
        assert "Original-Recipient: rfc822;user+old@example.com\n" in str(status)
        assert returned.get_content_type() == returned_as
        assert ("Grüße".encode() in returned.as_bytes()) == (event == "failed")
        # We told nothing ourselves, and what Postfix tells is understood.
        assert (await gateway.call("MessageList", {"MailboxName": "Inbox"}))["Messages"] == []
        webhooks.clear()
        data = report.as_bytes(policy=report.policy.clone(linesep="\r\n"))
        await gateway.mail(data, to=report["X-Original-To"], sender="")
        told = await webhooks.event(event, QueueMsgID=queued)
    assert told["SMTPEnhancedCode"] == ("5.2.2" if event == "failed" else "2.0.0")
