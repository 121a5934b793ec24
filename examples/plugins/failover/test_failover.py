from datetime import UTC, datetime

import pytest
from gateway_failover import Failover, FailoverSettings
from pydantic import ValidationError

from gateway import Address, QueuedMessage, Route

SETTINGS = FailoverSettings(
    transports={
        "example.com": ("partner", "smarthost"),
        ".example.net": ("net",),
        ".lab.example.net": ("lab",),
    },
    attempts=2,
)


def message(recipient: str, attempts: int) -> QueuedMessage:
    """The message at its attempt of that number."""
    now = datetime(2026, 1, 31, 8, tzinfo=UTC)
    return QueuedMessage(
        id=1, base_id=0, submission_id="1", account="shop", sender=Address.parse("shop@example.org"),
        recipient=Address.parse(recipient), queued=now, hold=False, attempts=attempts, max_attempts=0,
        next_attempt=now, last_attempt=now, message_id="<1@example.org>", subject="hi", size=100,
        has_8bit=False, smtputf8=False, require_tls=None, transport="", from_id="", env_id="", extra={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "transport"),
    [(1, "partner"), (2, "partner"), (3, "smarthost"), (4, "smarthost"), (9, "smarthost")],
)
def test_each_transport_has_its_attempts(attempt: int, transport: str) -> None:
    assert Failover().route(message("ada@example.com", attempt), SETTINGS) == Route(transport)


@pytest.mark.parametrize(
    ("domain", "transport"),
    [
        ("example.net", "net"),
        ("mx.example.net", "net"),
        ("lab.example.net", "lab"),
        ("a.b.lab.example.net", "lab"),
        ("sub.example.com", None),
        ("notexample.net", None),
        ("example.org", None),
    ],
)
def test_domains(domain: str, transport: str | None) -> None:
    found = Failover().route(message(f"ada@{domain}", 1), SETTINGS)
    assert found == (Route(transport) if transport else None)


def test_wrong_settings() -> None:
    with pytest.raises(ValidationError):
        FailoverSettings(attempts=0)
    with pytest.raises(ValidationError):
        FailoverSettings(transports={"example.com": ()})
