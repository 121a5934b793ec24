"""SuppressionList, SuppressionAdd, SuppressionRemove and SuppressionPresent."""

from __future__ import annotations

from typing import Any

import pytest

BEA = "bea@example.org"


async def test_a_list(api: Any, form: str) -> None:
    assert (await api.call("SuppressionList", {}, form)).json == {"Suppressions": []}
    request = {"EmailAddress": "You@Example.com", "Manual": True, "Reason": "asked for it"}
    assert (await api.call("SuppressionAdd", request, form)).json == {}
    assert (await api.call("SuppressionList", {}, form)).json == {
        "Suppressions": [
            {
                "ID": 1,
                "Created": "2026-02-01T12:00:00Z",
                "Account": "ann",
                "BaseAddress": "You@example.com",
                "OriginalAddress": "You@example.com",
                "Manual": True,
                "Reason": "asked for it",
                "List": "",
            }
        ]
    }
    present = await api.call("SuppressionPresent", {"EmailAddress": "You@example.com"}, form)
    assert present.json == {"Present": True}
    assert (await api.call("SuppressionRemove", {"EmailAddress": "You@example.com"}, form)).json == {}
    present = await api.call("SuppressionPresent", {"EmailAddress": "You@example.com"}, form)
    assert present.json == {"Present": False}


async def test_an_entry_for_one_list(api: Any) -> None:
    you = {"EmailAddress": "you@example.com"}
    news = you | {"List": "news"}
    assert (await api.call("SuppressionAdd", news)).json == {}
    assert (await api.call("SuppressionAdd", news)).error[0] == "duplicate"
    [entry] = (await api.call("SuppressionList", {})).json["Suppressions"]
    assert entry["List"] == "news"
    assert (await api.call("SuppressionPresent", you)).json == {"Present": False}
    assert (await api.call("SuppressionPresent", news)).json == {"Present": True}
    assert (await api.call("SuppressionRemove", you)).error[0] == "notFound"
    assert (await api.call("SuppressionRemove", news)).json == {}
    for method in ("SuppressionAdd", "SuppressionPresent", "SuppressionRemove"):
        for name in ("a b", "x" * 101, "é"):
            assert (await api.call(method, you | {"List": name})).error[0] == "user"


async def test_the_list_of_another_account(api: Any) -> None:
    await api.call("SuppressionAdd", {"EmailAddress": "you@example.com"})
    api.login = BEA
    assert (await api.call("SuppressionList", {})).json == {"Suppressions": []}
    assert (await api.call("SuppressionPresent", {"EmailAddress": "you@example.com"})).json == {
        "Present": False
    }
    gone = await api.call("SuppressionRemove", {"EmailAddress": "you@example.com"})
    assert gone.error == ("notFound", "EmailAddress: you@example.com is not on the suppression list")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])  # pages are of two
async def test_a_list_of_several_pages(api: Any, count: int) -> None:
    addresses = [f"u{number}@example.com" for number in range(count)]
    for address in addresses:
        await api.call("SuppressionAdd", {"EmailAddress": address, "Reason": 'with "quotes", and ]'})
    answer = await api.call("SuppressionList", {})
    assert [entry["BaseAddress"] for entry in answer.json["Suppressions"]] == addresses
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_what_is_there_already(api: Any) -> None:
    await api.call("SuppressionAdd", {"EmailAddress": "you@example.com", "Reason": "first"})
    again = await api.call("SuppressionAdd", {"EmailAddress": "you@example.com", "Reason": "second"})
    assert again.error == ("duplicate", "EmailAddress: you@example.com is on the suppression list already")
    [entry] = (await api.call("SuppressionList", {})).json["Suppressions"]
    assert (entry["Reason"], entry["Manual"]) == ("first", False)


@pytest.mark.parametrize("method", ["SuppressionAdd", "SuppressionRemove", "SuppressionPresent"])
@pytest.mark.parametrize("address", ["", "you", "you@", "a b@example.com", "Ada <ada@example.com>"])
async def test_bad_addresses(api: Any, method: str, address: str) -> None:
    code, message = (await api.call(method, {"EmailAddress": address})).error
    assert code == "badAddress"
    assert message.startswith("EmailAddress: ")


@pytest.mark.parametrize("reason", ["x" * 2001, "nul \0"])
async def test_bad_reasons(api: Any, reason: str) -> None:
    answer = await api.call("SuppressionAdd", {"EmailAddress": "you@example.com", "Reason": reason})
    assert answer.error[0] == "user"
    assert api.suppressions.entries == {}


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("SuppressionList", {"Cursor": ""}),
        ("SuppressionAdd", {"EmailAddress": 1}),
        ("SuppressionAdd", {"EmailAddress": "you@example.com", "Manual": "yes"}),
        ("SuppressionRemove", {"EmailAddress": "you@example.com", "Reason": ""}),
    ],
)
async def test_another_shape(api: Any, method: str, request_: dict[str, Any]) -> None:
    assert (await api.call(method, request_)).error[0] == "protocol"
