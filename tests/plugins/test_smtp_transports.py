"""The transports to one host against real servers: TLS, logins, several transactions, kept connections."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import DsnRequest
from gateway.errors import ConfigError
from gateway.net.smtp_client_settings import ClientSettings
from gateway.net.tls import TlsError, TlsStream
from gateway.outbound.transports import make_transports, read_transports
from gateway.smtp.replies import Reply
from gateway_smtp.fail import Fail
from gateway_smtp.smtp import Smtp
from tests.net.authority import root
from tests.networks import a_network
from tests.plugins.mx_hosts import (
    BREAKS,
    breaks_in_tls,
    issued,
    says_in_tls,
    server_tls,
    smtp,
    wanting_a_certificate,
)
from tests.plugins.smtp_servers import (
    CONTENT,
    PASSWORD,
    USER,
    OneLogin,
    Server,
    Tls,
    delivery,
    make_tls,
    results,
    scripted,
    serving,
    transport,
)
from tests.running import PATIENCE

DELIVERED = [("delivered", 250)]
AUTH = {"username": USER, "password": PASSWORD}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_tls(tmp_path_factory.mktemp("tls"), "good")


# --- TLS ---


@pytest.mark.parametrize("kind", ["smtp", "submission", "submissions"])
async def test_tls_is_used_and_verified(tmp_path: Path, tls: Tls, kind: str) -> None:
    at_once = kind == "submissions"
    async with (
        serving(tls=tls.context, tls_at_once=at_once) as server,
        transport(tmp_path, type=kind, host="localhost", port=server.port, ca_file=tls.ca_file) as relay,
    ):
        [outcome] = await relay.deliver(delivery(require_tls=True))
        assert (outcome.result.value, outcome.code, outcome.tls) == ("delivered", 250, "TLSv1.3, verified")
        assert (outcome.remote_mta, outcome.remote_ip) == ("localhost", "127.0.0.1")
        assert outcome.transcript == ""
        [(envelope, data)] = server.transactions
        assert data == CONTENT
        assert envelope.require_tls
        [session] = server.sessions.values()
        assert session.tls == "TLSv1.3"


@pytest.mark.parametrize("kind", ["smtp", "submission", "submissions"])
async def test_requiretls_not_offered(tmp_path: Path, kind: str) -> None:
    """Failed for good, before anything is said of the message; others go on, over the same connection."""
    certificate = issued("good", "localhost")
    (tmp_path / "ca.pem").write_bytes(root().pem)

    async def serve(stream: trio.SocketStream) -> None:
        if kind == "submissions":
            await smtp(await TlsStream.accept(stream, server_tls(certificate), timeout=5))
        else:
            await smtp(stream, tls=certificate)

    async with (
        scripted(serve) as port,
        transport(tmp_path, type=kind, host="localhost", port=port, ca_file="ca.pem") as relay,
    ):
        for _ in range(2):
            outcomes = await relay.deliver(delivery("b@example.net", "c@example.net", require_tls=True))
            assert len(outcomes) == 2
            for outcome in outcomes:
                assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 0, "5.7.30")
                assert outcome.error == (
                    "transport 'relay': the message requires TLS on all of its way, and the server does not"
                    " offer REQUIRETLS; send it without RequireTLS, or another way than by [transports.relay]"
                )
                assert (outcome.tls, outcome.remote_mta) == ("TLSv1.3, verified", "localhost")
                assert not outcome.about_recipient
                assert "MAIL" not in outcome.transcript
            assert results(await relay.deliver(delivery())) == DELIVERED


async def refused(tmp_path: Path, server: Server, **settings: Any) -> str:
    """The error of a temporary outcome that says nothing about the recipient."""
    async with transport(tmp_path, **({"host": "localhost", "port": server.port} | settings)) as relay:
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code, outcome.tls) == ("temporary", 0, "")
    assert server.transactions == []
    assert outcome.transcript
    return outcome.error


@pytest.mark.parametrize("kind", ["smtp", "submission", "submissions"])
async def test_certificates_that_will_not_do(tmp_path: Path, tls: Tls, kind: str) -> None:
    at_once = kind == "submissions"
    expired = make_tls(tmp_path, "expired", datetime(2001, 1, 1, tzinfo=UTC))
    async with serving(tls=tls.context, tls_at_once=at_once) as server:
        assert await refused(tmp_path, server, type=kind) == REPAIR.format(
            "no TLS: the certificate is self-signed"
        )
        wrong_name = {"host": "127.0.0.2", "ca_file": tls.ca_file}
    async with serving(tls=expired.context, tls_at_once=at_once) as server:
        error = await refused(tmp_path, server, type=kind, ca_file=expired.ca_file)
        assert error == REPAIR.format("no TLS: the certificate has expired")
        unverified = {"type": kind, "host": "localhost", "port": server.port, "tls_verify": False}
        async with transport(tmp_path, **unverified) as relay:
            [outcome] = await relay.deliver(delivery())
            assert (outcome.result.value, outcome.tls) == ("delivered", "TLSv1.3, not verified")
            [outcome] = await relay.deliver(delivery(require_tls=True))
            assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 554, "5.7.30")
    async with everywhere(tls, at_once) as server:
        error = await refused(tmp_path, server, type=kind, **wrong_name)
        assert error == REPAIR.format("the certificate is not for 127.0.0.2")


def everywhere(tls: Tls, at_once: bool) -> Any:
    """A server on all of this machine's addresses."""
    return serving(tls=tls.context, tls_at_once=at_once, host="0.0.0.0")


