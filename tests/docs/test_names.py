"""What docs/ name is there: files, modules, classes, functions, settings; links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from gateway.config.settings import Settings
from gateway.hookspecs import SPECS
from tests.docs.pages import DOCS, PAGES, ROOT

IN_CODE = [DOCS / "design.md", DOCS / "way-of-a-message.md"]
SOURCES = [
    path
    for top in ("gateway", "plugins", "benchmarks", "tests")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "migrations/versions" not in str(path)
]
# Standing for themselves, not for something of ours.
OTHERS = {"def", "firstresult", "mox"}


def names_in_ticks(path: Path) -> list[str]:
    without_code = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    return sorted(set(re.findall(r"`([^`\n]+)`", without_code)))


# --- What there is --------------------------------------------------------------------------------


def _identifiers() -> Iterator[str]:
    """Everything that our sources define: functions, classes, fields, constants, arguments."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.arg):
                yield node.arg


IDENTIFIERS = set(_identifiers())


def _modules() -> dict[str, list[ModuleType]]:
    """Our modules by the last part of their names."""
    found = defaultdict(list)
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "plugins":
            parts = parts[1:]
        elif parts[0] != "gateway":
            continue
        if parts[-1] not in ("__init__", "__main__", "env"):
            found[parts[-1]].append(importlib.import_module(".".join(parts)))
    return found


MODULES = _modules()
CLASSES: Mapping[str, list[type]] = defaultdict(list)
for _module in (module for modules in MODULES.values() for module in modules):
    for _name, _value in vars(_module).items():
        if isinstance(_value, type):
            CLASSES[_name].append(_value)


def is_setting(dotted: str) -> bool:
    model: Any = Settings
    for part in dotted.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return False
        annotation = model.model_fields[part].annotation
        inner = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = inner[0] if inner else annotation
    return True


def has_path(holder: Any, parts: list[str]) -> bool:
    for part in parts:
        fields = getattr(holder, "__annotations__", {}) if isinstance(holder, type) else {}
        if not hasattr(holder, part) and part not in fields:
            return False
        holder = getattr(holder, part, None)
    return True


def exists(name: str) -> bool:
    first, *rest = name.removesuffix("()").split(".")
    if not rest:
        return first in IDENTIFIERS or first in SPECS or first in MODULES or is_setting(first)
    if first == "gateway":
        try:
            importlib.import_module(name)
        except ImportError:
            return has_path(importlib.import_module(name.rpartition(".")[0]), [rest[-1]])
        return True
    holders = [*MODULES.get(first, ()), *CLASSES[first]]
    return is_setting(name) or any(has_path(holder, rest) for holder in holders)


@pytest.mark.parametrize("path", IN_CODE, ids=[path.name for path in IN_CODE])
def test_names(path: Path) -> None:
    wrong = []
    for name in names_in_ticks(path):
        if re.fullmatch(r"[\w./-]+\.(py|toml|html|md)|[\w./-]+/", name):
            there = any((base / name).exists() for base in (ROOT, ROOT / "gateway", DOCS))
        elif re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?", name):
            there = name in OTHERS or exists(name)
        else:
            continue  # something else than a name: a header, an answer
        if not there:
            wrong.append(name)
    assert not wrong, " ".join(wrong)


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_files_and_settings(path: Path) -> None:
    """On any page: files in gateway/, and settings of the built-in sections."""
    for name in names_in_ticks(path):
        if re.fullmatch(r"(gateway|plugins|tests|conf|examples|benchmarks)/[\w./-]+", name):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"(smtp|web|queue|webhooks|plugins)\.\w+", name):
            assert is_setting(name) or exists(name), name


# --- Links ----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.+)$", without_code)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*/README.md")]:
        assert f"({page.relative_to(ROOT)})" in readme
