"""The methods about webhooks: what they pass on, and what they refuse. (What they do: tests/whole.)"""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import GONE


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


async def test_urls_and_how_they_fare(api: Any) -> None:
    gone, works = (await api.call("WebhookList", {})).json["Webhooks"]
    assert (gone["URL"], gone["Disabled"], gone["Error"]) == (
        GONE,
        "2026-02-01T12:00:00Z",
        "its receiver wants no more",
    )
    assert works == {
        "URL": "https://b.example/",
        "Events": ["incoming"],
        "Format": "mox",
        "Signed": False,
        "Disabled": None,
        "FailingSince": None,
        "Error": "",
    }


@pytest.mark.parametrize(
    ("url", "affected"), [("", 1), (GONE, 1), ("https://b.example/", 0), ("https://other.example/", None)]
)
async def test_enabling(api: Any, url: str, affected: int | None) -> None:
    answer = await api.call("WebhookEnable", {"URL": url})
    if affected is None:
        assert (answer.status, answer.json["Code"], api.webhook_urls.enabled) == (400, "notFound", [])
    else:
        assert (answer.status, answer.json) == (200, {"Affected": affected})
        assert {account for _, account in api.webhook_urls.enabled} == {"ann"}


async def test_a_test_call(api: Any) -> None:
    answer = await api.call("WebhookTest", {"URL": GONE, "Event": "failed"})
    assert api.webhook_urls.tested == [("ann", GONE, "failed")]
    assert answer.json == {
        "URL": GONE,
        "Event": "failed",
        "Success": False,
        "Code": 410,
        "Error": "status 410",
        "Response": "gone",
        "Duration": 0.5,
        "Payload": "{}",
    }


@pytest.mark.parametrize(
    ("request_", "code"), [({"Event": "opened"}, "user"), ({"URL": "https://other.example/"}, "notFound")]
)
async def test_no_such_test_call(api: Any, request_: dict[str, Any], code: str) -> None:
    answer = await api.call("WebhookTest", request_)
    assert (answer.status, answer.json["Code"]) == (400, code)