async def test_starttls_not_offered(tmp_path: Path) -> None:
    async with serving() as server:
        for kind in ("smtp", "submission"):
            error = await refused(tmp_path, server, type=kind, auth=AUTH)
            assert error == "TLS is required, and the server does not offer STARTTLS"


@pytest.mark.parametrize("kind", ["smtp", "submission"])
async def test_the_port_is_for_tls_at_once(
    tmp_path: Path, tls: Tls, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway_smtp.settings.SILENCE", 0.1)
    async with serving(tls=tls.context, tls_at_once=True) as server:
        settings = {"type": kind, "host": "127.0.0.1", "port": server.port}
        with trio.fail_after(PATIENCE):
            async with transport(tmp_path, **settings) as relay:
                [outcome] = await relay.deliver(delivery())
    assert results([outcome]) == [("temporary", 0)]
    assert outcome.enhanced == "4.4.1"
    assert outcome.error == (
        "transport 'relay': no greeting: the server expects TLS from the first byte; choose type ="
        ' "submissions", or the port for STARTTLS (587 or 25), in [transports.relay]'
    )


async def test_a_slow_greeting_is_waited_for(
    tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look whether the server waits for TLS finds nothing, and does no harm."""
    monkeypatch.setattr("gateway_smtp.settings.SILENCE", 0.05)
    looked = trio.Event()

    async def slow(stream: trio.SocketStream) -> None:
        await looked.wait()
        await smtp(stream)

    async def refuses_tls(stream: trio.SocketStream) -> None:
        assert (await stream.receive_some()).startswith(b"\x16")  # a TLS record: a handshake
        await stream.send_all(b"220 mx\r\n")
        await stream.receive_some()
        looked.set()

    async with scripted(slow, refuses_tls) as port:
        settings = {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none"}
        async with transport(tmp_path, **settings) as relay:
            [outcome] = await relay.deliver(delivery())
    assert results([outcome]) == [("delivered", 250)]


@pytest.mark.parametrize("behind", [b"250 mx\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", b"2"])
async def test_injection_behind_starttls(tmp_path: Path, behind: bytes) -> None:
    async def inject(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mx\r\n")
        await stream.receive_some()
        await stream.send_all(b"250-mx\r\n250 STARTTLS\r\n")
        assert await stream.receive_some() == b"STARTTLS\r\n"
        await stream.send_all(b"220 go\r\n" + behind)
        assert await stream.receive_some() == b""

    async with scripted(inject) as port:
        auth = AUTH | {"plain": True}
        async with transport(tmp_path, type="submission", host="127.0.0.1", port=port, auth=auth) as relay:
            [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert outcome.error == "the server sent more behind its reply to STARTTLS"


async def test_opportunistic(tmp_path: Path, tls: Tls) -> None:
    settings = {"type": "smtp", "host": "localhost", "tls": "opportunistic"}
    async with serving() as server, transport(tmp_path, **settings, port=server.port) as relay:
        [outcome] = await relay.deliver(delivery())
        assert (outcome.result.value, outcome.tls) == ("delivered", "")
    async with serving(tls=tls.context) as server, transport(tmp_path, **settings, port=server.port) as relay:
        [outcome] = await relay.deliver(delivery())
        assert (outcome.result.value, outcome.tls) == ("delivered", "TLSv1.3, not verified")
        [outcome] = await relay.deliver(delivery(require_tls=True))
        assert (outcome.result.value, outcome.enhanced) == ("permanent", "5.7.30")

    async def no_handshake(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mx\r\n")
        await stream.receive_some()
        await stream.send_all(b"250-mx\r\n250 STARTTLS\r\n")
        await stream.receive_some()
        await stream.send_all(b"220 go\r\n")
        await stream.receive_some()
        await stream.send_all(b"no TLS here\r\n")

    async with scripted(no_handshake, plain) as port, transport(tmp_path, **settings, port=port) as relay:
        [outcome] = await relay.deliver(delivery())
        assert (outcome.result.value, outcome.tls) == ("delivered", "")


@pytest.mark.parametrize("how", BREAKS)
async def test_tls_that_breaks_before_a_word(tmp_path: Path, how: str) -> None:
    """As where the handshake fails: plain text if that will do, else it waits. So it is within TLS."""
    certificate = issued("good", "localhost")
    (tmp_path / "ca.pem").write_bytes(root().pem)
    breaks = breaks_in_tls(how, certificate)
    settings = {"type": "smtp", "host": "localhost"}
    async with (
        scripted(breaks, plain) as port,
        transport(tmp_path, **settings, port=port, tls="opportunistic") as relay,
    ):
        [outcome] = await relay.deliver(delivery())
        assert (outcome.result.value, outcome.tls) == ("delivered", "")
    async with (
        scripted(breaks) as port,
        transport(tmp_path, **settings, port=port, ca_file="ca.pem") as relay,
    ):
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.5")
    assert outcome.tls == ""
    assert outcome.error.startswith("transport 'relay': no TLS: right after the handshake: connection ")
    assert outcome.error.endswith("; see host, port, tls, ca_file and tls_verify of [transports.relay]")


async def test_a_server_within_tls_that_wants_our_certificate(tmp_path: Path) -> None:
    certificate = issued("good", "localhost")
    (tmp_path / "ca.pem").write_bytes(root().pem)
    context = wanting_a_certificate(certificate)

    async def serve(stream: trio.SocketStream) -> None:
        with pytest.raises(TlsError):
            await TlsStream.accept(stream, context, timeout=5)

    settings = {"type": "submissions", "host": "localhost", "ca_file": "ca.pem"}
    async with scripted(serve) as port, transport(tmp_path, **settings, port=port) as relay:
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.7.5")
    assert "certificate required; see host, port, tls, ca_file and tls_verify of" in outcome.error


async def test_a_server_within_tls_that_closes_in_place_of_a_greeting(tmp_path: Path) -> None:
    """TLS works; whoever is to speak within it is away."""
    certificate = issued("good", "localhost")
    (tmp_path / "ca.pem").write_bytes(root().pem)

    async def serve(stream: trio.SocketStream) -> None:
        await (await TlsStream.accept(stream, server_tls(certificate), timeout=5)).aclose()

    settings = {"type": "submissions", "host": "localhost", "ca_file": "ca.pem"}
    async with scripted(serve) as port, transport(tmp_path, **settings, port=port) as relay:
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, "4.4.1")
    assert outcome.error == "connection closed by the server"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (b"421 4.3.2 busy\r\n", 421, "remote answered 421 4.3.2 busy"),
        (b"", 0, "no reply within 0.5 seconds"),
    ],
)
async def test_no_plain_text_where_tls_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes, code: int, error: str
) -> None:
    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: 0.5)
    settings = {"type": "smtp", "host": "127.0.0.1", "tls": "opportunistic"}
    serve = says_in_tls(words, issued("good", "localhost"), then_waits=not words)
    async with scripted(serve, plain) as port, transport(tmp_path, **settings, port=port) as relay:
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code) == ("temporary", code)
    assert outcome.error == error


async def plain(stream: trio.SocketStream, *, messages: int = 1, capabilities: bytes = b"250 mx\r\n") -> None:
    """A server that takes so many messages, and then closes the connection without a word."""
    await stream.send_all(b"220 mx\r\n")
    buffer, data = b"", False
    while messages:
        while b"\n" not in buffer:
            received = await stream.receive_some()
            if not received:
                return
            buffer += received
        line, _, buffer = buffer.partition(b"\n")
        if data:
            if line == b".\r":
                data, messages = False, messages - 1
                await stream.send_all(b"250 ok\r\n")
        elif line.startswith(b"EHLO"):
            await stream.send_all(capabilities)
        else:
            data = line == b"DATA\r"
            await stream.send_all(b"354 go\r\n" if data else b"250 ok\r\n")


# --- Logins ---


@pytest.mark.parametrize(
    ("offered", "more", "used"),
    [
        (("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"), {}, "SCRAM-SHA-256-PLUS"),
        (("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"), {}, "SCRAM-SHA-1-PLUS"),
        (("PLAIN", "SCRAM-SHA-256"), {"plain": True}, "SCRAM-SHA-256"),
        (("PLAIN", "LOGIN"), {"plain": True}, "PLAIN"),
    ],
)
async def test_logins(
    tmp_path: Path, tls: Tls, offered: tuple[str, ...], more: dict[str, Any], used: str
) -> None:
    logins = OneLogin(*offered)
    settings = {"type": "submission", "host": "localhost", "ca_file": tls.ca_file, "auth": AUTH | more}
    async with (
        serving(logins=logins, tls=tls.context) as server,
        transport(tmp_path, **settings, port=server.port) as relay,
    ):
        assert results(await relay.deliver(delivery())) == DELIVERED
        assert results(await relay.deliver(delivery())) == DELIVERED
    assert logins.used == [used]  # one connection, one login


@pytest.mark.parametrize(
    ("logins", "auth", "error"),
    [
        (
            OneLogin("SCRAM-SHA-256"),
            {"password": "wrong"},
            "with SCRAM-SHA-256 failed: remote answered 535 5.7.8",
        ),
        (
            OneLogin("PLAIN"),
            {"password": "wrong", "plain": True},
            "with PLAIN failed: remote answered 535 5.7.8",
        ),
        (
            OneLogin("PLAIN", refuse=Reply(454, "4.7.0", (f"Later, {PASSWORD}",))),
            {"plain": True},
            "with PLAIN failed: remote answered 454 4.7.0 Later, (hidden)",
        ),
        (OneLogin("PLAIN", "LOGIN"), {}, "failed: the server offers PLAIN, LOGIN, and PLAIN is not allowed"),
        (None, {}, "the server does not offer AUTH"),
    ],
)
async def test_logins_that_fail(
    tmp_path: Path,
    tls: Tls,
    logins: OneLogin | None,
    auth: dict[str, Any],
    error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {"type": "submissions", "host": "localhost", "ca_file": tls.ca_file, "auth": AUTH | auth}
    async with (
        serving(logins=logins, tls=tls.context, tls_at_once=True) as server,
        transport(tmp_path, **settings, port=server.port) as relay,
    ):
        outcomes = await relay.deliver(delivery("b@x.example", "c@x.example"))
        assert results(outcomes) == [("temporary", 0)] * 2
        assert error in outcomes[0].error
        assert outcomes[0].error.startswith("transport 'relay': ")
        assert outcomes[0].error.endswith("; repair auth of [transports.relay]")
        shown = repr(outcomes) + caplog.text + repr(relay._settings)
    assert server.transactions == []
    assert PASSWORD not in shown
    assert "wrong" not in shown.replace("Wrong", "")


async def test_a_server_that_stalls_in_the_login(
    tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: 0.2)
    logins = OneLogin("SCRAM-SHA-256", stall=True)
    settings = {"type": "submission", "host": "localhost", "ca_file": tls.ca_file, "auth": AUTH}
    async with (
        serving(logins=logins, tls=tls.context) as server,
        transport(tmp_path, **settings, port=server.port) as relay,
    ):
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert "no reply within 0.2 seconds" in outcome.error
    assert PASSWORD not in repr(outcome)


async def test_a_login_without_tls_only_if_allowed(tmp_path: Path) -> None:
    settings = {"type": "smtp", "host": "127.0.0.1", "tls": "none"}
    logins = OneLogin("SCRAM-SHA-256")
    async with serving(logins=logins, login_without_tls=True) as server:
        auth = AUTH | {"without_tls": True}
        async with transport(tmp_path, **settings, port=server.port, auth=auth) as relay:
            assert results(await relay.deliver(delivery())) == DELIVERED
    with pytest.raises(ConfigError, match="without_tls = true"):
        async with transport(tmp_path, **settings, auth=AUTH):
            pass


async def test_a_server_that_wants_a_login_which_nobody_configured(tmp_path: Path) -> None:
    """The messages wait until somebody does."""

    def refuse(step: str, localpart: str) -> Reply | None:
        return Reply(530, "5.7.0", ("Authentication required",)) if step == "mail" else None

    settings = {"type": "smtp", "host": "127.0.0.1", "tls": "none"}
    async with (
        serving(Server(refuse)) as server,
        transport(tmp_path, **settings, port=server.port) as relay,
    ):
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code) == ("temporary", 530)
    assert outcome.error == (
        "transport 'relay': remote answered 530 5.7.0 Authentication required;"
        " see auth and tls of [transports.relay]"
    )


# --- Settings ---


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"auth": {"username": "x"}}, "auth: give either password or password_file"),
        ({"auth": AUTH | {"password_file": "p"}}, "auth: give either password or password_file"),
        ({"auth": {"username": "x", "password_file": "gone"}}, "gone: cannot be read"),
        ({"auth": {"username": "x", "password_file": "empty"}}, "its first line is to be the password"),
        ({"auth": {"username": "x", "password": 48151623}}, "auth.password: is to be text in quotes"),
        ({"auth": {"username": "x", "password": "48151623\0"}}, "the password is empty, or has a NUL"),
        ({"auth": AUTH, "tls": "opportunistic"}, "the login may be sent without TLS"),
        ({"ca_file": "gone"}, "gone: cannot be read as a PEM file"),
        ({"ca_file": "empty"}, "empty: cannot be read as a PEM file"),
        ({"ca_file": "empty", "tls_verify": False}, "ca_file: certificates are not verified"),
        ({"tls": "maybe"}, "tls: "),
        ({"port": 0}, "port: "),
        ({"port": True}, "port: Input should be a valid integer (it is True)"),
        ({"port": "25"}, "port: Input should be a valid integer (it is '25')"),
        ({"port": 25.0}, "port: Input should be a valid integer (it is 25.0)"),
        ({"tls_verify": "off"}, "tls_verify: Input should be a valid boolean (it is 'off')"),
        ({"tls_verify": 0}, "tls_verify: Input should be a valid boolean (it is 0)"),
        ({"connect_timeout": True}, "connect_timeout: Input should be a valid number (it is True)"),
        ({"connect_timeout": "5"}, "connect_timeout: Input should be a valid number (it is '5')"),
        ({"keep": {"messages": True}}, "keep.messages: Input should be a valid integer (it is True)"),
        ({"keep": {"idle": "1"}}, "keep.idle: Input should be a valid number (it is '1')"),
        ({"auth": AUTH | {"plain": "yes"}}, "auth.plain: Input should be a valid boolean (it is 'yes')"),
        ({"ca_file": False}, "ca_file: Input is not a valid path"),
        ({"host": "mail.example.org:587"}, "host: 'mail.example.org:587' is no host name or IP address"),
        ({"host": "[192.0.2.1]"}, "is no host name or IP address"),
        ({"host": "smtp://mail.example.org"}, "is no host name or IP address"),
        ({"host": ""}, "host: '' is no host name"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: dict[str, Any], error: str) -> None:
    (tmp_path / "empty").write_text("\n48151623")
    with pytest.raises(ConfigError) as raised:
        read_transports({"x": {"type": "smtp", "host": "x"} | settings}, Smtp().transports(), tmp_path)
    assert error in str(raised.value)
    assert "48151623" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    "host",
    [
        "relay",
        "mail_relay",
        "mail.example.org.",
        "bücher.example",
        "192.0.2.1",
        "2001:db8::1",
        "fe80::1%eth0",
    ],
)
def test_a_host_is_a_name_or_an_address(tmp_path: Path, host: str) -> None:
    [one] = read_transports({"x": {"type": "smtp", "host": host}}, Smtp().transports(), tmp_path)
    assert one.settings.host == host  # type: ignore[attr-defined]


async def test_a_password_in_a_file(tmp_path: Path, tls: Tls) -> None:
    (tmp_path / "relay.password").write_text(f"{PASSWORD}\n")
    auth = {"username": USER, "password_file": "relay.password"}
    async with serving(logins=OneLogin("SCRAM-SHA-256"), tls=tls.context) as server:
        settings = {"type": "submission", "host": "localhost", "ca_file": tls.ca_file, "auth": auth}
        async with transport(tmp_path, **settings, port=server.port) as relay:
            assert results(await relay.deliver(delivery())) == DELIVERED


class Names(trio.abc.HostnameResolver):
    """The system's, which has none."""

    def __init__(self, code: int, text: str) -> None:
        self.error = socket.gaierror(code, text)

    async def getaddrinfo(self, *args: object, **options: object) -> Any:
        raise self.error

    async def getnameinfo(self, *args: object, **options: object) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("code", "text", "enhanced"),
    [
        (socket.EAI_NONAME, "Name or service not known", "4.4.4"),
        (socket.EAI_AGAIN, "Temporary failure in name resolution", "4.4.3"),
    ],
)
async def test_a_host_that_cannot_be_looked_up(tmp_path: Path, code: int, text: str, enhanced: str) -> None:
    trio.socket.set_custom_hostname_resolver(Names(code, text))
    settings = PLAINTEXT | {"host": "smarthost.corp.example"}
    async with transport(tmp_path, **settings) as relay:
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 0, enhanced)
    assert outcome.error == f"can't look up smarthost.corp.example: {text}"


