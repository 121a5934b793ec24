"""Unique addresses: made, taken apart, and refused where they could not come back."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config.settings import Settings
from gateway.mail.address import Address, AddressError
from gateway.outbound.from_ids import details, random_id, unique_sender, without_from_id

OURS = [Address.parse("mox@example.org"), Address.parse("jane-doe@example.org")]


@pytest.mark.parametrize(
    ("sender", "separators", "expected"),
    [
        ("mox", ["+"], "mox+ID"),
        ("Mox", ["+"], "Mox+ID"),
        ("mox+x+y", ["+"], "mox+ID"),
        ("mox+x", ["-", "+"], "mox-ID"),  # the first of several; cut at whichever it has
        ("jane-doe", ["+", "-"], "jane-doe+ID"),  # an address of the account is not cut
        ("jane-doe+x-y", ["+", "-"], "jane-doe+ID"),
        ("any+x", ["+"], "any+ID"),  # of the domain's catchall account
    ],
)
def test_unique_sender(sender: str, separators: list[str], expected: str) -> None:
    made = unique_sender(Address(sender, "example.org"), "ID", OURS, separators)
    assert made == Address(expected, "example.org")
    assert "ID" in details(made, separators)


def test_an_address_that_gets_too_long() -> None:
    with pytest.raises(AddressError):
        unique_sender(Address("x" * 120, "example.org"), random_id(), OURS, ["+"])


def test_details() -> None:
    assert details(Address("a+b-c", "x.example"), ["+", "-"]) == ("b-c", "c")
    assert details(Address("a+", "x.example"), ["+"]) == ()
    assert details(Address("+a", "x.example"), ["+"]) == ()
    assert details(Address("a", "x.example"), []) == ()


def test_without_from_id() -> None:
    sender = Address("mox+ID", "example.org")
    assert str(without_from_id(sender, "ID", ["-", "+"])) == "mox@example.org"
    assert without_from_id(sender, "other", ["+"]) == sender
    assert without_from_id(sender, "", ["+"]) == sender


def test_they_are_random() -> None:
    assert len({random_id() for _ in range(1000)}) == 1000
    assert {len(random_id()) for _ in range(100)} == {22}


def configured(logins: list[str], separators: list[str], addresses: list[str]) -> Settings:
    raw: dict[str, Any] = {
        "hostname": "gateway.example",
        "domains": {"example.org": {"catchall_separator": separators}, "example.net": {}},
        "accounts": {"app": {"addresses": addresses, "from_id_login_addresses": logins}},
    }
    return Settings.model_validate(raw)


def test_a_configuration_that_works() -> None:
    settings = configured(["app@example.org", "App+x@example.org"], ["+"], ["app@example.org"])
    assert len(settings.accounts["app"].from_id_login_addresses) == 2


@pytest.mark.parametrize(
    ("logins", "separators", "addresses", "said"),
    [
        (
            ["app@example.org"],
            [],
            ["app@example.org"],
            "the domain of app@example.org has no catchall separator",
        ),
        (["a-b@example.org"], ["-", "+"], ["a-b@example.org"], "a-b@example.org has its domain's first"),
        (
            ["app@example.org"],
            ["+"],
            ["app@example.org", "app@example.net"],
            "the domain of app@example.net has no catchall separator",
        ),
        (
            ["other@example.org"],
            ["+"],
            ["app@example.org"],
            "other@example.org is no address of this account",
        ),
        (["app@example.com"], ["+"], ["app@example.org"], "app@example.com is no address of this account"),
    ],
)
def test_a_configuration_that_does_not(
    logins: list[str], separators: list[str], addresses: list[str], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        configured(logins, separators, addresses)
