"""All that can be wrong with DNS, TLS and a server, on a whole gateway: what the history, the log, the
webhook and the sender's Inbox say of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import trio

from gateway.net.smtp_client_settings import ClientSettings
from tests.net.authority import root
from tests.plugins.mx_hosts import MxHosts, hangs_in_handshake, issued, mx_hosts, sends, silent, that
from tests.running import PATIENCE, Receiver, Running, running

Limit = Literal["", "dns", "tls", "reply"]
SHORT = 1.0  # seconds; only where somebody is silent: on a busy machine an answer may take longer


@dataclass(frozen=True)
class Fault:
    """`name` is the domain's, below .example; `set_up` gets its address of the loopback network."""

    name: str
    set_up: Callable[[MxHosts, str, str], Any]
    enhanced: str = ""  # empty: it is delivered all the same
    code: int = 0
    error: str = ""  # what it says to people
    for_good: bool = False
    short: Limit = ""  # the limit that it has to wait for


def dns(fault: Any, record: str = "MX") -> Callable[[MxHosts, str, str], Any]:
    """A look-up about the domain fails."""

    async def set_up(hosts: MxHosts, domain: str, address: str) -> None:
        hosts.domain(domain, f"mx.{domain}")
        hosts.address(f"mx.{domain}", address)
        await hosts.script(address, that())
        hosts.dns.fail(domain if record == "MX" else f"mx.{domain}", record, fault)

    return set_up


def tls(certificate: str | None) -> Callable[[MxHosts, str, str], Any]:
    """DANE names the authority of the host's certificate, which is not as it must be; None: it hangs."""

    async def set_up(hosts: MxHosts, domain: str, address: str) -> None:
        host = f"mx.{domain}"
        hosts.domain(domain, host, secure=True)
        hosts.address(host, address, secure=True)
        hosts.tlsa(host, root(), usage=2)
        await hosts.script(
            address, hangs_in_handshake if certificate is None else that(tls=issued(certificate, host))
        )

    return set_up


def server(script: Any) -> Callable[[MxHosts, str, str], Any]:
    async def set_up(hosts: MxHosts, domain: str, address: str) -> None:
        hosts.domain(domain, f"mx.{domain}")
        hosts.address(f"mx.{domain}", address)
        await hosts.script(address, script)

    return set_up


async def nothing(hosts: MxHosts, domain: str, address: str) -> None:
    pass


async def null_mx(hosts: MxHosts, domain: str, address: str) -> None:
    hosts.dns.add(domain, "MX", "0 .")


async def circle(hosts: MxHosts, domain: str, address: str) -> None:
    hosts.dns.add(domain, "CNAME", f"b.{domain}.")
    hosts.dns.add(f"b.{domain}", "CNAME", f"{domain}.")


async def fifty_mx(hosts: MxHosts, domain: str, address: str) -> None:
    hosts.domain(domain, f"mx.{domain}", *(f"mx{number}.{domain}" for number in range(49)))
    hosts.address(f"mx.{domain}", address)
    await hosts.script(address, that())


UNKNOWN = "outcome unknown, the message may have been delivered: connection closed by the server"
FAULTS = (
    Fault("servfail", dns("SERVFAIL"), "4.4.3", error="DNS"),
    Fault("timeout", dns("silent"), "4.4.3", error="DNS: no answer in time", short="dns"),
    Fault("host-servfail", dns("SERVFAIL", "A"), "4.4.3", error="DNS"),
    Fault("nxdomain", nothing, "5.1.2", error="there is no domain nxdomain.example", for_good=True),
    Fault("nullmx", null_mx, "5.1.10", error="nullmx.example takes no mail", for_good=True),
    Fault("truncated", dns("truncated")),
    Fault("circle", circle, "4.4.3", error="its aliases (CNAME) have no end"),
    Fault("fifty", fifty_mx),
    Fault("expired", tls("expired"), "4.7.5", error="the certificate has expired"),
    Fault("wrong-name", tls("wrong name"), "4.7.5", error="the certificate is not for mx.wrong-name.example"),
    Fault("self-signed", tls("self-signed"), "4.7.5", error="the certificate is self-signed"),
    Fault("hangs", tls(None), "4.7.5", error=f"no TLS handshake within {SHORT:g} seconds", short="tls"),
    Fault("no-banner", server(silent), "4.4.1", error=f"no reply within {SHORT:g} seconds", short="reply"),
    Fault("garbage", server(sends(b"220-mx\r\nwhat\r\n220 x\r\n")), "4.5.0", error="not an SMTP reply"),
    Fault("long-line", server(sends(b"220 " + b"x" * 1_000_000 + b"\r\n")), "4.5.0", error="line is longer"),
    Fault("many-lines", server(sends(b"220-mx\r\n" * 9_000)), "4.5.0", error="reply has more than 128 lines"),
    Fault(
        "not-ascii",
        server(that(replies={"RCPT": "550 5.1.1 Empfänger unbekannt\r\n".encode()})),
        "5.1.1",
        550,
        "remote answered 550 5.1.1 Empfänger unbekannt",
        for_good=True,
    ),
    Fault("closed", server(that(replies={".": b""})), "4.4.2", error=UNKNOWN),
)