# --- Recipients and transactions ---

PLAINTEXT = {"type": "smtp", "host": "127.0.0.1", "tls": "none"}
REPAIR = "transport 'relay': {}; see host, port, tls, ca_file and tls_verify of [transports.relay]"


async def test_crowded_out_recipients_are_asked_for_again(tmp_path: Path) -> None:
    taken = 0

    def two_at_a_time(step: str, localpart: str) -> Reply | None:
        nonlocal taken
        if localpart == "gone":
            return Reply(550, "5.1.1", ("No such user",))
        if step == "rcpt":
            taken += 1
            return Reply(552 if taken % 2 else 452, None, ("Too many",)) if taken > 2 else None
        if step == "dot":
            taken = 0
        return None

    async with (
        serving(Server(two_at_a_time)) as server,
        transport(tmp_path, **PLAINTEXT, port=server.port) as relay,
    ):
        people = [f"r{number}@example.net" for number in range(5)]
        outcomes = await relay.deliver(delivery(*people[:3], "gone@example.net", *people[3:]))
    assert results(outcomes) == [*DELIVERED * 3, ("permanent", 550), *DELIVERED * 2]
    assert server.recipients == [["r0", "r1"], ["r2", "r3"], ["r4"]]
    assert len(server.sessions) == 1


async def test_who_comes_first_and_is_refused_keeps_nobody_waiting(tmp_path: Path) -> None:
    refused = {"greylisted": Reply(451, "4.7.1", ("Later",)), "gone": Reply(550, "5.1.1", ("No such user",))}
    first: str | None = None

    def one_at_a_time(step: str, localpart: str) -> Reply | None:
        nonlocal first
        if step == "rcpt":
            if first is not None:
                return Reply(452, "4.5.3", ("One at a time",))
            first = localpart
            return None
        if step == "dot":
            answer, first = refused.get(first or ""), None
            return answer
        return None

    async with (
        serving(Server(one_at_a_time)) as server,
        transport(tmp_path, **PLAINTEXT, port=server.port) as relay,
    ):
        people = ("greylisted@x.example", "a@x.example", "gone@x.example", "b@x.example")
        outcomes = await relay.deliver(delivery(*people))
    assert results(outcomes) == [("temporary", 451), *DELIVERED, ("permanent", 550), *DELIVERED]
    assert len(server.sessions) == 1


