"""`gateway serve`: a gateway as its configuration has it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from gateway.cli.common import CONFIG_FILE, CommandError, dir_option
from gateway.cli.serving import run, use_color
from gateway.config.load import load
from gateway.config.settings import ROLES, Settings
from gateway.errors import GatewayError
from gateway.net.listeners import Addresses

NAMES = {
    "smtp": "SMTP",
    "submission": "Submission, STARTTLS",
    "submissions": "Submission, TLS",
    "web": "Web API",
    "metrics": "Metrics",
}


@click.command()
@dir_option
@click.option("--no-color", is_flag=True, help="No colours, whatever the terminal.")
def serve(directory: Path, no_color: bool) -> None:
    """Run the gateway that gateway.toml in the directory describes, until SIGTERM or Ctrl-C.

    It says on one line each what it listens on, once it serves. `gateway localserve` writes a configuration
    to begin with; docs/configuration.md has all that can be set, and conf/ has examples.

    \b
    Example: gateway serve --dir /etc/gateway
    """
    try:
        settings = load(directory / CONFIG_FILE)
        run(settings, directory, partial(_greeting, settings), color=use_color(not no_color))
    except GatewayError as exc:
        raise CommandError(str(exc)) from None


def _greeting(settings: Settings, addresses: Addresses) -> str:
    lines = [
        f"{title + ':':<22} {', '.join(map(str, addresses[section]))}"
        for section, title in NAMES.items()
        if addresses[section]
    ]
    if settings.workers > 1:
        named = [role for role in ROLES if getattr(settings.roles, role)]
        roles = [f"{role}: {', '.join(map(str, settings.workers_with(role)))}" for role in named]
        lines.append(f"{'Workers:':<22} {'; '.join([str(settings.workers), *roles])}")
    return "\n".join(["The gateway serves.", *lines])
