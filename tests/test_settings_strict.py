"""Settings are of the type that the documentation names: true is no number, and "off" is not false."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config.load import parse
from gateway.config.sets import plugin_sets
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.plugins.loading import installed
from gateway_mox.mailbox import MailboxSettings
from gateway_mox.retry import RetrySettings
from gateway_smtp.direct import Direct
from gateway_smtp.fail import Fail
from gateway_smtp.mx_settings import DirectSettings
from gateway_smtp.settings import SmtpTransportSettings
from gateway_smtp.smtp import Smtp


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(annotation):
        yield from models(part)


def test_all_of_them() -> None:
    default = plugin_sets(Settings(hostname="mail.example.org"))["default"]
    roots: list[Any] = [Settings]
    roots += [kind.settings for one in (Smtp(), Direct(), Fail()) for kind in one.transports().values()]
    roots += [getattr(one.load(), "Settings", None) for one in installed() if one.name in default]
    found = {model for root in roots for model in models(root)}
    assert len(found) > 30
    assert [model.__name__ for model in found if not model.model_config.get("strict")] == []


@pytest.mark.parametrize(
    "raw",
    [
        {"grace": True},
        {"grace": "5"},
        {"accounts": {"shop": {"addresses": ["shop@example.org"], "keep_retired_days": True}}},
    ],
)
def test_times_of_the_gateway(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Input should be a valid number"):
        parse({"hostname": "gateway.example", "domains": {"example.org": {}}} | raw, Path("gateway.toml"))


def test_what_toml_has_another_type_for() -> None:
    """Integers for numbers, arrays, and text for paths and addresses."""
    assert parse({"hostname": "gateway.example", "grace": 5}, Path("gateway.toml")).grace == 5.0
    smtp = SmtpTransportSettings.model_validate({"host": "h", "connect_timeout": 5, "keep": {"idle": 1}})
    assert (smtp.connect_timeout, smtp.keep.idle) == (5.0, 1.0)
    lists = {"families": ["ipv4"], "local_addresses": ["192.0.2.1"], "allow_networks": ["10.0.0.0/8"]}
    assert DirectSettings.model_validate(lists).versions == [4]
    retry = RetrySettings.model_validate({"intervals": [60], "routes": {"x": {"intervals": [120, 600]}}})
    assert retry.intervals == (60.0,)
    rules = MailboxSettings.model_validate({"rules": [{"mailbox": "A", "mail_from": "*"}]}).rules
    assert [rule.mailbox for rule in rules] == ["A"]
    with pytest.raises(ValidationError):
        RetrySettings.model_validate({"max_attempts": True})