async def test_a_refusal_that_is_not_for_the_others_sake(tmp_path: Path) -> None:
    def full(step: str, localpart: str) -> Reply | None:
        return Reply(452, "4.2.2", ("Mailbox full",)) if localpart == "full" else None

    async with serving(Server(full)) as server, transport(tmp_path, **PLAINTEXT, port=server.port) as relay:
        outcomes = await relay.deliver(delivery("full@x.example", "b@x.example"))
        assert results(outcomes) == [("temporary", 452), ("delivered", 250)]
        outcomes = await relay.deliver(delivery("b@x.example", "full@x.example"))
        assert results(outcomes) == [("delivered", 250), ("temporary", 452)]
        assert "< 452 4.2.2 Mailbox full" in outcomes[1].transcript
        outcomes = await relay.deliver(delivery("full@x.example"))
        assert results(outcomes) == [("temporary", 452)]
    assert server.recipients == [["b"], ["b"]]


@pytest.mark.parametrize(
    "refusal",
    [
        Reply(550, "5.1.1", ("No such user",)),
        Reply(451, "4.7.1", ("Later",)),
        Reply(552, "5.2.2", ("Mailbox full",)),
    ],
)
async def test_too_many_behind_one_that_was_refused(tmp_path: Path, refusal: Reply) -> None:
    """A server may count those that it refuses; the second one was never asked for alone."""
    asked = 0

    def one_at_a_time(step: str, localpart: str) -> Reply | None:
        nonlocal asked
        if step == "mail":
            asked = 0
        if step != "rcpt":
            return None
        asked += 1
        if asked > 1:
            return Reply(552, None, ("Too many recipients",))
        return refusal if localpart == "no" else None

    async with (
        serving(Server(one_at_a_time)) as server,
        transport(tmp_path, **PLAINTEXT, port=server.port) as relay,
    ):
        people = ("no@x.example", "second@x.example", "third@x.example")
        outcomes = await relay.deliver(delivery(*people))
    kind = "permanent" if refusal.permanent else "temporary"
    assert results(outcomes) == [(kind, refusal.code), *DELIVERED * 2]
    assert server.recipients == [["second"], ["third"]]
    assert len(server.sessions) == 1