@pytest.mark.parametrize("short", get_args(Limit))
async def test_each_fault(
    tmp_path: Path,
    webhooks: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    short: Limit,
) -> None:
    """Those together that wait for the same limit; it is short, and the others are far away."""
    caplog.set_level(logging.INFO)
    faults = [fault for fault in FAULTS if fault.short == short]

    def limit(of: Limit) -> float:
        return SHORT if of == short else PATIENCE

    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: limit("reply"))
    async with mx_hosts(tmp_path) as hosts:

        def change(raw: dict[str, Any]) -> None:
            del raw["routes"]
            raw["transports"]["direct"] = hosts.table(tls_timeout=limit("tls"))
            raw["dns"] = {
                "nameservers": ["127.0.0.1"],
                "port": hosts.dns.port,
                "validating": True,
                "timeout": limit("dns"),
            }
            raw["plugin"]["retry"] = {"max_attempts": 1}  # so that the sender is told at once

        for number, fault in enumerate(faults, 10):
            await fault.set_up(hosts, f"{fault.name}.example", f"127.0.0.{number}")
        async with running(tmp_path, webhooks, change=change) as gateway:
            with trio.fail_after(PATIENCE):
                sent = await gateway.send(
                    To=[{"Address": f"user@{fault.name}.example"} for fault in faults], Subject="Fault"
                )
                ids = {one["Address"]: one["QueueMsgID"] for one in sent["Submissions"]}
                for fault in faults:
                    await _told(gateway, webhooks, fault, ids[f"user@{fault.name}.example"], caplog)
            notices = await _notices(gateway)
    assert set(notices) == {f"user@{fault.name}.example" for fault in faults if fault.enhanced}
    for fault in faults:
        if fault.enhanced:
            text, status = notices[f"user@{fault.name}.example"]
            assert fault.error in text, text
            assert f"Status: {fault.enhanced}" in status
            assert ("Diagnostic-Code: smtp; 550" in status) == bool(fault.code)
            assert (f"mx.{fault.name}.example" in text) >= ("Remote-MTA" in status)


async def _told(
    gateway: Running, webhooks: Receiver, fault: Fault, message: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By the webhook, in the history and in the log."""
    if not fault.enhanced:
        await webhooks.event("delivered", QueueMsgID=message)
        return
    event = await webhooks.event("failed", QueueMsgID=message)
    assert (event["SMTPEnhancedCode"], event["SMTPCode"]) == (fault.enhanced, fault.code), event["Error"]
    assert fault.error in event["Error"]
    assert event["Suppressing"] == (fault.code == 550)
    _, [attempt] = await gateway.message(message)
    assert fault.error in attempt.error
    assert (attempt.code, attempt.enhanced) == (fault.code, fault.enhanced)
    [line] = [one.getMessage() for one in caplog.records if f"message={message} " in one.getMessage()]
    assert line.startswith("failed submission=")
    assert fault.error in line.replace("\\'", "'")
    assert (f" server=mx.{fault.name}.example[127.0.0." in line) == bool(attempt.remote_ip)
    given_up = "the only attempt failed" in event["Error"]
    assert given_up != fault.for_good


async def _notices(gateway: Running) -> dict[str, tuple[str, str]]:
    """The text for people and the fields for programs of each, by the recipient."""
    found = {}
    listed = await gateway.call("MessageList", {"MailboxName": "Inbox", "Max": 100})
    for one in listed["Messages"]:
        notice: Any = message_from_bytes(await gateway.raw(one["MsgID"]))
        text, status, _ = notice.get_payload()
        said = text.get_payload(decode=True).decode().replace("\r\n", "\n")
        [recipient] = re.findall(r"^    (user@\S+)$", said, re.MULTILINE)
        found[recipient] = said, str(status)
    return found
