"""The commands of plugins: what becomes of the others when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.main import COMMANDS
from tests.commands import gateway

CONFIG = """
hostname = "mail.example.org"
[plugins]
sets = ["mine", "default"]
directory = "plugins"
[plugin_sets.mine]
plugins = ["acme.commands"]
[domains."example.org"]
[accounts.app]
addresses = ["app@example.org"]
"""
WRONG = {
    "raises": 'raise RuntimeError("cannot make\\n   commands")',
    "exits": "raise SystemExit(3)",
    "answers nonsense": 'return ["hello"]',
    "answers no command": 'return {"hello": print}',
}
SAID = {
    "raises": "raised RuntimeError: cannot make commands ({file}, line 5); repair it, or take it out of",
    "exits": "raised SystemExit: 3 ({file}, line 5); repair it, or take it out of",
    "answers nonsense": "answered list; expected Mapping or None; repair it",
    "answers no command": "answered ",
}


def configured(directory: Path, body: str) -> Path:
    """The plugin's file."""
    (directory / "plugins").mkdir(parents=True)
    (directory / "gateway.toml").write_text(CONFIG)
    file = directory / "plugins" / "acme.commands.py"
    file.write_text(f"import click\nfrom gateway import hookimpl\n@hookimpl\ndef commands():\n    {body}\n")
    return file


@pytest.mark.parametrize("how", WRONG)
def test_a_plugin_s_fault_leaves_all_other_commands(how: str, tmp_path: Path) -> None:
    file = configured(tmp_path, WRONG[how])
    helped = gateway("--help", GATEWAY_DIR=str(tmp_path))
    assert helped.returncode == 0
    assert all(f"\n  {name}" in helped.stdout for name in COMMANDS)
    [line] = helped.stderr.splitlines()
    said = SAID[how].format(file=file)
    assert line.startswith(
        f"gateway: the commands of plugins are left out: plugin 'acme.commands', hook 'commands': {said}"
    )


def test_what_needs_the_plugin_says_so_in_one_line(tmp_path: Path) -> None:
    configured(tmp_path, WRONG["raises"])
    for command, status in (
        (("plugins", "list"), 0),
        (("plugins", "hooks"), 1),
        (("plugins", "trace", "--to", "x@example.com"), 1),
        (("serve", "--dir", tmp_path), 1),
        (("queue", "list"), 1),
        (("no-such-command",), 2),
    ):
        done = gateway(*command, GATEWAY_DIR=str(tmp_path))
        assert done.returncode == status, command
        assert "Traceback" not in done.stderr
        expected = 1 if status == 1 else 0
        assert sum(line.startswith("gateway: ") for line in done.stderr.splitlines()) in (expected, 1), (
            command
        )


def test_a_command_of_a_plugin(tmp_path: Path) -> None:
    configured(tmp_path, 'return {"hello": click.Command("hello", callback=lambda: click.echo("hi"))}')
    assert gateway("hello", GATEWAY_DIR=str(tmp_path)).stdout == "hi\n"
    assert "\n  hello" in gateway("--help", GATEWAY_DIR=str(tmp_path)).stdout