@pytest.mark.parametrize(
    ("answers", "transactions"),
    [
        (["550 5.1.1", "452 4.5.3", "552 5.5.3", "452 4.5.3"], 4),  # one less each time
        (["550 5.1.1", "452 4.3.1", "452 4.3.1", "452 4.3.1"], 2),
        (["452 4.3.1", "452 4.3.1", "452 4.3.1", "452 4.3.1"], 1),
        (["552 5.2.2", "552 5.2.2", "552 5.2.2", "552 5.2.2"], 1),
    ],
)
async def test_asking_again_comes_to_an_end(tmp_path: Path, answers: list[str], transactions: int) -> None:
    """Each transaction takes one away at least, and all of them where the server says the same to each."""
    begun = 0

    def decide(step: str, localpart: str) -> Reply | None:
        nonlocal begun
        begun += step == "mail"
        if step != "rcpt":
            return None
        code, enhanced = answers[int(localpart)].split()
        return Reply(int(code), enhanced, ("No",))

    async with serving(Server(decide)) as server, transport(tmp_path, **PLAINTEXT, port=server.port) as relay:
        with trio.fail_after(PATIENCE):
            outcomes = await relay.deliver(delivery(*(f"{number}@x.example" for number in range(4))))
    assert [f"{one.code} {one.enhanced}" for one in outcomes] == answers
    assert [one.result.value == "permanent" for one in outcomes] == [a.startswith("5") for a in answers]
    assert begun == transactions


