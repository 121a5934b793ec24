"""The packages in examples/plugins: built, installed, their own tests pass, and they are as they say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import tomli

from tests.docs.pages import code, tables
from tests.docs.test_configuration import check
from tests.packages.environment import EXAMPLES, Environment

PACKAGES = sorted(file.parent for file in EXAMPLES.glob("*/pyproject.toml"))
each = pytest.mark.parametrize("package", PACKAGES, ids=[package.name for package in PACKAGES])

# Run there: loads configurations, and prints of each its plugins, or what is wrong.
LOAD = """
import json, sys, tomllib
from pathlib import Path
from gateway.config.settings import Settings
from gateway.plugins.loading import load_plugins

found = {}
for name, text in json.load(sys.stdin).items():
    try:
        raw = {"hostname": "mail.example.org", **tomllib.loads(text)}
        hooks = load_plugins(Settings.model_validate(raw), Path.cwd())
        found[name] = sorted({plugin for plugin, _, _ in hooks.calls})
    except Exception as exc:
        found[name] = str(exc)
print(json.dumps(found))
"""


def project(package: Path) -> dict[str, Any]:
    return tomli.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def points(package: Path) -> dict[str, str]:
    """Its plugins: "module" or "module:object" by name."""
    found: dict[str, str] = project(package).get("entry-points", {}).get("mail_gateway", {})
    return found


def readme(package: Path) -> str:
    return (package / "README.md").read_text(encoding="utf-8")


def test_their_own_tests(environment: Environment, tmp_path: Path) -> None:
    """All in one process: the start of Python takes longer than the tests."""
    tests = [test for package in PACKAGES for test in package.glob("test_*.py")]
    assert len(tests) >= len(PACKAGES)
    assert "passed" in environment.test(*tests, cwd=tmp_path)


@pytest.fixture(scope="module")
def loaded(environment: Environment) -> dict[str, list[str] | str]:
    """The plugins of each README's configuration, or what is wrong with that."""
    texts = {
        package.name: configuration
        for package in PACKAGES
        for configuration in code("toml", readme(package))
        if package.name not in APPLICATIONS
    }
    found: dict[str, list[str] | str] = json.loads(environment.run("-c", LOAD, given=json.dumps(texts)))
    return found


@each
def test_its_readme(
    package: Path,
    environment: Environment,
    loaded: dict[str, list[str] | str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its configuration loads, with the plugin; its settings are all in the table, and no others."""
    plugins = points(package)
    assert bool(plugins) != (package.name in APPLICATIONS)
    if not plugins:
        return
    assert len(code("toml", readme(package))) == 1
    assert set(loaded[package.name]) >= plugins.keys(), loaded[package.name]
    documented = [rows for rows in tables(readme(package)) if "setting" in rows[0]]
    models = [settings(environment, value, monkeypatch) for value in plugins.values()]
    wanted = [model for model in models if model is not None]
    assert len(documented) == len(wanted)
    for model, rows in zip(wanted, documented, strict=True):
        check(model, rows)


def settings(environment: Environment, value: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of a plugin's settings; None if it has none."""
    name, _, attribute = value.partition(":")
    monkeypatch.syspath_prepend(environment.packages)
    module = importlib.import_module(name)
    return getattr(getattr(module, attribute) if attribute else module, "Settings", None)


APPLICATIONS = ("anymail",)  # that are no plugins: they use the gateway from outside


def test_each_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        assert f"]({package.name}/)" in listed
    names = [name for package in PACKAGES for name in points(package)]
    assert all(name.startswith("example.") for name in names)
    assert len(set(names)) == len(names)
