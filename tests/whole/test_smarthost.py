"""The transports deliver to the gateway's own submission listeners."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import Address
from gateway.net.smtp_client import connect_smtp
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.smtp.client_auth import Credentials
from tests.plugins.smtp_servers import delivery, results, transport
from tests.running import AUTH, Running

MESSAGE = b"From: mox@localhost\r\nTo: user@example.org\r\nMessage-ID: <relayed@localhost>\r\n\r\nhello\r\n"


@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_as_a_smarthost(gateway: Running, tmp_path: Path, kind: str) -> None:
    running = gateway.gateway
    [address, *_] = (
        running.addresses["submissions"] if kind == "submissions" else running.addresses["submission"]
    )
    certificate = str(gateway.directory / "tls" / "localhost.pem")

    # The best mechanism is used, and bound to the connection.
    settings = ClientSettings(
        "client.example",
        tls=TlsPolicy.VERIFIED,
        tls_at_once=kind == "submissions",
        ca_file=certificate,
        credentials=Credentials(*AUTH),
    )
    connection = await connect_smtp("localhost", address.port, settings)
    assert connection.failure is None, connection.failure
    assert "> AUTH SCRAM-SHA-256-PLUS (response)" in connection.transcript
    assert AUTH[1] not in connection.transcript
    await connection.quit()

    relay_settings = {
        "type": kind,
        "host": "localhost",
        "port": address.port,
        "ca_file": certificate,
        "auth": {"username": AUTH[0], "password": AUTH[1]},
    }
    async with transport(tmp_path, **relay_settings) as relay:
        sender = Address.parse(AUTH[0])
        message = delivery("user@example.org", data=MESSAGE, sender=sender)
        outcomes = await relay.deliver(message)
        assert results(outcomes) == [("delivered", 250)], outcomes[0]
    told = await gateway.webhooks.event("delivered")
    assert told["MessageID"] == "<relayed@localhost>"


async def test_a_wrong_password(gateway: Running, tmp_path: Path) -> None:
    [address, *_] = gateway.gateway.addresses["submission"]
    settings = {
        "type": "submission",
        "host": "localhost",
        "port": address.port,
        "ca_file": str(gateway.directory / "tls" / "localhost.pem"),
        "auth": {"username": AUTH[0], "password": "not the password"},
    }
    async with transport(tmp_path, **settings) as relay:
        [outcome] = await relay.deliver(delivery())
    assert results([outcome]) == [("temporary", 0)]
    assert "login with SCRAM-SHA-256-PLUS failed: remote answered 535 5.7.8" in outcome.error
    assert "not the password" not in repr(outcome)