async def test_552_is_for_now_unless_it_is_the_answer_to_one_alone(tmp_path: Path) -> None:
    end = Reply(421, "4.3.2", ("Going down",))

    def decide(step: str, localpart: str) -> Reply | None:
        if localpart == "second":
            return Reply(552, None, ("Too many",))
        return end if step == "dot" else None

    async with serving(Server(decide)) as server, transport(tmp_path, **PLAINTEXT, port=server.port) as relay:
        both = delivery("first@x.example", "second@x.example")
        assert results(await relay.deliver(both)) == [("temporary", 421), ("temporary", 552)]
        end = Reply(554, "5.6.0", ("Bad",))
        assert results(await relay.deliver(both)) == [("permanent", 554), ("permanent", 552)]


@pytest.mark.parametrize(
    ("limits", "transactions", "connections"),
    [
        ("RCPTMAX=2", [["a", "b"], ["c", "d"], ["e"]], 1),
        ("RCPTDOMAINMAX=1", [["a", "c", "e"], ["b", "d"]], 1),
        ("RCPTMAX=2 RCPTDOMAINMAX=1", [["a", "c"], ["b", "d"], ["e"]], 1),
        ("RCPTMAX=2 MAILMAX=2", [["a", "b"], ["c", "d"], ["e"]], 2),
        ("MAILMAX=1", [["a", "b", "c", "d", "e"]], 1),
    ],
)
async def test_limits(tmp_path: Path, limits: str, transactions: list[list[str]], connections: int) -> None:
    def more() -> tuple[str, ...]:
        return (f"LIMITS {limits}",)

    async with (
        serving(more_extensions=more) as server,
        transport(tmp_path, **PLAINTEXT, port=server.port) as relay,
    ):
        people = [f"{who}@{'xy'[number % 2]}.example" for number, who in enumerate("abcde")]
        assert results(await relay.deliver(delivery(*people))) == DELIVERED * 5
        assert sorted(server.recipients) == sorted(transactions)
        assert len(server.sessions) == connections
        assert results(await relay.deliver(delivery())) == DELIVERED
        assert len(server.sessions) == connections + (limits == "MAILMAX=1")


