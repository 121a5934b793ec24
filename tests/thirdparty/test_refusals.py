"""What is wrong with plugins and their sets: the command exits with 1, and one line says it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.localserve import first_start
from tests.ports import free_port_base

# What is added to the configuration (after "sets" is replaced), and the line's end.
REFUSALS = {
    "an unknown set": (
        'sets = ["defualt", "localserve"]',
        "",
        "plugins.sets: there is no plugin set 'defualt'; did you mean 'default'?",
    ),
    "a plugin that is not installed": (
        'sets = ["default", "acme"]',
        '[plugin_sets.acme]\nplugins = ["acme.screeming"]',
        "plugins.sets: no plugin 'acme.screeming' is installed; did you mean 'acme.screening'?",
    ),
    "no plugin for a stage that is necessary": (
        'sets = ["acme"]',
        '[plugin_sets.acme]\ninclude = ["default"]\nwithout = ["mox.routing"]',
        "plugins.sets: none of its plugins has the hook 'route', which is necessary; add one that has",
    ),
    "an account's set without it": (
        'sets = ["default"]',
        """[plugin_sets.acme]
        plugins = ["acme.seal", "retry", "mox.webhook"]
        [accounts.acme]
        addresses = ["acme@localhost"]
        plugin_set = "acme" """,
        "plugin_sets.acme: none of its plugins has the hook 'route', which is necessary; add one that has",
    ),
    "a plugin that cannot be imported": (
        'sets = ["default", "acme"]',
        '[plugin_sets.acme]\nplugins = ["acme.faults.import"]',
        "plugin 'acme.faults.import' (acme-mail-plugins 1.0.0): cannot be imported: ModuleNotFoundError",
    ),
    "settings that are wrong": (
        'sets = ["default", "acme"]',
        """[plugin_sets.acme]
        plugins = ["acme.quarantine"]
        [plugin."acme.quarantine"]
        domain = ["x.example"]""",
        """plugin."acme.quarantine".domain: there is no such setting; did you mean 'domains'?""",
    ),
    "a policy that may not be": (
        'sets = ["default", "acme"]',
        """[plugin_sets.acme]
        plugins = ["acme.patience"]
        [plugin."acme.patience"]
        on_error = {retry = "defer"}""",
        """plugin."acme.patience".on_error.retry: must be 'fallback' or 'skip', not 'defer'""",
    ),
    "a transport type that no plugin has": (
        'sets = ["default", "localserve"]',
        '[transports.drop]\ntype = "maildrop"\ndirectory = "drop"',
        "transports.drop.type: there is no transport type 'maildrop'; the plugins in use offer: direct,",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_one_clear_line(case: str, tmp_path: Path, installed: Path) -> None:
    sets, added, line = REFUSALS[case]
    first_start(tmp_path, None, free_port_base(), None, None)
    config = tmp_path / "gateway.toml"
    usual = 'sets = ["default", "localserve"]'
    text = config.read_text()
    assert text.count(usual) == 1
    config.write_text(f"{text.replace(usual, sets)}\n{added}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "localserve", "--dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"gateway: {line}")
    assert done.stderr.count("\n") == 1
