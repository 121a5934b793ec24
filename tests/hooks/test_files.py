"""Plugins of a single file, from the directory `plugins.directory`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import parse
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.plugins.loading import load_plugins
from gateway.plugins.views import plugin_rows
from tests.hooks.helpers import Rest, a_message, configured

SOURCE = """
from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from gateway import QueuedMessage, Route, hookimpl


@dataclass(frozen=True)
class Target:
    name: str


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    target: Target = Target("file")


@hookimpl
def route(message: QueuedMessage, settings: Settings) -> Route | None:
    return Route(settings.target.name)
"""


def settings(directory: Path, **config: Any) -> Settings:
    config["plugins"] = {"sets": ["test"], "directory": str(directory)}
    return configured({"test": ["acme.small"]}, config)


async def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "acme.small.py").write_text(SOURCE)
    (tmp_path / "acme.broken.py").write_text("raise RuntimeError('nobody names it')")
    given = settings(tmp_path, plugin={"acme.small": {"target": {"name": "backup"}}})
    hooks = load_plugins(given, tmp_path, extra={"rest": Rest()})
    found = await hooks.for_account("").route(message=a_message(), routes=())
    assert found is not None
    assert found.transport == "backup"
    rows = {row["Plugin"]: row for row in plugin_rows(given, hooks)}
    assert rows["acme.small"]["State"] == "in use"
    assert rows["acme.small"]["Distribution"] == str(tmp_path / "acme.small.py")
    assert rows["acme.broken"]["State"] == "installed"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no')", "cannot be imported: RuntimeError: no; repair it"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit: 0; repair it"),
        ("def (", "cannot be imported: SyntaxError"),
        ("x = 1", "has no hooks; mark its functions with @gateway.hookimpl"),
        (None, "no plugin 'acme.small' is installed"),
    ],
)
def test_what_is_wrong_is_said(source: str | None, said: str, tmp_path: Path) -> None:
    if source is not None:
        (tmp_path / "acme.small.py").write_text(source)
    with pytest.raises(ConfigError, match=said):
        load_plugins(settings(tmp_path), tmp_path, extra={"rest": Rest()})


def test_a_file_does_not_take_an_installed_plugins_place(tmp_path: Path) -> None:
    (tmp_path / "mox.routing.py").write_text(SOURCE)
    given = configured({"test": ["mox.routing"]}, {"plugins": {"sets": ["test"], "directory": str(tmp_path)}})
    with pytest.raises(ConfigError, match="both have a plugin of this name; remove one of them"):
        load_plugins(given, tmp_path, extra={"rest": Rest()})


def test_there_must_be_such_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.directory: .*nowhere is no directory; make it"):
        load_plugins(settings(tmp_path / "nowhere"), tmp_path, extra={"rest": Rest()})


def test_it_is_relative_to_the_configuration_file(tmp_path: Path) -> None:
    given = parse(
        {"hostname": "gateway.example", "plugins": {"directory": "small"}}, tmp_path / "gateway.toml"
    )
    assert given.plugins.directory == str(tmp_path / "small")
