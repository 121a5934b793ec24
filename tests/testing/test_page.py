"""docs/plugins/testing.md: its tests pass, and it names all that there is."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

from gateway import testing
from gateway.testing import FakeTransport, Happened, RunningGateway, ScriptedMx, WebhookReceiver, conformance
from tests.thirdparty import page

TEXT = page.PAGES["testing.md"]


def test_its_module_passes(tmp_path: Path) -> None:
    source = "\n\n".join(page.code("python", TEXT))
    (tmp_path / "test_page.py").write_text(source, encoding="utf-8")
    [configuration] = page.code("toml", TEXT)
    (tmp_path / "pyproject.toml").write_text(configuration, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) > source.count("\ndef test_") + source.count("\nasync def test_")  # and the suites


def test_a_first_test_is_short() -> None:
    _, test = page.code("python", page.sections(TEXT, 2)["A first test"])
    [function] = re.findall(r"(?s)async def .*", test)
    assert len(function.strip().splitlines()) < 10


def test_every_name_is_on_the_page() -> None:
    suites = [name for name in vars(conformance) if name.endswith("Suite")]
    names = page.sections(TEXT, 2)["Names"]
    for name in [*testing.__all__, *suites]:
        assert re.search(rf"`{name}`", names), name
    for kind in (RunningGateway, FakeTransport, ScriptedMx, WebhookReceiver):
        public = [name for name in dir(kind) if not name.startswith("_")]
        for name in set(public) - PROTOCOLS[kind.__name__]:
            assert re.search(rf"`{name}\b", names), f"{kind.__name__}.{name}"
    [rows] = page.tables(page.sections(TEXT, 2)["What happened"])
    assert {row["field"]: row["type"] for row in rows} == {
        field.name: field.type for field in dataclasses.fields(Happened)
    }
    for method in (RunningGateway.deliver, RunningGateway.receive):
        for parameter in set(inspect.signature(method).parameters) - {"self", "message", "data"}:
            assert re.search(rf"`{parameter}`", names), parameter


# What others call, not tests.
PROTOCOLS = {
    "RunningGateway": set[str](),
    "FakeTransport": {"deliver", "name"},
    "ScriptedMx": {"connected", "mail", "rcpt", "open_data", "take"},
    "WebhookReceiver": {"app"},
}
