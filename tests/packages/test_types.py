"""A plugin is checked by mypy as a third party does it: against the gateway's wheel, installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.packages.environment import Environment, run

PLUGIN = """
from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from gateway import (
    Address, ApiCall, ApiMethod, Authenticated, Credentials, Delivery, Outcome, QueuedMessage, Reject, Route,
    Submission, TransportType, hookimpl,
)


class Settings(BaseModel):
    transport: str = "backup"


@hookimpl
def route(message: QueuedMessage, settings: Settings) -> Route | None:
    return Route(settings.transport) if message.attempts > 3 else None


@hookimpl
async def submission(submission: Submission) -> Submission | Reject | None:
    return Reject(550, "5.7.1", "no") if "x" in submission.subject else None


@hookimpl(thread=True, limit=2.0)
def authenticate(credentials: Credentials) -> Authenticated | None:
    return Authenticated(account="app", address=Address.parse("a@b.example"))


class Nowhere:
    async def deliver(self, delivery: Delivery) -> list[Outcome]:
        return [Outcome.temporary("nowhere") for _ in delivery.messages]


@hookimpl
def transports() -> Mapping[str, TransportType]:
    return {"nowhere": TransportType(Settings, lambda name, settings, network: Nowhere())}
"""

WRONG = """
@hookimpl
def hold(submission: Submission) -> bool | None:
    return submission.no_such_field
"""


def check(plugin: Path, environment: Environment) -> str:
    options = (
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "--python-executable",
        environment.python,
    )
    cache = environment.directory.parent / "mypy"  # what is installed does not change
    return run(sys.executable, "-m", "mypy", *options, "--cache-dir", cache, plugin, cwd=plugin.parent)


def test_a_plugin_can_be_checked_strictly(environment: Environment, tmp_path: Path) -> None:
    assert (environment.packages / "gateway" / "py.typed").is_file()
    plugin = tmp_path / "acme_typed.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    assert "Success" in check(plugin, environment)
    plugin.write_text(PLUGIN + WRONG, encoding="utf-8")
    with pytest.raises(AssertionError, match='"Submission" has no attribute "no_such_field"'):
        check(plugin, environment)
