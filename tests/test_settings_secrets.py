"""What is wrong in the configuration is shown, unless it is secret or may be: errors get into logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from gateway.config.load import describe, parse
from gateway.errors import ConfigError
from gateway.outbound.transports import read_transports
from gateway.web.control.accounts import PasswordRequest
from gateway_formats.mailgun import MailgunSettings
from gateway_smtp.direct import Direct
from gateway_smtp.smtp import Smtp

SECRET = "s3cret"
SMTP = {"type": "smtp", "host": "h.example"}
SOCKS = {"type": "socks", "proxy": "127.0.0.1:1080", "hostname": "a.example"}
URL = {"url": "http://x.example/"}
HOST = "is no host name or IP address; its port is a setting of its own, port"
PROXY = 'is no host and port, such as "127.0.0.1:1080"'


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SMTP | {"auth": f"bob:{SECRET}"}, "auth: is to be a table"),
        (SMTP | {"auth": [SECRET]}, "auth: is to be a table"),
        (
            SMTP | {"auth": {"username": "bob", "password": [SECRET]}},
            "auth.password: is to be text in quotes",
        ),
        (SMTP | {"auth": {"username": 17}}, "auth.username: Input should be a valid string (it is 17)"),
        (SMTP | {"host": f"bob:{SECRET}@h.example"}, f"host: '...@h.example' {HOST}"),
        (SMTP | {"host": f"{SECRET}@x@h.example"}, f"host: '...@h.example' {HOST}"),
        (SMTP | {"host": "h.example:25"}, f"host: 'h.example:25' {HOST}"),
        (SOCKS | {"auth": f"bob:{SECRET}"}, "auth: is to be a table"),
        (SOCKS | {"proxy": f"socks5://bob:{SECRET}@h.example:1080"}, f"proxy: '...@h.example:1080' {PROXY}"),
        (SOCKS | {"proxy": f"{SECRET}@h.example:1080"}, f"proxy: '...@h.example:1080' {PROXY}"),
        (SOCKS | {"proxy": "h.example"}, f"proxy: 'h.example' {PROXY}"),
    ],
)
def test_transports(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_transports({"x": table}, Smtp().transports() | Direct().transports(), Path())
    assert str(caught.value).startswith(f"transports.x: {said}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (SECRET, "accounts.shop.webhooks: Input should be an array, such as [...]"),
        ([SECRET], "accounts.shop.webhooks[0]: is to be a table"),
        (
            [URL | {"secrets": SECRET}],
            "accounts.shop.webhooks[0].secrets: Input should be an array, such as [...]",
        ),
        ([URL | {"secrets": [17]}], "accounts.shop.webhooks[0].secrets[0]: Input should be a valid string"),
        ([URL | {"secrets": [SECRET]}], "accounts.shop.webhooks[0].secrets[0]: a secret is whsec_ and 24 to"),
        (
            [URL | {"authorization": 17}],
            "accounts.shop.webhooks[0].authorization: Input should be a valid str",
        ),
        (
            [{"url": f"https://bob:{SECRET}@h.example:99999/"}],
            "accounts.shop.webhooks[0].url: '...@h.example:99999/' is no URL",
        ),
        (
            [{"url": f"https://bob:{SECRET}@h.example/"}] * 2,
            "accounts.shop: ...@h.example/ would be called twice",
        ),
        (
            [URL | {"format": 17}],
            "accounts.shop.webhooks[0].format: Input should be a valid string (it is 17)",
        ),
    ],
)
def test_webhooks(target: object, said: str) -> None:
    raw = {
        "hostname": "gateway.example",
        "domains": {"example.org": {}},
        "accounts": {"shop": {"addresses": ["shop@example.org"], "webhooks": target}},
    }
    with pytest.raises(ConfigError) as caught:
        parse(raw, Path("gateway.toml"))
    assert str(caught.value).startswith(f"gateway.toml: {said}")
    assert SECRET not in str(caught.value)
    assert ("17" in str(caught.value)) is ("17" in said)


class Login(BaseModel):
    key: SecretStr = SecretStr("")
    token: str = Field("", repr=False)
    more: list[Login] = []


class OfPlugin(BaseModel):
    logins: tuple[Login, ...] = ()
    by_name: dict[str, SecretStr] = {}
    endpoint: str = Field("", pattern=r"^https://[^@]*$")
    speed: int = 0


@pytest.mark.parametrize(
    ("model", "raw", "said"),
    [
        (MailgunSettings, {"signing_key": 17}, "signing_key: Input should be a valid string"),
        (
            PasswordRequest,
            {"Account": "a", "Password": SECRET},
            "Password: String should have at least 8 characters",
        ),
        (OfPlugin, {"logins": SECRET}, "logins: Input should be an array, such as [...]"),
        (OfPlugin, {"logins": [SECRET]}, "logins[0]: is to be a table"),
        (OfPlugin, {"logins": [{"more": SECRET}]}, "logins[0].more: Input should be a valid list"),
        (OfPlugin, {"logins": [{"token": 17}]}, "logins[0].token: Input should be a valid string"),
        (OfPlugin, {"by_name": {"bob": 17}}, "by_name.bob: Input should be a valid string"),
        (
            OfPlugin,
            {"endpoint": f"https://bob:{SECRET}@h.example"},
            "endpoint: String should match pattern '^https://[^@]*$' (it is '...@h.example')",
        ),
        (
            OfPlugin,
            {"speed": "fast"},
            "speed: Input should be a valid integer, unable to parse string as an integer (it is 'fast')",
        ),
    ],
)
def test_plugins_and_requests(model: type[BaseModel], raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(raw)
    assert describe(caught.value, model) == said
