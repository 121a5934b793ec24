"""docs/configuration.md has every setting, with its type and default; its examples and conf/ load."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import tomli
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway.cli.localserve import TEMPLATE, new_signing_key
from gateway.config.load import parse, read_toml
from gateway.config.sets import plugin_sets
from gateway.config.settings import Settings
from gateway.mail.address import Address
from gateway.net.listeners import UNIX_PATH_MAX
from gateway.outbound import prepared
from gateway.outbound.transports import make_transports, read_transports, tables_of
from gateway.plugins.loading import installed, load_plugins
from gateway_dkim.plugin import DkimSettings, Selector
from gateway_formats.cloudevents import CloudEventsSettings
from gateway_formats.mailgun import MailgunSettings
from gateway_formats.postmark import PostmarkSettings
from gateway_mox.mailbox import MailboxRule
from gateway_mox.receive import ReceiveSettings
from gateway_mox.retry import MoxRetrySettings, RetrySettings
from gateway_smtp.connections import KeepSettings
from gateway_smtp.direct import Direct
from gateway_smtp.fail import Fail, FailTransportSettings
from gateway_smtp.limits import LimitsSettings, RuleSettings
from gateway_smtp.mx_settings import DirectSettings, MxKeepSettings, ProxyAuthSettings, SocksSettings
from gateway_smtp.settings import (
    AuthSettings,
    SmtpTransportSettings,
    SubmissionsTransportSettings,
    SubmissionTransportSettings,
)
from gateway_smtp.smtp import Smtp
from tests.docs.pages import ROOT, all_sections, code, sections, tables, text
from tests.networks import a_network

PAGE = text("configuration.md")
SECTIONS = all_sections(PAGE)
WHOLE_FILE = "The file as a whole"

# --- What the code has ----------------------------------------------------------------------------


def _parts(annotation: Any) -> Iterator[Any]:
    """The members of a union, without None; Annotated is looked through."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if member is not types.NoneType:
                yield from _parts(member)
    else:
        yield annotation


def _of_model(annotation: Any) -> tuple[str, type[BaseModel]] | None:
    """Whether a field has sections: "" a table, "NAME" tables by name, "[]" an array of tables."""
    for part in _parts(annotation):
        inner = get_args(part)
        if isinstance(part, type) and issubclass(part, BaseModel):
            return ("", part) if part.__name__ != "Listen" else None
        if get_origin(part) in (Mapping, typing.Mapping) or get_origin(part) is tuple:
            found = _of_model(inner[0 if get_origin(part) is tuple else 1])
            if found is not None:
                return ("[]" if get_origin(part) is tuple else "NAME", found[1])
    return None


