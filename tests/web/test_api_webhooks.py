"""WebhookReplay: what it passes on, and what it refuses. (What a replay does: tests/cli, tests/whole.)"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("request_", "conditions"),
    [
        ({"WebhookIDs": [1, 2]}, 2),
        ({"After": "2026-01-31T08:00:00Z"}, 2),
        ({"Before": "2026-01-31T08:00:00Z", "OnlyFailed": True, "URL": "https://a.example/"}, 4),
        ({"After": "2026-01-31T08:00:00Z", "Event": "incoming"}, 3),
    ],
)
async def test_only_the_accounts_own_calls(api: Any, request_: dict[str, Any], conditions: int) -> None:
    answer = await api.call("WebhookReplay", request_)
    assert (answer.status, answer.json) == (200, {"Count": conditions})
    assert api.webhooks.wanted is not None
    assert api.webhooks.wanted.account == "ann"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "say which: WebhookIDs, or a time range with After or Before"),
        ({"OnlyFailed": True}, "say which: WebhookIDs, or a time range with After or Before"),
        ({"WebhookIDs": [1] * 1001}, "WebhookIDs: at most 1000 at a time, not 1001"),
        ({"WebhookIDs": [1], "Event": "opened"}, "Event: must be one of delivered,"),
    ],
)
async def test_what_is_refused(api: Any, request_: dict[str, Any], message: str) -> None:
    answer = await api.call("WebhookReplay", request_)
    assert (answer.status, answer.json["Code"]) == (400, "user")
    assert answer.json["Message"].startswith(message)
