"""REQUIRETLS and TLS-Required: No (RFC 8689), from submission to the server of the recipient's domain."""

from __future__ import annotations

import smtplib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.net.authority import root
from tests.plugins.mx_hosts import MxHosts, issued, mx_hosts, that
from tests.plugins.smtp_servers import Server
from tests.running import AUTH, PATIENCE, Receiver, Running, running

MX = "mx.example.org"
MESSAGE = b"From: mox@localhost\r\nTo: user@example.org\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[MxHosts]:
    """example.org has a policy by DANE, and plain.example has none."""
    async with mx_hosts(tmp_path) as hosts:
        hosts.domain("example.org", MX, secure=True)
        hosts.address(MX, "127.0.0.2", secure=True)
        hosts.domain("plain.example", "mx.plain.example")
        hosts.address("mx.plain.example", "127.0.0.2")
        yield hosts


async def submitted(gateway: Running, to: str, header: bytes = b"", *options: str) -> None:
    [address] = gateway.gateway.addresses["submissions"]

    def submit() -> None:
        with smtplib.SMTP_SSL(address.host, address.port, timeout=PATIENCE) as client:
            client.login(*AUTH)
            client.sendmail(AUTH[0], [to], header + MESSAGE, mail_options=options)

    await trio.to_thread.run_sync(submit)


def directly(hosts: MxHosts) -> Any:
    def change(raw: dict[str, Any]) -> None:
        del raw["routes"]
        raw["transports"]["direct"] = hosts.table()
        raw["dns"] = {"nameservers": ["127.0.0.1"], "port": hosts.dns.port, "validating": True}

    return change


async def test_requiretls(tmp_path: Path, webhooks: Receiver, hosts: MxHosts) -> None:
    """It is asked of the server, whose certificate was verified; where nothing could be, nobody is asked."""
    certificate = issued("good", MX)
    hosts.tlsa(MX, certificate)
    server = await hosts.server("127.0.0.2", tls=certificate)
    async with running(tmp_path, webhooks, change=directly(hosts)) as gateway:
        await submitted(gateway, "user@example.org", b"", "REQUIRETLS")
        told = await webhooks.event("delivered")
        _, [attempt] = await gateway.message(told["QueueMsgID"])
        assert attempt.tls == "TLSv1.3, verified by DANE"
        await submitted(gateway, "user@plain.example", b"", "REQUIRETLS")
        told = await webhooks.event("failed")
        assert (told["SMTPCode"], told["SMTPEnhancedCode"], told["Suppressing"]) == (0, "5.7.30", False)
        [listed] = (await gateway.call("MessageList", {"MailboxName": "Inbox"}))["Messages"]
        notice = await gateway.raw(listed["MsgID"])
    [(envelope, data)] = server.transactions
    assert envelope.require_tls
    assert b"(requiretls) with ESMTPSA" in b" ".join(data.split())
    assert b"Status: 5.7.30" in notice
    assert b"requires verified TLS" in notice
    assert b"\r\nhello\r\n" not in notice  # which travels without that requirement


@pytest.mark.parametrize("offered", [(), ("REQUIRETLS",)])
async def test_requiretls_by_a_smarthost(
    tmp_path: Path, webhooks: Receiver, hosts: MxHosts, offered: tuple[str, ...]
) -> None:
    """Verified TLS is not enough: the smarthost has to promise the same for the rest of the way."""
    host, ca_file = "127.0.0.2", tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    await hosts.script(host, that(tls=issued("good", host), capabilities=offered))

    def change(raw: dict[str, Any]) -> None:
        smarthost = {"type": "smtp", "host": host, "port": hosts.port, "ca_file": str(ca_file)}
        raw["transports"]["out"] = smarthost
        raw["routes"] = [{"transport": "out"}]

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.send(RequireTLS=True)
        told = await webhooks.event("delivered" if offered else "failed")
        if not offered:
            assert (told["SMTPCode"], told["SMTPEnhancedCode"], told["Suppressing"]) == (0, "5.7.30", False)
            assert told["Error"].endswith("or another way than by [transports.out]")
            [listed] = (await gateway.call("MessageList", {"MailboxName": "Inbox"}))["Messages"]
            assert b"\nStatus: 5.7.30" in await gateway.raw(listed["MsgID"])


@pytest.mark.parametrize("header", [b"", b"TLS-Required: No\r\n"])
async def test_tls_required_no(tmp_path: Path, webhooks: Receiver, hosts: MxHosts, header: bytes) -> None:
    """The policy is for another certificate. That stops a message, unless it says that it does not."""
    hosts.tlsa(MX, issued("good", MX))
    server = await hosts.server("127.0.0.2", Server(), tls=issued("self-signed", MX))
    async with running(tmp_path, webhooks, change=directly(hosts)) as gateway:
        await submitted(gateway, "user@example.org", header)
        told = await webhooks.event("delivered" if header else "delayed")
        _, [attempt] = await gateway.message(told["QueueMsgID"])
        assert (attempt.enhanced, attempt.tls) == (
            ("2.0.0", "TLSv1.3, not verified") if header else ("4.7.5", attempt.tls)
        )
    assert len(server.transactions) == bool(header)
    assert all(header in data for _, data in server.transactions)  # the next server is to know, too
