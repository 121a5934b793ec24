"""docs/plugins/tutorial.md, followed: the package is made, built, installed where it is alone, and used."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.packages.environment import ROOT, Environment, build, make_environment, run
from tests.thirdparty import page

TEXT = page.PAGES["tutorial.md"]
PARTS = page.sections(TEXT, 2)


def block(part: str, kind: str) -> str:
    [found] = (page.code(kind, body) for title, body in PARTS.items() if title.startswith(part))
    return found[0]


def gateway(environment: Environment, *arguments: str | Path, cwd: Path) -> str:
    return environment.run("-m", "gateway", *arguments, cwd=cwd)


def test_it_can_be_followed(tmp_path: Path, environment: Environment) -> None:
    # 1. A package.
    make, enter = block("1.", "sh").splitlines()
    arguments = shlex.split(make)
    assert arguments.pop(0) == "gateway"
    gateway(environment, *arguments, cwd=tmp_path)
    package = tmp_path / enter.removeprefix("cd ")
    # 2. and 3. The plugin and its tests.
    for part, file in (("2.", "acme_newsletters.py"), ("3.", "test_acme_newsletters.py")):
        assert (package / file).exists()
        assert f"`{file}`" in TEXT
        (package / file).write_text(block(part, "python"), encoding="utf-8")
    # 5. Built, and installed into an environment that has nothing else but the gateway.
    [wheel] = build(tmp_path, package)
    assert wheel.name.startswith("acme_newsletters-")
    [ours] = (environment.directory.parent / "wheels").glob("mail_gateway-[0-9]*.whl")
    clean = make_environment(tmp_path / "clean", ours, wheel)
    assert "4 passed" in clean.test(package / "test_acme_newsletters.py", cwd=tmp_path)
    # 4. In a gateway.
    (tmp_path / "gateway.toml").write_text(block("4.", "toml"), encoding="utf-8")
    [said] = (body for title, body in PARTS.items() if title.startswith("4."))
    shown = re.findall(r"(?s)```\n(.*?)```", re.sub(r"(?s)```(\w+)\n.*?```", "", said))
    trace = shlex.split(block("4.", "sh"))[1:]
    assert len(shown) == 2
    for sender, lines in zip(("news@example.org", "shop@example.org"), shown, strict=True):
        asked = [sender if word == "news@example.org" else word for word in trace]
        answer = gateway(clean, *asked, "--dir", tmp_path, cwd=tmp_path)
        assert without_times(lines) in without_times(answer)


def without_times(text: str) -> str:
    return re.sub(r"\(\d+ us\)", "(us)", text)


def test_its_package_is_formatted_as_ours(tmp_path: Path) -> None:
    for number, source in enumerate(page.code("python", TEXT)):
        (tmp_path / f"block{number}.py").write_text(source, encoding="utf-8")
    options = ("--config", ROOT / "pyproject.toml", "--check", tmp_path)
    run(sys.executable, "-m", "ruff", "format", *options)
