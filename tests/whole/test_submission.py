"""Mail handed in over SMTP, from login to webhook, with the clients that people have."""

from __future__ import annotations

import base64
import re
import shutil
import smtplib
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Reject, hookimpl
from gateway.accounts import sasl
from gateway.accounts.logins import FAILURES_ALLOWED
from gateway.net import renewal
from gateway.net.certificates import self_signed
from gateway.net.smtp_client import connect_smtp
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.net.tls import TlsStream
from gateway.net.tls_contexts import client_context
from gateway.smtp.scram import ScramClient
from tests.docs.pages import ROOT
from tests.running import AUTH, PATIENCE, Receiver, Running, running, with_plugins
from tests.whole.test_delivery import verified

USER, PASSWORD = AUTH
MESSAGE = b"From: Me <mox@localhost>\r\nTo: user@example.org\r\nSubject: hi\r\n\r\nhello\r\n"


def starttls_address(gateway: Running) -> tuple[str, int]:
    address = gateway.gateway.addresses["submission"][0]
    return address.host, address.port


def tls_address(gateway: Running) -> tuple[str, int]:
    address = gateway.gateway.addresses["submissions"][0]
    return address.host, address.port


def certificate(gateway: Running) -> Path:
    return gateway.directory / "tls" / "localhost.pem"


def trusting(gateway: Running) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate(gateway))


def log_in(client: smtplib.SMTP, mechanism: str = "PLAIN", password: str = PASSWORD) -> tuple[int, bytes]:
    client.user, client.password = USER, password
    method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
    return client.auth(mechanism, method)


async def client_does(gateway: Running, talk: Callable[[smtplib.SMTP], Any], *, login: bool = True) -> Any:
    """What a function makes of a client within TLS."""

    def work() -> Any:
        with smtplib.SMTP_SSL(*tls_address(gateway), timeout=PATIENCE, context=trusting(gateway)) as client:
            client.ehlo("client.example")
            if login:
                log_in(client)
            return talk(client)

    return await trio.to_thread.run_sync(work)


async def submit(
    gateway: Running, data: bytes = MESSAGE, *to: str, sender: str = USER, options: tuple[str, ...] = ()
) -> tuple[int, str]:
    """The last answer, to whatever command."""

    def talk(client: smtplib.SMTP) -> tuple[int, bytes]:
        code, text = client.mail(sender, options)
        for recipient in to or ("user@example.org",):
            if code < 300:
                code, text = client.rcpt(recipient)
        return client.data(data) if code < 300 else (code, text)

    code, text = await client_does(gateway, talk)
    return code, text.decode()


async def nothing_queued(gateway: Running) -> None:
    assert await gateway.messages() == ()


# --- Clients ---


