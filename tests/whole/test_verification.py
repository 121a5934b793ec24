"""Mail that comes in, verified: over SMTP, with a DNS server, from the client to the webhook."""

from __future__ import annotations

import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway import Accept, AuthResults, Reception, Reject, hookimpl
from gateway.mail.headers import read_headers
from gateway_dkim.signature import Signer, dns_record
from tests.counting import never_stalled
from tests.dns_server import DnsServer, dns_server
from tests.running import PATIENCE, Receiver, Running, running, with_plugins

RSA = rsa.generate_private_key(65537, 1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()
MESSAGE = (
    b"From: Alice <alice@example.org>\r\nTo: mox@localhost\r\nSubject: hi\r\n"
    b"Message-ID: <1@example.org>\r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\n\r\nhello\r\n.\r\n..two\r\n"
)
LOOP = "v=spf1 include:example.org -all"


@asynccontextmanager
async def verifying(
    directory: Path,
    webhooks: Receiver,
    server: DnsServer,
    *,
    smtp: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    timeout: float = 2.0,
    change: Callable[[dict[str, Any]], None] | None = None,
    plugins: dict[str, object] | None = None,
) -> AsyncIterator[Running]:
    """A gateway that asks the server."""

    def all_changes(raw: dict[str, Any]) -> None:
        raw["dns"] = {"nameservers": ["127.0.0.1"], "port": server.port, "timeout": timeout}
        raw["smtp"].update(smtp or {})
        if policy is not None:
            raw["plugin"]["mox.receive"] = policy
        if change is not None:
            change(raw)

    async with running(directory, webhooks, change=all_changes, plugins=plugins) as gateway:
        yield gateway


def publish(
    server: DnsServer, domain: str = "example.org", *, spf: str = "-all", dmarc: str = "reject"
) -> None:
    server.add(domain, "TXT", f'"v=spf1 {spf}"')
    server.add(f"_dmarc.{domain}", "TXT", f'"v=DMARC1; p={dmarc}"')
    for selector, key in (("r", RSA), ("e", ED25519)):
        text = dns_record(key)
        server.add(f"{selector}._domainkey.{domain}", "TXT", f'"{text[:200]}" "{text[200:]}"')


def signed(message: bytes = MESSAGE, domain: str = "example.org", key: Any = RSA) -> bytes:
    return Signer(domain, "r" if key is RSA else "e", key).sign(message) + message


async def refused(gateway: Running, data: bytes, **options: Any) -> tuple[int, str]:
    with pytest.raises(smtplib.SMTPDataError) as caught:
        await gateway.mail(data, **options)
    text = caught.value.smtp_error
    return caught.value.smtp_code, text.decode() if isinstance(text, bytes) else text


async def meta(gateway: Running) -> dict[str, Any]:
    """Of the only message that came."""
    [payload] = await gateway.webhooks.incoming()
    found: dict[str, Any] = payload["Meta"]
    return found


def validated(found: dict[str, Any]) -> tuple[bool, bool, list[str]]:
    return found["MailFromValidated"], found["MsgFromValidated"], found["DKIMVerifiedDomains"]


async def results(gateway: Running, msg_id: int) -> str:
    """What our Authentication-Results says, behind our name."""
    headers, _ = read_headers(await gateway.raw(msg_id))
    ours, *_ = headers.get_all("Authentication-Results")
    name, _, rest = ours.partition("; ")
    assert name == "localhost"
    return rest


async def test_all_passes(tmp_path: Path, webhooks: Receiver) -> None:
    forged = (
        b"Authentication-Results: localhost;\r\n spf=pass smtp.mailfrom=ceo@example.com\r\n"
        b"Authentication-Results: mx.example.com; spf=neutral\r\n"
    )
    async with dns_server() as server:
        publish(server, spf="ip4:127.0.0.1 -all")
        publish(server, "example.net")
        server.add("1.0.0.127.in-addr.arpa", "PTR", "mx.example.org.")
        server.add("mx.example.org", "A", "127.0.0.1")
        async with verifying(tmp_path, webhooks, server) as gateway:
            await gateway.mail(signed(forged + signed(), "example.net", ED25519), sender="a@example.org")
            found = await meta(gateway)
            assert validated(found) == (True, True, ["example.net", "example.org"])
            said = await results(gateway, found["MsgID"])
            assert said.startswith(
                "iprev=pass (mx.example.org) policy.iprev=127.0.0.1; spf=pass smtp.mailfrom=a@example.org;"
            )
            assert "dkim=pass header.d=example.net header.s=e header.a=ed25519-sha256 header.b=" in said
            assert "dkim=pass header.d=example.org header.s=r header.a=rsa-sha256 header.b=" in said
            assert said.endswith("; dmarc=pass (p=reject dis=none) header.from=example.org")
            raw = await gateway.raw(found["MsgID"])
            headers, _ = read_headers(raw)
            assert [name for name, _ in headers][:3] == ["Return-Path", "Received", "Authentication-Results"]
            assert headers.get_all("Authentication-Results")[1:] == ["mx.example.com; spf=neutral"]
            assert raw.endswith(MESSAGE)
            stored = await gateway.call("MessageGet", {"MsgID": found["MsgID"]})
            assert validated(stored["Meta"]) == (True, True, ["example.net", "example.org"])


async def test_a_failure_is_refused(tmp_path: Path, webhooks: Receiver) -> None:
    async with dns_server() as server:
        publish(server)
        async with verifying(tmp_path, webhooks, server) as gateway:
            assert await refused(gateway, MESSAGE) == (
                550,
                "5.7.26 DMARC: this is not from the domain in From, which wants it rejected",
            )
            changed = signed().replace(b"hello", b"Hello")
            assert (await refused(gateway, changed))[0] == 550
            twice = signed(b"From: eve@example.com\r\n" + MESSAGE, "example.org")
            assert (await refused(gateway, twice))[0] == 550
            await gateway.mail(signed())
            assert validated(await meta(gateway)) == (False, True, ["example.org"])
            assert not list((gateway.directory / "data" / "content").iterdir())


async def test_nobody_hides_from_it_behind_a_long_header(tmp_path: Path, webhooks: Receiver) -> None:
    filler = (b"X: " + b"y" * 900 + b"\r\n") * 1_200
    async with dns_server() as server:
        publish(server)
        async with verifying(tmp_path, webhooks, server) as gateway:
            code, text = await refused(gateway, filler + MESSAGE)
            assert (code, text) == (
                550,
                "5.7.26 DMARC: it cannot be told who this is from: the header section is too long",
            )
            assert (await refused(gateway, b"X: y\r\n" * 10_001 + MESSAGE))[0] == 550
            assert (await refused(gateway, MESSAGE.replace(b"\r\n\r\n", b"\r\n" + filler + b"\r\n", 1)))[
                0
            ] == 550


@pytest.mark.parametrize(("policy", "mailbox"), [(None, "Inbox"), ({"quarantine_mailbox": "Junk"}, "Junk")])
async def test_quarantine(
    tmp_path: Path, webhooks: Receiver, policy: dict[str, Any] | None, mailbox: str
) -> None:
    async with dns_server() as server:
        publish(server, dmarc="quarantine")
        async with verifying(tmp_path, webhooks, server, policy=policy) as gateway:
            await gateway.mail(MESSAGE)
            found = await meta(gateway)
            assert (found["MailboxName"], *validated(found)) == (mailbox, False, False, [])


@pytest.mark.parametrize(
    ("dmarc", "failing", "message", "code"),
    [
        ("reject", ["example.org TXT"], MESSAGE, 451),
        ("reject", ["r._domainkey.example.org TXT"], signed(), 451),
        ("none", ["_dmarc.example.org TXT"], MESSAGE, 451),
        ("none", ["example.org TXT", "r._domainkey.example.org TXT"], signed(), 250),
        ("reject", ["example.org TXT", "_dmarc.example.org TXT"], signed(), 250),
        ("quarantine", ["example.org TXT"], MESSAGE, 250),
        ("reject", ["1.0.0.127.in-addr.arpa PTR", "localhost TXT"], MESSAGE, 550),
    ],
)
async def test_trouble_with_dns(
    tmp_path: Path, webhooks: Receiver, dmarc: str, failing: list[str], message: bytes, code: int
) -> None:
    """Never a refusal for good, and a temporary one only where the domain's policy may refuse."""
    async with dns_server() as server:
        publish(server, dmarc=dmarc)
        for question in failing:
            name, _, kind = question.partition(" ")
            server.fail(name, kind, "SERVFAIL")
        async with verifying(tmp_path, webhooks, server) as gateway:
            if code == 250:
                await gateway.mail(message, sender="a@example.org")
                assert len(await gateway.webhooks.incoming()) == 1
            else:
                found, text = await refused(gateway, message, sender="a@example.org")
                assert (found, text[:6]) == (code, "4.7.0 " if code == 451 else "5.7.26")


async def test_dns_that_is_silent_or_goes_in_circles(tmp_path: Path, webhooks: Receiver) -> None:
    async with dns_server() as server:
        publish(server, "slow.example", dmarc="none")
        server.fail("slow.example", "TXT", "silent")
        server.fail("1.0.0.127.in-addr.arpa", "PTR", "silent")
        server.add("example.org", "TXT", f'"{LOOP}"')
        server.add("_dmarc.example.org", "CNAME", "a.example.org.")
        server.add("a.example.org", "CNAME", "b.example.org.")
        server.add("b.example.org", "CNAME", "a.example.org.")
        async with verifying(tmp_path, webhooks, server, timeout=0.3) as gateway:
            code, text = await refused(gateway, MESSAGE, sender="a@example.org")
            assert (code, text[:5]) == (451, "4.7.0")
            message = MESSAGE.replace(b"example.org", b"slow.example")
            await gateway.mail(message, sender="a@slow.example")
            found = await meta(gateway)
            said = await results(gateway, found["MsgID"])
            assert said.startswith('iprev=temperror reason="DNS: no answer in time')
            assert "spf=temperror" in said


async def test_spf_that_includes_itself(tmp_path: Path, webhooks: Receiver) -> None:
    async with dns_server() as server:
        server.add("example.org", "TXT", f'"{LOOP}"')
        async with verifying(tmp_path, webhooks, server) as gateway:
            await gateway.mail(MESSAGE, sender="a@example.org")
            said = await results(gateway, (await meta(gateway))["MsgID"])
            assert 'spf=permerror reason="more than 10 terms need look-ups"' in said


@pytest.mark.parametrize("size", [100_000, 1_000_000])
async def test_a_large_message(tmp_path: Path, webhooks: Receiver, size: int) -> None:
    body = b"".join(b"line %d with  spaces \t\r\n" % number for number in range(size // 24))
    message = MESSAGE + body + b"\r\n\r\n"
    async with dns_server() as server:
        publish(server)
        async with verifying(tmp_path, webhooks, server) as gateway:
            assert (await refused(gateway, signed(message).replace(b"line 77 ", b"line 78 ")))[0] == 550
            await gateway.mail(signed(message))
            found = await meta(gateway)
            assert validated(found) == (False, True, ["example.org"])
            raw = await gateway.raw(found["MsgID"])
            assert raw.endswith(message)
            assert raw.startswith(b"Return-Path: <remote@example.org>\r\nReceived: ")
            files = list((gateway.directory / "data" / "content").iterdir())
            assert len(files) == (size > 128 * 1024)


async def test_nothing_is_verified(tmp_path: Path, webhooks: Receiver) -> None:
    async with dns_server() as server:
        publish(server)
        async with verifying(tmp_path, webhooks, server, smtp={"verify": False}) as gateway:
            await gateway.mail(MESSAGE)
            found = await meta(gateway)
            assert validated(found) == (False, False, [])
            assert b"Authentication-Results" not in await gateway.raw(found["MsgID"])
        assert server.asked == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"hello\r\n",
        b"From: nobody:;\r\n\r\nhello\r\n",
        b"From: <a@[127.0.0.1]>\r\n\r\n",
        b"X: y\r\n" * 20_000 + b"\r\n",
        b"X: " + b"y" * 900 + b"\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=r; h=from; bh=AAAA; b=AAAA\r\n" * 1000
        + b"From: a@none.example\r\n\r\nhello\r\n",
    ],
)
async def test_unusual_messages(tmp_path: Path, webhooks: Receiver, message: bytes) -> None:
    """They are taken: nothing forbids it."""
    async with dns_server() as server:
        async with verifying(tmp_path, webhooks, server) as gateway:
            with never_stalled():
                await gateway.mail(message)
                found = await meta(gateway)
            assert validated(found) == (False, False, [])
            raw = await gateway.raw(found["MsgID"])
            assert raw.count(b"Authentication-Results: localhost;") == 1
            assert raw.endswith(message)
        assert len([question for question in server.asked if "_domainkey" in question]) <= 10


async def test_the_null_sender(tmp_path: Path, webhooks: Receiver) -> None:
    """Its SPF is that of the EHLO name."""
    async with dns_server() as server:
        publish(server, spf="ip4:127.0.0.1 -all")

        def deliver(gateway: Running) -> None:
            with smtplib.SMTP(*gateway.smtp, local_hostname="example.org", timeout=PATIENCE) as client:
                client.sendmail("", ["mox@localhost"], MESSAGE)

        async with verifying(tmp_path, webhooks, server) as gateway:
            await trio.to_thread.run_sync(deliver, gateway)
            found = await meta(gateway)
            assert validated(found) == (False, True, [])
            said = await results(gateway, found["MsgID"])
            assert "; spf=pass smtp.helo=example.org; dkim=none; dmarc=pass (" in said


class Judge:
    """A policy of one's own, which sees everything."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, AuthResults | None]] = []
        self.answer: Accept | Reject | None = None

    @hookimpl
    async def receive_policy(self, reception: Reception) -> Accept | Reject | None:
        if reception.step != "data":
            assert (reception.content, reception.auth, reception.header) == (None, None, b"")
            return None
        assert reception.content is not None
        self.seen.append((reception.header, await reception.content.read(), reception.auth))
        return self.answer


async def test_what_a_plugin_sees_and_says(tmp_path: Path, webhooks: Receiver) -> None:
    judge = Judge()
    judge.answer = Accept(mailbox="Suspicious")
    async with dns_server() as server:
        publish(server)
        async with verifying(
            tmp_path, webhooks, server, change=with_plugins("judge"), plugins={"judge": judge}
        ) as gateway:
            await gateway.mail(MESSAGE)
            found = await meta(gateway)
            assert found["MailboxName"] == "Suspicious"
            [(header, content, auth)] = judge.seen
            assert header == MESSAGE.partition(b"hello")[0]
            assert content == await gateway.raw(found["MsgID"])
            assert auth is not None
            assert (auth.dmarc.result, auth.dmarc.policy, auth.spf.result) == ("fail", "reject", "fail")
            judge.answer = Reject(550, "5.7.1", "no")
            assert await refused(gateway, MESSAGE) == (550, "5.7.1 no")
            judge.answer = Accept(mailbox="two\nlines")
            assert (await refused(gateway, MESSAGE))[0] == 451


async def test_localserve_passes_its_own_mail(tmp_path: Path, webhooks: Receiver) -> None:
    def another_domain(raw: dict[str, Any]) -> None:
        raw["domains"]["bücher.example"] = {}
        raw["accounts"]["mox"]["addresses"].append("mox@bücher.example")
        raw["accounts"]["mox"]["from_id_login_addresses"] = []

    async with running(tmp_path, webhooks, change=another_domain) as gateway:
        await gateway.send()
        found = await meta(gateway)
        assert validated(found) == (True, True, ["localhost"])
        said = await results(gateway, found["MsgID"])
        assert said.startswith("iprev=pass (localhost) policy.iprev=127.0.0.1; spf=pass ")
        assert "dkim=pass header.d=localhost header.s=local" in said
        assert said.endswith("dmarc=pass (p=reject dis=none) header.from=localhost")
        webhooks.got.clear()
        ours = MESSAGE.replace(b"alice@example.org", b"a@xn--bcher-kva.example")
        await gateway.mail(ours, sender="a@xn--bcher-kva.example")
        assert validated(await meta(gateway)) == (True, True, [])
        forged = MESSAGE.replace(b"alice@example.org", b"mox@localhost")
        assert (await refused(gateway, forged))[0] == 550
