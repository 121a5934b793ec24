"""What plugins are given is frozen to the bottom: nobody changes the gateway by changing an argument."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import datetime
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import pytest

from gateway import Address, Outcome, Submission, hookimpl
from gateway.frozen import FrozenDict, frozen
from gateway.hookspecs import SPECS
from gateway.hookspecs.marks import Verb
from gateway.model import Delivery
from gateway.testing import (
    MailGateway,
    delivery,
    event,
    permanent,
    queued_message,
    report_source,
    scripted_mx,
    submission,
    temporary,
)
from tests.reports import dsn, recipient_block

ASKED = {name: spec for name, spec in SPECS.items() if spec.verb is not Verb.ALL}
UNCHANGEABLE = (str, bytes, int, float, type(None), enum.Enum, datetime, PurePath, Address)
# What has methods and nothing else, for plugins: contents, the messages that were sent, a clock.
SERVICES = {"content", "sent", "stored", "now"}

# --- Every argument of every hook -----------------------------------------------------------------


def changeable(value: Any, path: str) -> list[str]:
    """Where something within `value` could be changed."""
    if isinstance(value, UNCHANGEABLE):
        return []
    if isinstance(value, FrozenDict):
        return [one for key, inner in value.items() for one in changeable(inner, f"{path}[{key!r}]")]
    if isinstance(value, tuple | frozenset):
        return [one for n, inner in enumerate(value) for one in changeable(inner, f"{path}[{n}]")]
    if is_dataclass(value) and getattr(value, "__dataclass_params__").frozen:  # noqa: B009 - mypy has it not
        names = [field.name for field in fields(value) if field.name not in SERVICES]
        return [one for name in names for one in changeable(getattr(value, name), f"{path}.{name}")]
    return [f"{path}: {type(value).__name__}"]


def looking(found: dict[str, list[str]]) -> object:
    """A plugin that takes every hook with all its arguments, and notes what could be changed."""

    def look(hook: str, arguments: Mapping[str, Any]) -> None:
        places = found.setdefault(hook, [])
        for name, value in arguments.items():
            if name not in SERVICES:
                places += changeable(value, f"{hook}: {name}")

    made: dict[str, Any] = {"look": look, "hookimpl": hookimpl}
    for hook, spec in ASKED.items():
        arguments = ", ".join(spec.arguments)
        exec(
            f"@hookimpl\ndef {hook}(self, {arguments}): look({hook!r}, dict({_by_name(spec.arguments)}))",
            made,
        )
    return type("Looking", (), {hook: made[hook] for hook in ASKED})()


def _by_name(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={name}" for name in names)


async def test_nothing_that_a_hook_is_given_can_be_changed(mail_gateway: MailGateway) -> None:
    found: dict[str, list[str]] = {}
    configuration = {"smtp": {"verify": True}, "accounts": {"app": {"routes": [{"transport": "relay"}]}}}
    async with scripted_mx() as mx:
        mx.answer("451 4.7.1 greylisted", "550 5.1.1 no such user", to="gone@*")
        relay = {"type": "smtp", "host": mx.host, "port": mx.port, "tls": "none"}
        async with mail_gateway(
            looking(found), transports={"relay": relay}, configuration=configuration
        ) as gateway:
            await gateway.gateway.holding.add("", "", "elsewhere.example")
            sent = await gateway.deliver(to="gone@example.net", extra={"order": "7"})
            assert (await gateway.advance(3600))["gone@example.net"].state == "failed"
            await gateway.deliver(to="here@example.net", extra={"order": "8"})
            api = await gateway.api()
            assert (await api.post("SuppressionList", json={})).status_code == 200
            letter = b'From: x@example.com\r\nContent-Type: text/plain; charset=utf-8; x="y"\r\n\r\nhi\r\n'
            await gateway.receive(letter)
            [message] = sent.messages
            report = dsn(recipient_block("gone@example.net"), message_id=message.message.message_id)
            await gateway.receive(report, mail_from="")
    assert set(found) == set(ASKED)
    assert [place for places in found.values() for place in places] == []


# --- The mapping ----------------------------------------------------------------------------------

CHANGES: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__("a", "2"),
    lambda it: it.__delitem__("a"),
    lambda it: it.__ior__({"b": "2"}),
    lambda it: it.update(b="2"),
    lambda it: it.setdefault("b", "2"),
    lambda it: it.pop("a"),
    lambda it: it.popitem(),
    lambda it: it.clear(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_frozen_mapping_is_not_changed(change: Callable[[Any], object]) -> None:
    it: Any = frozen({"a": "1"})
    with pytest.raises(TypeError, match="makes a changed copy"):
        change(it)
    assert it == {"a": "1"}


def test_it_has_no_other_ways_to_be_changed() -> None:
    harmless = {"copy", "fromkeys", "get", "items", "keys", "values"}
    assert {name for name in dir(dict) if name[0] != "_"} - harmless == {
        "clear",
        "pop",
        "popitem",
        "setdefault",
        "update",
    }


def test_it_is_used_as_a_dict_is() -> None:
    it = frozen({"a": {"b": ["1", "2"]}})
    assert it == {"a": {"b": ("1", "2")}}
    assert json.loads(json.dumps(it)) == {"a": {"b": ["1", "2"]}}
    for same in (pickle.loads(pickle.dumps(it)), copy.deepcopy(it), copy.copy(it)):
        assert same == it
        assert isinstance(same, FrozenDict)
    changed = {**it, "c": "3"}
    changed["d"] = "4"
    assert it | {"c": "3"} == {**it, "c": "3"}
    assert asdict(submission(extra={"a": "1"}))["extra"] == {"a": "1"}


def test_a_callers_dict_is_copied() -> None:
    mine = {"a": "1"}
    made = submission(extra=mine)
    mine["a"] = "2"
    assert made.extra == {"a": "1"}


def test_other_mappings_and_nonsense_are_left_to_the_checks() -> None:
    proxy = MappingProxyType({"a": "1"})
    assert frozen(proxy) is proxy
    nonsense: Any = 5
    assert frozen(nonsense) == submission(extra=nonsense).extra == nonsense


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (submission(extra={"a": "1"}), "extra"),
        (queued_message(extra={"a": "1"}), "extra"),
        (event(extra={"a": "1"}), "extra"),
        (replace(delivery(), dialed={"mx": ["192.0.2.1"]}), "dialed"),
        (permanent(550, dialed={"mx": ["192.0.2.1"]}), "dialed"),
        (report_source(b"Subject: hi\r\n\r\n"), "headers"),
        (report_source(b"Subject: hi\r\n\r\n"), "params"),
        (report_source(b"Subject: hi\r\n\r\n"), "returned"),
    ],
)
def test_the_kit_makes_them_frozen_too(made: Any, name: str) -> None:
    assert changeable(getattr(made, name), name) == []


# --- One plugin after the other -------------------------------------------------------------------


class Answers:
    """Stage `sign_webhook`: answers a dict, and keeps it."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    @hookimpl
    def sign_webhook(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        self.kept = {**headers, "X-First": "1"}
        return self.kept


class Spoils:
    """Stages `sign_webhook` and `submission`: changes what it was given, and fails."""

    def __init__(self, first: Answers) -> None:
        self.first = first

    @hookimpl
    def sign_webhook(self, headers: dict[str, str]) -> None:
        self.first.kept["X-First"] = "changed"
        headers["X-First"] = "spoilt"

    @hookimpl
    def submission(self, submission: Submission) -> None:
        submission.extra["order"] = "spoilt"  # type: ignore[index]

    @hookimpl
    def classify_outcome(self, outcome: Outcome) -> None:
        outcome.dialed["mx"] = ["192.0.2.1"]  # type: ignore[index]

    @hookimpl
    async def around_attempt(self, delivery: Delivery) -> None:
        delivery.dialed["mx"] = ["192.0.2.1"]  # type: ignore[index]


async def test_a_plugin_that_tries_fails_and_changes_nothing(mail_gateway: MailGateway) -> None:
    first = Answers()
    skip = {"on_error": {"submission": "skip", "sign_webhook": "skip"}}
    async with mail_gateway(first, Spoils(first), settings={"spoils": skip}) as gateway:
        gateway.transport().answer(temporary())
        happened = await gateway.deliver(extra={"order": "7"})
        [webhook] = happened.webhooks
        assert webhook.json["Extra"] == {"order": "7"}
        assert webhook.headers["x-first"] == "1"
        [fate] = happened.messages
        assert fate.message.extra == {"order": "7"}
        hooks = {
            found[1] for line in happened.log if (found := re.search("hook '([a-z_]+)': raised Type", line))
        }
        assert hooks == {"submission", "sign_webhook", "classify_outcome", "around_attempt"}