async def test_a_renewed_certificate_needs_no_restart(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> bytes | None:
        with smtplib.SMTP_SSL(*tls_address(gateway), timeout=PATIENCE, context=trusting(gateway)) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            return client.sock.getpeercert(binary_form=True)

    monkeypatch.setattr(renewal, "LOOK_AFTER", 0.0)
    before = await trio.to_thread.run_sync(shown)
    assert await trio.to_thread.run_sync(shown) == before
    chain, key = self_signed(datetime.now(UTC))
    certificate(gateway).write_bytes(chain)
    certificate(gateway).with_suffix(".key").write_bytes(key)
    after = await trio.to_thread.run_sync(shown)
    assert after == ssl.PEM_cert_to_DER_cert(chain.decode()) != before


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("within_tls", [False, True])
async def test_smtplib(gateway: Running, mechanism: str, within_tls: bool) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"] = USER, "user@example.org", "hidden@example.org"
    message["Subject"] = "Gr\u00fc\u00dfe"
    message["X-Mox-Extra-order-id"] = "17"
    message.set_content("hello")

    def work() -> dict[str, Any]:
        context = trusting(gateway)
        if within_tls:
            client: smtplib.SMTP = smtplib.SMTP_SSL(*tls_address(gateway), timeout=PATIENCE, context=context)
        else:
            client = smtplib.SMTP(*starttls_address(gateway), timeout=PATIENCE)
        with client:
            if not within_tls:
                client.starttls(context=context)
            client.ehlo()
            assert log_in(client, mechanism) == (235, b"2.7.0 Authentication successful")
            # Not send_message, which takes out Bcc itself.
            recipients = ["user@example.org", "hidden@example.org"]
            return client.sendmail(USER, recipients, message.as_bytes(policy=SMTP))

    assert await trio.to_thread.run_sync(work) == {}
    for recipient in ("user@example.org", "hidden@example.org"):
        delivered = await gateway.webhooks.event("delivered", Recipient=recipient)
        assert delivered["Extra"] == {"Order-Id": "17"}
        assert delivered["Subject"] == "Gr\u00fc\u00dfe"
    for incoming in await gateway.webhooks.incoming(2):
        raw = await gateway.raw(incoming["Meta"]["MsgID"])
        assert verified(raw, gateway.directory)
        header = raw.partition(b"\r\n\r\n")[0]
        assert b"hidden@example.org" not in header.partition(b"DKIM-Signature")[2]
        assert b"\r\nbcc:" not in header.lower()
        assert b"Mox-Extra" not in header
        assert re.search(rb"\r\n\tby localhost with ESMTPSA id [0-9a-f]{12};\r\n", header)
        assert re.search(rb"\r\nMessage-ID: <[\w-]+@localhost>\r\n", header)
        assert b"\r\nDate: " in header
        assert incoming["MessageID"] == delivered["MessageID"]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed, and these tests are about it; run: make system")
    return found


def curl(gateway: Running, within_tls: bool, file: Path) -> list[str]:
    host, port = tls_address(gateway) if within_tls else starttls_address(gateway)
    return [
        program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", str(certificate(gateway)),
        "--url", f"smtp{'s' if within_tls else ''}://{host}:{port}", "--user", f"{USER}:{PASSWORD}",
        "--mail-from", USER, "--mail-rcpt", "user@example.org", "--upload-file", str(file),
    ]  # fmt: skip


def swaks(gateway: Running, within_tls: bool, _file: Path) -> list[str]:
    host, port = tls_address(gateway) if within_tls else starttls_address(gateway)
    return [
        program("swaks"), "--server", host, "--port", str(port),
        "--tls-on-connect" if within_tls else "--tls", "--auth", "LOGIN",
        "--auth-user", USER, "--auth-password", PASSWORD, "--from", USER, "--to", "user@example.org",
        "--header", "Subject: hi", "--body", "hello",
    ]  # fmt: skip


def msmtp(gateway: Running, within_tls: bool, file: Path) -> list[str]:
    host, port = tls_address(gateway) if within_tls else starttls_address(gateway)
    command = [
        program("msmtp"), "--file=/dev/null", f"--host={host}", f"--port={port}", "--tls=on",
        f"--tls-starttls={'off' if within_tls else 'on'}", f"--tls-trust-file={certificate(gateway)}",
        "--auth=scram-sha-256", f"--user={USER}", f"--passwordeval=echo {PASSWORD}", f"--from={USER}",
        "user@example.org",
    ]  # fmt: skip
    return ["/bin/sh", "-c", '"$@" < "$0"', str(file), *command]


@pytest.mark.parametrize("within_tls", [False, True])
@pytest.mark.parametrize("client", [curl, swaks, msmtp])
async def test_client(
    gateway: Running,
    tmp_path: Path,
    client: Callable[[Running, bool, Path], list[str]],
    within_tls: bool,
) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(MESSAGE.replace(b"\r\n", b"\n") if client is msmtp else MESSAGE)
    done = await trio.run_process(
        client(gateway, within_tls, file), capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    delivered = await gateway.webhooks.event("delivered")
    assert (delivered["Recipient"], delivered["Subject"]) == ("user@example.org", "hi")
    [incoming] = await gateway.webhooks.incoming()
    assert incoming["Text"].strip() == "hello"


async def test_the_page_works(gateway: Running, tmp_path: Path) -> None:
    """docs/smtp.md, as it stands but for the ports."""
    page = (ROOT / "docs" / "smtp.md").read_text(encoding="utf-8")
    page = page.replace("1587", str(starttls_address(gateway)[1])).replace(
        "1465", str(tls_address(gateway)[1])
    )
    page = page.replace("localhost:", "127.0.0.1:").replace('SMTP("localhost"', 'SMTP("127.0.0.1"')
    page = page.replace("--server localhost", "--server 127.0.0.1").replace(
        "mox@127.0.0.1:", "mox@localhost:"
    )
    (tmp_path / "message.eml").write_bytes(MESSAGE.replace(b"\r\n", b"\n"))  # as an editor writes it
    commands = [
        c.replace("\\\n", "") for c in re.findall(r"^    ((?:curl|swaks) (?:.*\\\n)*.*)$", page, re.M)
    ]
    [python] = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(commands) == 2
    for command in (*(["/bin/sh", "-c", c] for c in commands), [sys.executable, "-c", python]):
        done = await trio.run_process(
            command, cwd=tmp_path, capture_stdout=True, capture_stderr=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    await gateway.webhooks.wait_for(lambda p: p.get("Event") == "delivered", 3)
    await gateway.webhooks.event("delivered", Extra={"Order": "17"})


# --- Login ---


@asynccontextmanager
async def raw_client(gateway: Running) -> AsyncIterator[RawClient]:
    """Within TLS, after EHLO, with everything at hand."""
    stream = await trio.open_tcp_stream(*tls_address(gateway))
    context = client_context(verified=True, ca_file=str(certificate(gateway)))
    client = RawClient(await TlsStream.connect(stream, context, "127.0.0.1", timeout=PATIENCE))
    with trio.fail_after(PATIENCE):
        await client.answer()
        client.hello = await client.ask(b"EHLO client.example")
        yield client
        await client.stream.aclose()


class RawClient:
    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.hello = b""

    async def answer(self) -> bytes:
        received = b""
        while not re.search(rb"(?:\A|\n)\d{3} [^\n]*\n\Z", received):
            data = await self.stream.receive_some()
            assert data, received
            received += data
        return received

    async def ask(self, line: bytes) -> bytes:
        await self.stream.send_all(line + b"\r\n")
        return await self.answer()

    async def scram(self, scram: ScramClient, mechanism: bytes) -> bytes:
        """The last answer."""
        first = await self.ask(b"AUTH %s %s" % (mechanism, base64.b64encode(scram.first())))
        if not first.startswith(b"334 "):
            return first
        final = await self.ask(base64.b64encode(scram.final(base64.b64decode(first[4:]))))
        if not final.startswith(b"334 "):
            return final
        scram.verify(base64.b64decode(final[4:]))
        return await self.ask(b"")


async def test_scram_with_channel_binding(gateway: Running) -> None:
    async with raw_client(gateway) as client:
        assert b"AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n" in client.hello
        scram = ScramClient(USER, PASSWORD, client.stream.channel_binding)
        assert await client.scram(scram, b"SCRAM-SHA-256-PLUS") == b"235 2.7.0 Authentication successful\r\n"
        assert (await client.ask(b"MAIL FROM:<mox@localhost>")).startswith(b"250")


async def test_scram_through_somebody_in_between(gateway: Running) -> None:
    async with raw_client(gateway) as client:
        elsewhere = ScramClient(USER, PASSWORD, b"x" * 32)
        assert (await client.scram(elsewhere, b"SCRAM-SHA-256-PLUS")).startswith(b"535 5.7.8")
        stripped = ScramClient(USER, PASSWORD, can_bind=True)
        assert b"somebody changed" in await client.scram(stripped, b"SCRAM-SHA-256")
        assert (await client.scram(ScramClient(USER, PASSWORD), b"SCRAM-SHA-256")).startswith(b"235")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed login is answered without delay."""
    monkeypatch.setattr(sasl, "STEP", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_unknown_and_wrong_look_alike(gateway: Running) -> None:
    wrong = b"535 5.7.8 No such login, or another password\r\n"
    users = (USER, "nobody@localhost", "nobody@example.org", "no address")
    async with raw_client(gateway) as client:
        for user in users:
            assert await client.scram(ScramClient(user, "wrong"), b"SCRAM-SHA-256") == wrong
    async with raw_client(gateway) as client:
        for user in users:
            response = base64.b64encode(b"\0%s\0wrong" % user.encode())
            assert await client.ask(b"AUTH PLAIN " + response) == wrong


async def test_challenge_to_an_unknown_user(gateway: Running) -> None:
    """Always the same, as a known user's is, also with what follows a separator."""
    challenges: dict[str, list[bytes]] = {}
    for _ in range(2):
        async with raw_client(gateway) as client:
            for user in (USER, "mox+x@localhost", "nobody@localhost", "nobody+x@localhost"):
                first = base64.b64encode(ScramClient(user, "x").first())
                challenge = await client.ask(b"AUTH SCRAM-SHA-256 " + first)
                salt_and_count = base64.b64decode(challenge[4:]).split(b",")[1:]
                assert challenges.setdefault(user, salt_and_count) == salt_and_count
                assert (await client.ask(b"*")).startswith(b"501 5.7.0")
    known, known_variant, unknown, unknown_variant = challenges.values()
    assert known == known_variant != unknown == unknown_variant
    assert [len(part) for part in known] == [len(part) for part in unknown]


@pytest.mark.usefixtures("at_once")
async def test_password_is_checked_as_long_for_an_unknown_user(gateway: Running) -> None:
    checked: list[str] = []
    authenticator = gateway.gateway.authenticator
    verify = authenticator._verify

    def counting(hashed: str, password: str) -> bool:
        checked.append(hashed.rpartition("$")[0].rpartition("$")[0])  # without salt and digest
        return verify(hashed, password)

    authenticator._verify = counting  # type: ignore[method-assign]
    async with raw_client(gateway) as client:
        for user in (b"mox@localhost", b"nobody@localhost"):
            await client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0%s\0wrong" % user))
    assert len(checked) == 2
    assert all(costs.startswith("$argon2id$") for costs in checked)


async def test_failures_of_a_network_are_limited_for_all(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasl, "STEP", 0.02)
    authenticator = gateway.gateway.authenticator
    for _ in range(FAILURES_ALLOWED - 1):
        authenticator.failed("127.0.0.1")
    async with raw_client(gateway) as client:
        started = trio.current_time()
        assert (await client.scram(ScramClient(USER, "wrong"), b"SCRAM-SHA-256")).startswith(b"535")
        assert trio.current_time() - started >= 0.02 * FAILURES_ALLOWED  # slowed
        for mechanism in (b"SCRAM-SHA-256", b"PLAIN"):
            answer = await client.ask(
                b"AUTH %s %s" % (mechanism, base64.b64encode(b"\0mox@localhost\0moxmoxmox"))
            )
            assert answer.startswith(b"454 4.7.0 too many failed logins from your network"), answer
    assert (await gateway.api.post("MessageGet", json={})).status_code == 429


async def test_malformed_plain(gateway: Running) -> None:
    responses = [
        *(b"", b"x", b"\0\0", b"\0mox@localhost\0", b"\0\0moxmoxmox", b"\0a\0b\0c", b"\0\xff\0x"),
        b"\0a\0" + b"x" * 2000,
    ]
    for some in (responses[:4], responses[4:]):
        async with raw_client(gateway) as client:
            for response in some:
                answer = await client.ask(b"AUTH PLAIN " + (base64.b64encode(response) or b"="))
                assert answer.startswith(b"501 5.5.2"), response


async def test_acting_for_another_user(gateway: Running) -> None:
    async with raw_client(gateway) as client:
        for acting_for, code in ((b"root@localhost", b"535"), (b"mox@localhost", b"235")):
            response = base64.b64encode(b"%s\0mox@localhost\0moxmoxmox" % acting_for)
            assert (await client.ask(b"AUTH PLAIN " + response)).startswith(code)


async def test_nothing_without_tls_or_login(gateway: Running) -> None:
    def clear() -> None:
        with smtplib.SMTP(*starttls_address(gateway), timeout=PATIENCE) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH PLAIN") == (
                538,
                b"5.7.11 Send STARTTLS first: there is no AUTH without TLS",
            )
            assert client.mail(USER)[0] == 530

    await trio.to_thread.run_sync(clear)
    assert (await client_does(gateway, lambda client: client.mail(USER), login=False))[0] == 530


async def test_login_without_tls_where_it_is_allowed(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["submission"]["login_without_tls"] = True

    async with running(tmp_path, webhooks, change=change) as gateway:

        def clear() -> None:
            with smtplib.SMTP(*starttls_address(gateway), timeout=PATIENCE) as client:
                client.login(USER, PASSWORD)
                client.sendmail(USER, "user@example.org", MESSAGE)

        await trio.to_thread.run_sync(clear)
        [incoming] = await webhooks.incoming()
        assert b"with ESMTPA id" in await gateway.raw(incoming["Meta"]["MsgID"])


# --- STARTTLS ---


@pytest.mark.parametrize("listener", ["smtp", "submission"])
async def test_commands_behind_starttls_are_never_carried_out(gateway: Running, listener: str) -> None:
    address = gateway.smtp if listener == "smtp" else starttls_address(gateway)
    injected = b"MAIL FROM:<mox@localhost>\r\nRCPT TO:<mox@localhost>\r\nDATA\r\nevil\r\n.\r\n"
    with trio.fail_after(PATIENCE):
        stream = await trio.open_tcp_stream(*address)
        client = RawClient(stream)
        await client.answer()
        await client.ask(b"EHLO client.example")
        await stream.send_all(b"STARTTLS\r\nEHLO client.example\r\n" + injected)
        assert (await client.answer()).startswith(b"503 5.5.1")
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert not gateway.webhooks.got


async def test_incoming_mail_within_tls(gateway: Running) -> None:
    def deliver() -> None:
        with smtplib.SMTP(*gateway.smtp, timeout=PATIENCE) as client:
            client.starttls(context=trusting(gateway))
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.has_extn("requiretls")
            client.sendmail("mox@localhost", ["mox@localhost"], MESSAGE)

    await trio.to_thread.run_sync(deliver)
    assert len(await gateway.webhooks.incoming()) == 1


async def test_our_own_client(gateway: Running) -> None:
    for policy, at_once in product(TlsPolicy, (False, True)):
        if at_once and policy is TlsPolicy.NONE:
            continue
        settings = ClientSettings("client.example", tls=policy, ca_file=str(certificate(gateway)))
        address = tls_address(gateway) if at_once else gateway.smtp
        connection = await connect_smtp(*address, replace(settings, tls_at_once=at_once))
        assert connection.failure is None, connection.failure
        assert (connection.tls is None) == (policy is TlsPolicy.NONE)
        await connection.quit()


async def test_our_own_client_and_a_certificate_it_does_not_know(gateway: Running) -> None:
    settings = ClientSettings("client.example", tls=TlsPolicy.VERIFIED)
    connection = await connect_smtp(*gateway.smtp, settings)
    assert connection.failure is not None
    assert (connection.failure.stage, connection.failure.permanent) == ("starttls", False)
    assert connection.failure.text == "no TLS: the certificate is self-signed"


# --- Whose mail, and what is in it ---


async def test_sender_of_another(gateway: Running) -> None:
    for sender in ("other@localhost", "mox@example.org", "root@localhost", ""):
        code, text = await submit(gateway, sender=sender)
        assert (code, text[:5]) == (550, "5.7.1"), sender
    await nothing_queued(gateway)


FROM_OF_ANOTHER = [
    (b"From: other@localhost\r\n", "5.7.1 From: other@localhost is not an address of your account"),
    (b"From: mox@example.org\r\n", "5.7.1 From: mox@example.org is not an address of your account"),
    (b"From: mox@localhost, a@x\r\n", "5.7.1 From must have exactly one address"),
    (b"From: mox@localhost\r\nFrom: a@x\r\n", "5.7.1 there must be one From header field"),
    (b"Subject: x\r\n", "5.7.1 there must be one From header field, and there are 0"),
    (b"", "5.7.1 there must be one From header field, and there are 0"),
]


async def test_from_of_another(gateway: Running) -> None:
    for header, answer in FROM_OF_ANOTHER:
        code, text = await submit(gateway, header + b"\r\nhello\r\n")
        assert code == 550, header
        assert text.startswith(answer)
    await nothing_queued(gateway)


async def test_faulty_headers(gateway: Running) -> None:
    for field in (b"X-Mox-Extra-a: 1\r\nX-Mox-Extra-A: 2\r\n", b"no field\r\n"):
        code, text = await submit(gateway, b"From: mox@localhost\r\n" + field + b"\r\nx\r\n")
        assert (code, text[:5]) == (554, "5.6.0")
    await nothing_queued(gateway)


async def test_any_address_of_the_account_and_a_recipient_twice(gateway: Running) -> None:
    data = MESSAGE.replace(b"mox@localhost", b"mox+news@localhost")
    code, text = await submit(
        gateway, data, "a@example.org", "b@example.org", "a@example.org", sender="mox@localhost"
    )
    assert code == 250, text
    items = sorted(await gateway.messages(), key=lambda item: item.message.id)
    assert [str(item.message.recipient) for item in items] == ["a@example.org", "b@example.org"]
    [incoming, _] = await gateway.webhooks.incoming(2)
    assert incoming["From"][0]["Address"] == "mox+news@localhost"


REQUIRE_TLS: list[tuple[bytes, tuple[str, ...], bool | None]] = [
    (b"", (), None),
    (b"TLS-Required: No\r\n", (), False),
    (b"", ("REQUIRETLS",), True),
    (b"TLS-Required: No\r\n", ("REQUIRETLS",), True),
]


async def test_require_tls(gateway: Running) -> None:
    for header, options, required in REQUIRE_TLS:
        code, text = await submit(gateway, header + MESSAGE, options=options)
        assert code == 250
        item, _ = await gateway.message(int(text.rpartition(" ")[2]))
        assert item.message.require_tls is required


async def test_future_release(gateway: Running) -> None:
    now = gateway.gateway.clock.now()
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    at = now + timedelta(days=2)
    assert (await submit(gateway, options=("HOLDFOR=7200",)))[0] == 250
    assert (await submit(gateway, options=(f"HOLDUNTIL={at:{stamp}}",)))[0] == 250
    items = sorted(await gateway.messages(), key=lambda item: item.message.id)
    assert abs((items[0].message.next_attempt - now - timedelta(hours=2)).total_seconds()) < 5
    assert items[1].message.next_attempt == at.replace(microsecond=0)
    assert [item.future_release for item in items] == ["for;7200", f"until;{at:{stamp}}"]
    refused = [
        (f"HOLDUNTIL={now - timedelta(seconds=1):{stamp}}", 554),
        (f"HOLDUNTIL={now + timedelta(days=61):{stamp}}", 554),
        ("HOLDUNTIL=9999-12-31T23:59:59-23:59", 554),
        ("HOLDUNTIL=0001-01-01T00:00:00+23:59", 554),
        ("HOLDFOR=5184001", 554),
        ("HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z", 501),
    ]
    for options, code in refused:
        answer = await submit(gateway, options=(options,))
        assert (answer[0], answer[1][:5]) == (code, "5.5.4"), options
    hello = await client_does(gateway, lambda client: client.esmtp_features["futurerelease"])
    seconds, latest = hello.split()
    assert seconds == "5184000"
    parsed = datetime.strptime(latest, stamp).replace(tzinfo=UTC)
    assert abs((parsed - now - timedelta(days=60)).total_seconds()) < 60


async def test_dsn_parameters_are_kept(gateway: Running) -> None:
    def talk(client: smtplib.SMTP) -> int:
        client.mail(USER, ["RET=HDRS", "ENVID=a+2Bb", "HOLDFOR=60"])
        client.rcpt("a@example.org", ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;x+2By@z"])
        client.rcpt("b@example.org")
        return client.data(MESSAGE)[0]

    assert await client_does(gateway, talk) == 250
    items = sorted(await gateway.messages(), key=lambda item: item.message.id)
    kept = [(item.message.env_id, item.dsn_ret, item.dsn_notify, item.dsn_orcpt) for item in items]
    assert kept == [("a+b", "HDRS", "SUCCESS,DELAY", "rfc822;x+y@z"), ("a+b", "HDRS", "", "")]


async def test_limits_of_the_account(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["max_messages_per_day"] = 2

    async with running(tmp_path, webhooks, change=change) as gateway:
        code, text = await submit(gateway, MESSAGE, "a@x.example", "b@x.example", "c@x.example")
        assert (code, text[:5]) == (451, "4.7.1")
        await nothing_queued(gateway)  # all recipients or none
        assert (await submit(gateway, MESSAGE, "a@x.example", "b@x.example"))[0] == 250


async def test_a_plugin_refuses_or_fails(tmp_path: Path, webhooks: Receiver) -> None:
    class Screen:
        @hookimpl
        def submission(self, submission: Any) -> Any:
            if "spam" in submission.subject:
                return Reject(550, "5.7.7", "not from here")
            if "bug" in submission.subject:
                raise RuntimeError("oops")
            return None

    async with running(
        tmp_path, webhooks, change=with_plugins("screen"), plugins={"screen": Screen()}
    ) as gateway:
        for subject, answer in (
            (b"spam", (550, "5.7.7 not from here")),
            (b"bug", (451, "4.3.0 Local error; try again later")),
        ):
            assert await submit(gateway, MESSAGE.replace(b"hi", subject)) == answer
        await nothing_queued(gateway)
        assert (await submit(gateway))[0] == 250


async def test_large_and_too_large(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["queue"] = {"max_message_size": 3_000_000}

    async with running(tmp_path, webhooks, change=change) as gateway:
        body = b"x" * 76 + b"\r\n"
        assert (await submit(gateway, MESSAGE + body * 30_000))[0] == 250
        delivered = await webhooks.event("delivered")
        [incoming] = await webhooks.incoming()
        raw = await gateway.raw(incoming["Meta"]["MsgID"])
        assert raw.endswith(b"hello\r\n" + body * 30_000)
        assert delivered["MessageID"] == incoming["MessageID"]
        code, text = await submit(gateway, MESSAGE + body * 50_000)
        assert (code, text[:5]) == (552, "5.3.4")


async def test_odd_messages(gateway: Running) -> None:
    """No body, no empty line, nothing but a header; eight bits; and what a name of the client may be."""
    header = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    for data in (header, header + b"\r\n", header + b"\r\n\xff\xfe\r\n", header + b"\r\n.\r\n..\r\n"):
        assert (await submit(gateway, data))[0] == 250
    await gateway.webhooks.incoming(4)
    ids = [payload["Meta"]["MsgID"] for payload in await gateway.webhooks.incoming(4)]
    bodies = sorted([(await gateway.raw(i)).partition(b"\r\n\r\n")[2] for i in ids])
    assert bodies == [b"", b"", b".\r\n..\r\n", b"\xff\xfe\r\n"]


async def test_smtputf8(gateway: Running) -> None:
    data = "From: mox@localhost\r\nSubject: \u00fc\r\n\r\nhello\r\n".encode()
    code, text = await submit(gateway, data, "user@example.org", options=("SMTPUTF8",))
    assert code == 250, text
    [item] = await gateway.messages()
    assert item.message.smtputf8
    assert (await submit(gateway, MESSAGE, options=("SMTPUTF8",)))[0] == 250
    plain = [item for item in await gateway.messages() if not item.message.smtputf8]
    assert len(plain) == 1  # it was announced, and is not needed