async def test_what_was_delivered_is_known_when_the_rest_fails(tmp_path: Path) -> None:
    async def one_and_no_more(stream: trio.SocketStream) -> None:
        await plain(stream, capabilities=b"250-mx\r\n250 LIMITS RCPTMAX=1\r\n")

    async def nothing(stream: trio.SocketStream) -> None:
        await stream.send_all(b"554 go away\r\n")

    async with (
        scripted(one_and_no_more, nothing) as port,
        transport(tmp_path, **PLAINTEXT, port=port) as relay,
    ):
        outcomes = await relay.deliver(delivery("a@x.example", "b@x.example", "c@x.example"))
    assert results(outcomes) == [("delivered", 250), ("permanent", 554), ("permanent", 554)]


async def test_those_who_were_not_asked_for(tmp_path: Path) -> None:
    async def ends_at_the_dot(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mx\r\n")
        for reply in (b"250-mx\r\n250 LIMITS RCPTMAX=1\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await stream.receive_some()
            await stream.send_all(reply)
        await stream.receive_some()

    async with scripted(ends_at_the_dot) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        first, *others = await relay.deliver(delivery("a@x.example", "b@x.example", "c@x.example"))
    assert first.error.startswith("outcome unknown, the message may have been delivered: connection ")
    assert [other.error.startswith("connection ") for other in others] == [True, True]
    assert results([first, *others]) == [("temporary", 0)] * 3
    assert [outcome.unknown for outcome in (first, *others)] == [True, False, False]


# --- DSN ---


async def test_dsn_is_passed_on(tmp_path: Path, tls: Tls) -> None:
    asked = (
        DsnRequest(ret="HDRS", notify=("SUCCESS", "FAILURE"), orcpt="rfc822;b+1@x.example"),
        DsnRequest(ret="HDRS"),
    )
    settings = {"type": "submission", "host": "localhost", "ca_file": tls.ca_file, "auth": AUTH}
    async with (
        serving(
            logins=OneLogin("SCRAM-SHA-256"), tls=tls.context, more_extensions=lambda: ("DSN",)
        ) as server,
        transport(tmp_path, **settings, port=server.port) as relay,
    ):
        outcomes = await relay.deliver(delivery("b@x.example", "c@x.example", dsn=asked, env_id="a+b"))
    assert results(outcomes) == DELIVERED * 2
    [(envelope, _)] = server.transactions
    assert [outcome.dsn_passed_on for outcome in outcomes] == [True, True]
    assert (envelope.ret, envelope.envid) == ("HDRS", "a+b")
    assert [(one.notify, one.orcpt) for one in envelope.dsn] == [(one.notify, one.orcpt) for one in asked]


async def test_dsn_not_offered(tmp_path: Path) -> None:
    async with scripted(plain) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        [outcome] = await relay.deliver(delivery(dsn=(DsnRequest(notify=("SUCCESS",)),), env_id="x"))
    assert (outcome.result.value, outcome.dsn_passed_on) == ("delivered", False)


async def test_chunking_only_where_it_is_wanted(tmp_path: Path) -> None:
    refused = Server(decide=lambda step, _: Reply(554, "5.6.0", ("No",)) if step == "dot" else None)
    async with serving(refused) as server:
        for wanted in (True, False):
            settings = {"type": "smtp", "host": "127.0.0.1", "port": server.port, "tls": "none"}
            async with transport(tmp_path, **settings, chunking=wanted) as relay:
                [outcome] = await relay.deliver(delivery())
            assert (f"> BDAT {len(CONTENT)} LAST" in outcome.transcript) == wanted
            assert ("> DATA" in outcome.transcript) != wanted


async def test_smtputf8_not_offered(tmp_path: Path) -> None:
    async with scripted(plain) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        [outcome] = await relay.deliver(delivery(smtputf8=True))
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 0, "5.6.7")


# --- Kept connections ---


async def test_a_connection_that_ended_while_idle(tmp_path: Path) -> None:
    async with scripted(plain, plain) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        for _ in range(2):
            assert results(await relay.deliver(delivery())) == DELIVERED


async def acquainted(stream: trio.SocketStream, *, says: bytes) -> None:
    """A server that takes a message by BDAT, says this to the next, whole, and closes the connection."""
    await stream.send_all(b"220 mx\r\n")
    await stream.receive_some()
    await stream.send_all(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    assert b"BDAT" not in await stream.receive_some()  # it waits to see whether that goes well
    await stream.send_all(b"250 ok\r\n250 ok\r\n")
    await stream.receive_some()
    await stream.send_all(b"250 taken\r\n")
    received = b""
    while not received.endswith(CONTENT):
        received += await stream.receive_some()
    assert received.startswith(b"MAIL FROM:")
    assert received.endswith(b"\r\nBDAT %d LAST\r\n%s" % (len(CONTENT), CONTENT))
    await stream.send_all(says)


@pytest.mark.parametrize(
    ("says", "error", "connections"),
    [
        (b"250 ok\r\n250 ok\r\n250 taken\r\n", "", 1),
        (b"", "", 2),
        (b"421 4.4.2 idle for too long\r\n", "", 2),
        (b"250 ok\r\n550 5.1.1 no\r\n503 5.5.1 no\r\n", "remote answered 550 5.1.1 no", 1),
        (
            b"250 ok\r\n",
            "outcome unknown, the message may have been delivered: connection closed by the server",
            1,
        ),
    ],
)
async def test_a_server_that_took_a_chunk_gets_the_next_with_its_envelope(
    tmp_path: Path, says: bytes, error: str, connections: int
) -> None:
    servers = (partial(acquainted, says=says), plain)
    async with scripted(*servers[:connections]) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        assert results(await relay.deliver(delivery())) == DELIVERED
        [outcome] = await relay.deliver(delivery())
    assert (outcome.error, outcome.result.value == "delivered") == (error, not error)


async def test_a_server_that_is_slow_with_what_came_with_its_envelope_may_have_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the time of a message, not that of MAIL; and nobody else is to take it now."""

    async def says_nothing_more(stream: trio.SocketStream) -> None:
        await acquainted(stream, says=b"")
        await trio.sleep_forever()

    async with (
        scripted(says_nothing_more, plain) as port,
        transport(tmp_path, **PLAINTEXT, port=port) as relay,
    ):
        assert results(await relay.deliver(delivery())) == DELIVERED
        times = {"mail": 3600.0, "dot": 0.3}
        monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: times[stage])
        [outcome] = await relay.deliver(delivery())
    assert (outcome.result.value, outcome.error) == (
        "temporary",
        "outcome unknown, the message may have been delivered: no reply within 0.3 seconds",
    )


async def test_nonsense_for_an_answer_to_what_came_with_its_envelope_leaves_a_doubt(tmp_path: Path) -> None:
    """The server is there, and may go on: the message is not sent again at once."""
    nonsense = partial(acquainted, says=b"hello\r\n")
    async with scripted(nonsense, plain) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        assert results(await relay.deliver(delivery())) == DELIVERED
        [outcome] = await relay.deliver(delivery())
    assert outcome.error == (
        "outcome unknown, the message may have been delivered: not an SMTP reply: 'hello'"
    )


@pytest.mark.parametrize("more", [b"250 once more\r\n", b"421 4.4.2 idle for too long\r\n", b""])
async def test_a_kept_connection_on_which_something_came_is_not_used(tmp_path: Path, more: bytes) -> None:
    """An answer too many would be the next message's: that would be called delivered before it is."""
    heard = b""
    over = trio.Event()

    async def says_more(stream: trio.SocketStream) -> None:
        nonlocal heard
        await plain(stream)
        await trio.testing.wait_all_tasks_blocked()
        if more:
            await stream.send_all(more)
        else:
            await stream.send_eof()
        over.set()
        while data := await stream.receive_some():
            heard += data

    async with scripted(says_more, plain) as port, transport(tmp_path, **PLAINTEXT, port=port) as relay:
        assert results(await relay.deliver(delivery())) == DELIVERED
        with trio.fail_after(PATIENCE):
            await over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert results(await relay.deliver(delivery())) == DELIVERED
    assert heard in (b"", b"QUIT\r\n")


async def test_connections_are_ended_without_anybody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = partial(ClientSettings, quit_timeout=10 * PATIENCE)
    monkeypatch.setattr("gateway_smtp.settings.ClientSettings", patient)
    ended = trio.Event()

    async def never_answers_quit(stream: trio.SocketStream) -> None:
        await plain(stream)
        assert await stream.receive_some() == b"QUIT\r\n"
        ended.set()
        await trio.sleep_forever()

    async with scripted(never_answers_quit) as port:
        keep = {"messages": 1}
        async with transport(tmp_path, **PLAINTEXT, port=port, keep=keep) as relay:
            with trio.fail_after(PATIENCE):
                assert results(await relay.deliver(delivery())) == DELIVERED
                await ended.wait()


async def test_each_host_name_has_its_connections(tmp_path: Path) -> None:
    async with serving() as server, transport(tmp_path, **PLAINTEXT, port=server.port) as relay:
        for name in ("one.example", "two.example", "two.example"):
            assert results(await relay.deliver(replace(delivery(), hostname=name))) == DELIVERED
    names = [session.hello.name for session in server.sessions.values() if session.hello]
    assert names == ["one.example", "two.example"]


# --- fail ---


@pytest.mark.parametrize(
    ("settings", "result", "code", "error"),
    [
        ({}, "permanent", 554, "no mail is delivered this way"),
        ({"code": 550, "message": "closed"}, "permanent", 550, "closed"),
        ({"code": 421}, "temporary", 421, "no mail is delivered this way"),
    ],
)
async def test_fail(tmp_path: Path, settings: dict[str, Any], result: str, code: int, error: str) -> None:
    table = {"type": "fail"} | settings
    read = read_transports({"no": table}, Fail().transports(), tmp_path)
    made = make_transports(read, a_network())["no"]
    outcomes = await made.deliver(delivery("a@x.example", "b@x.example"))
    assert results(outcomes) == [(result, code)] * 2
    assert outcomes[0].error == error


@pytest.mark.parametrize("break_", ["\r\n", "\r", "\n"])
def test_the_message_of_fail_is_one_line(tmp_path: Path, break_: str) -> None:
    table = {"type": "fail", "message": f"closed{break_}550 2.0.0 ok"}
    with pytest.raises(ConfigError, match=r"message: .* is not one line of printable characters"):
        read_transports({"no": table}, Fail().transports(), tmp_path)
