"""The third party's distribution: a plugin for each stage, by the gateway's public names only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gateway
from gateway import testing
from gateway.hookspecs import SPECS
from tests.packages.environment import ACME, Environment

MODULES = sorted((ACME / "acme_mail").glob("*.py"))
TEST = ACME / "test_acme.py"


def hooks_of(module: Path) -> Iterator[str]:
    """The hooks that a module's plugin takes."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            marks = [ast.unparse(decorator) for decorator in node.decorator_list]
            if any(mark.startswith("hookimpl") for mark in marks):
                yield node.name


def test_every_stage_is_taken_and_tested() -> None:
    working = [module for module in MODULES if module.name != "faults.py"]
    assert {hook for module in working for hook in hooks_of(module)} == set(SPECS)
    tests = re.findall(r"def test_(\w+)", TEST.read_text(encoding="utf-8"))
    tested = {hook for name in tests for hook in name.split("_and_")}
    assert tested == set(SPECS)


def test_it_uses_public_names_only() -> None:
    public = {"gateway": set(gateway.__all__), "gateway.testing": set(testing.__all__)}
    for file in [*MODULES, TEST]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(one.name.partition(".")[0].startswith("gateway") for one in node.names), file
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway"):
                assert {one.name for one in node.names} <= public[node.module or ""], file


def test_its_tests_pass_in_a_clean_environment(environment: Environment, tmp_path: Path) -> None:
    where = "import gateway, acme_mail; print(gateway.__file__); print(acme_mail.__file__)"
    for line in environment.run("-c", where).splitlines():
        assert Path(line).is_relative_to(environment.packages)
    said = environment.test(TEST, cwd=tmp_path)
    assert f"{TEST.read_text(encoding='utf-8').count('def test_')} passed" in said