def walk(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section of the configuration: its heading and its model."""
    yield path, model
    for name, field in model.model_fields.items():
        found = _of_model(field.annotation)
        if found is None:
            continue
        kind, inner = found
        below = f"{path[1:-1]}.{name}" if path else name
        if kind == "NAME":
            below += '."DOMAIN"' if name == "domains" else ".NAME"
        yield from walk(inner, f"[[{below}]]" if kind == "[]" else f"[{below}]")


def type_name(annotation: Any) -> str:
    """A type as TOML has it."""
    [part, *others] = _parts(annotation)
    assert not others or all(type_name(part) == type_name(other) for other in others)
    origin = get_origin(part)
    if origin is Literal:
        part = type(get_args(part)[0])
    elif origin is tuple:
        return f"array of {type_name(get_args(part)[0])}s"
    elif origin in (Mapping, typing.Mapping):
        return "table"
    names: dict[Any, str] = {bool: "boolean", int: "integer", float: "number"}
    return names.get(part, "string")


def default_of(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Path):
        return str(value)
    if value is None and "Path" in str(field.annotation):
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return list(value) if isinstance(value, tuple) else value


def in_toml(text: str) -> Any:
    return tomli.loads(f"value = {text}")["value"]


# --- The settings ---------------------------------------------------------------------------------


def rows_of(section: str) -> dict[str, list[dict[str, str]]]:
    """The tables of settings of a section, by the first setting."""
    found = [table for table in tables(section) if "setting" in table[0]]
    return {table[0]["setting"]: table for table in found}


def check(model: type[BaseModel], rows: list[dict[str, str]]) -> None:
    fields = {
        name: field for name, field in model.model_fields.items() if _of_model(field.annotation) is None
    }
    assert [row["setting"] for row in rows] == list(fields)
    for row in rows:
        field = fields[row["setting"]]
        said = f"{model.__name__}.{row['setting']}"
        assert row["type"] == type_name(field.annotation), said
        if field.is_required():
            assert row["default"] == "*required*", said
        else:
            assert in_toml(row["default"]) == default_of(field), said


@pytest.mark.parametrize(("heading", "model"), list(walk(Settings)), ids=lambda value: str(value)[:60])
def test_section(heading: str, model: type[BaseModel]) -> None:
    if not heading:
        section = SECTIONS[WHOLE_FILE]
    else:
        [section] = [
            body for title, body in SECTIONS.items() if heading in title.replace("`", "").split(", ")
        ]
    [rows] = rows_of(section).values()
    check(model, rows)


def test_no_section_is_of_something_that_is_not_there() -> None:
    known = {heading for heading, _ in walk(Settings)}
    for title in SECTIONS:
        for heading in title.replace("`", "").split(", "):
            if heading.startswith("[") and not heading.startswith(("[plugin.", "[transports.")):
                assert heading in known


@pytest.mark.parametrize(
    ("title", "models"),
    [
        ("[plugin.dkim]", (DkimSettings, Selector)),
        ("[plugin.retry]", (RetrySettings,)),
        ('[plugin."mox.retry"]', (MoxRetrySettings,)),
        ("[plugin.limits]", (LimitsSettings, RuleSettings)),
        ('[plugin."mox.receive"]', (ReceiveSettings,)),
        ('[plugin."mox.mailbox"]', (MailboxRule,)),
        ('[transports.NAME]` with `type = "smtp"', (SmtpTransportSettings, AuthSettings, KeepSettings)),
        ('[transports.NAME]` with `type = "submission"', (SubmissionTransportSettings,)),
        ('[plugin."formats.cloudevents"]', (CloudEventsSettings,)),
        ('[plugin."formats.postmark"]', (PostmarkSettings,)),
        ('[plugin."formats.mailgun"]', (MailgunSettings,)),
        ('[transports.NAME]` with `type = "submissions"', (SubmissionsTransportSettings,)),
        ('[transports.NAME]` with `type = "direct"', (DirectSettings, MxKeepSettings)),
        ('[transports.NAME]` with `type = "socks"', (SocksSettings, ProxyAuthSettings)),
        ('[transports.NAME]` with `type = "fail"', (FailTransportSettings,)),
    ],
)
def test_section_of_a_plugin(title: str, models: tuple[type[BaseModel], ...]) -> None:
    found = list(rows_of(SECTIONS[title]).values())
    assert len(found) == len(models)
    for model, rows in zip(models, found, strict=True):
        if model is DkimSettings:  # its one field is a table by domain
            [row] = rows
            assert (row["setting"], row["type"], row["default"]) == ("domains", "table", "{}")
            assert list(model.model_fields) == ["domains"]
        else:
            check(model, rows)


def test_every_built_in_plugin_is_listed_with_its_sets() -> None:
    [rows] = tables(sections(PAGE, 2)["The built-in plugins"].partition("\n###")[0])
    ours = {plugin.name: plugin for plugin in installed() if plugin.distribution == "mail-gateway"}
    assert sorted(row["plugin"] for row in rows) == sorted(ours)
    sets = plugin_sets(Settings(hostname="mail.example.org"))
    for row in rows:
        there = [name for name, plugins in sets.items() if row["plugin"] in plugins]
        assert row["in set"] == ", ".join(there)
        loaded = ours[row["plugin"]].load()
        hooks = [name for name in vars(loaded) if hasattr(getattr(loaded, name), "gateway_impl")]
        assert re.findall(r"\w+", row["hooks"]) == hooks
        if getattr(loaded, "Settings", None) is not None:
            heading = f'[plugin."{row["plugin"]}"]' if "." in row["plugin"] else f"[plugin.{row['plugin']}]"
            assert heading in SECTIONS
    for kind in (*Smtp().transports(), *Direct().transports(), *Fail().transports()):
        assert f'[transports.NAME]` with `type = "{kind}"' in SECTIONS


# --- The examples ---------------------------------------------------------------------------------


def keys_for(raw: Mapping[str, Any], directory: Path) -> None:
    """Make the signing keys that a configuration names."""
    for selectors in raw.get("plugin", {}).get("dkim", {}).get("domains", {}).values():
        for selector in selectors:
            path = directory / selector["key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(new_signing_key())


def loads(raw: Mapping[str, Any], directory: Path) -> Settings:
    """All that the gateway does with a configuration before it listens."""
    keys_for(raw, directory)
    settings = parse(raw, directory / "gateway.toml")
    types = load_plugins(settings, directory).transports
    make_transports(read_transports(tables_of(settings, types), types, directory), a_network())
    return settings


@pytest.mark.parametrize("number", range(len(code("toml", PAGE))))
def test_example(number: int, tmp_path: Path) -> None:
    raw = tomli.loads(code("toml", PAGE)[number])
    # What a fragment takes for granted.
    raw.setdefault("hostname", "mail.example.org")
    for route in raw.get("routes", ()):
        usual = {"type": "smtp", "host": "192.0.2.25", "tls": "none"}
        raw.setdefault("transports", {}).setdefault(route["transport"], usual)
    for domain in raw.get("domains", {}).values():
        aliased = [name for names in domain.get("aliases", {}).values() for name in names]
        for account in filter(None, [domain.get("catchall_account"), *aliased]):
            raw.setdefault("accounts", {}).setdefault(account, {})
    for name, account in raw.get("accounts", {}).items():
        for address in account.setdefault("addresses", [f"{name}@example.org"]):
            raw.setdefault("domains", {}).setdefault(Address.parse(address).domain, {})
    loads(raw, tmp_path)


CONF = sorted((ROOT / "conf").glob("*.toml"))


@pytest.mark.parametrize("path", CONF, ids=[path.name for path in CONF])
def test_configuration_in_conf(path: Path, tmp_path: Path) -> None:
    settings = loads(read_toml(path), tmp_path)
    assert settings.smtp.listen
    assert settings.web.listen
    assert path.read_text().startswith("# ")
    listed = (ROOT / "conf" / "README.md").read_text(encoding="utf-8")
    assert f"({path.name})" in listed


def test_conf_has_what_the_first_start_writes() -> None:
    written = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        smtp="127.0.0.1:1025",
        submission="127.0.0.1:1587",
        submissions="127.0.0.1:1465",
        web="127.0.0.1:1080",
        metrics="127.0.0.1:1081",
        ip="127.0.0.1",
        smtp_port=1025,
        web_url="http://localhost:1080/",
        webhook_out="http://localhost:9090/",
        webhook_in="http://localhost:9090/",
    )
    assert (ROOT / "conf" / "localserve.toml").read_text(encoding="utf-8") == written


def test_numbers_in_the_text() -> None:
    """What is said beside the defaults."""
    assert f"0 is {prepared.DEFAULT_MESSAGES_PER_DAY}, -1 no limit" in PAGE
    assert f"0 is {prepared.DEFAULT_FIRST_TIME_RECIPIENTS_PER_DAY}, -1 no limit" in PAGE
    assert f"fewer than {UNIX_PATH_MAX + 1} bytes" in PAGE
