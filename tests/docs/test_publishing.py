"""What the built-in plugins import beside the public names is on the page, and nothing else."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import gateway
from tests.docs.pages import ROOT, tables, text

PLUGINS = ROOT / "plugins"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES: dict[str, str] = PROJECT["entry-points"]["mail_gateway"]


def file_of(module: str) -> Path | None:
    """The file of a module of a built-in plugin; None for any other."""
    base = PLUGINS.joinpath(*module.split("."))
    found = [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return found[0] if found else None


def imports(module: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """What a plugin's module imports from the gateway, also by others of its package: module, and name."""
    file = file_of(module)
    if file is None or module in seen:
        return
    seen.add(module)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((one.name, "") for one in node.names if one.name.partition(".")[0] == "gateway")
        elif isinstance(node, ast.ImportFrom):
            within = node.module or ""
            if within.partition(".")[0] == "gateway":
                yield from ((within, one.name) for one in node.names)
            else:
                for one in (within, *(f"{within}.{one.name}" for one in node.names)):
                    yield from imports(one, seen)


def group(module: str, name: str) -> str:
    """As the page names it; empty for what is public."""
    if module == "gateway" and name in gateway.__all__:
        return ""
    whole = f"{module}.{name}" if module == "gateway" else module
    for one in documented():
        if whole == one or whole.startswith(f"{one}."):
            return one
    return whole


def documented() -> dict[str, set[str]]:
    """The plugins by the group of modules that they use."""
    [rows] = [rows for rows in tables(text("plugins/publishing.md")) if "modules" in rows[0]]
    found = {}
    for row in rows:
        globs = [one.strip("` ") for one in row["by"].split(",")]
        found[row["modules"].strip("`")] = {
            name for name in NAMES if any(fnmatch(name, one) for one in globs)
        }
        assert all(any(fnmatch(name, one) for name in NAMES) for one in globs), row
    return found


def test_what_the_built_in_plugins_use_beside_the_public_names() -> None:
    used: dict[str, set[str]] = {}
    for name, value in NAMES.items():
        for module, imported in imports(value.partition(":")[0], set()):
            if one := group(module, imported):
                used.setdefault(one, set()).add(name)
    assert used == documented()
