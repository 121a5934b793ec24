"""The command `gateway`."""

from __future__ import annotations

from importlib import import_module

import click

from gateway import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
# The module of gateway.cli in which each is found, under its own name. Loaded when it is wanted: what
# localserve needs takes most of a second to import, and `gateway queue list` needs none of it.
COMMANDS = {
    "localserve": "localserve",
    "webhook-receiver": "webhook_receiver",
    "queue": "queue",
    "webhook": "webhook",
    "suppression": "suppression",
    "report": "report",
    "account": "account",
    "plugins": "plugins",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = COMMANDS.get(cmd_name)
        if name is None:
            return None
        command: click.Command = getattr(import_module(f"gateway.cli.{name}"), name)
        return command


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """A mail gateway: applications send and receive mail over HTTP and SMTP; plugins decide; webhooks report.

    \b
    Example: gateway localserve
    """
