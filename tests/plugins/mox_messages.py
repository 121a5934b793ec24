"""Messages to ask the plugins about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway import Address, QueuedMessage

QUEUED = datetime(2030, 1, 1, tzinfo=UTC)


def message(**changes: Any) -> QueuedMessage:
    fields: dict[str, Any] = {
        "id": 1,
        "base_id": 0,
        "submission_id": "s",
        "account": "a",
        "sender": Address("me", "example.com"),
        "recipient": Address("you", "example.org"),
        "queued": QUEUED,
        "hold": False,
        "attempts": 1,
        "max_attempts": 0,
        "next_attempt": QUEUED,
        "last_attempt": QUEUED,
        "message_id": "<m@example.com>",
        "subject": "Hi",
        "size": 100,
        "has_8bit": False,
        "smtputf8": False,
        "require_tls": None,
        "transport": "",
        "from_id": "",
        "env_id": "",
        "extra": {},
    }
    return QueuedMessage(**(fields | changes))
