"""The command `gateway`."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from gateway import __version__

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
# The module of gateway.cli in which each is found, under its own name. Loaded when it is wanted: what
# localserve needs takes most of a second to import, and `gateway queue list` needs none of it.
COMMANDS = {
    "localserve": "localserve",
    "serve": "serve",
    "webhook-receiver": "webhook_receiver",
    "queue": "queue",
    "webhook": "webhook",
    "suppression": "suppression",
    "report": "report",
    "account": "account",
    "tail": "tail",
    "plugins": "plugins",
}


def _of_plugins() -> Mapping[str, click.Command]:
    """The commands of the plugins that the gateway in $GATEWAY_DIR uses; none if nothing is configured."""
    from gateway.cli.common import CONFIG_FILE, default_dir, printable

    directory = default_dir()
    if not (directory / CONFIG_FILE).exists():
        return {}
    # Only now: they take most of a second to import.
    from gateway.config.load import load
    from gateway.errors import GatewayError
    from gateway.plugins.loading import load_plugins

    try:
        commands = load_plugins(load(directory / CONFIG_FILE), directory).added.commands
    except GatewayError as exc:
        click.echo(f"gateway: the commands of plugins are left out: {printable(str(exc))}", err=True)
        return {}
    return {name: command for name, (_, command) in commands.items() if name not in COMMANDS}


@contextmanager
def _quiet_when_interrupted() -> Iterator[None]:
    """Ctrl-C ends with status 130 and no word; click would say "Aborted!", with status 1."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except click.Abort as exc:  # a prompt makes this of Ctrl-C, and of an input that ended
        if not isinstance(exc.__context__, KeyboardInterrupt):
            raise
        sys.exit(130)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_of_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = COMMANDS.get(cmd_name)
        if name is None:
            return _of_plugins().get(cmd_name)
        command: click.Command = getattr(import_module(f"gateway.cli.{name}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _quiet_when_interrupted():  # --help imports the commands
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _quiet_when_interrupted():
                return super().invoke(ctx)
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            from gateway.cli.common import CommandError

            what = exc.filename or "the output"
            raise CommandError(
                f"{what}: cannot be written ({exc.strerror}); make room, or write elsewhere"
            ) from None


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """A mail gateway: applications send and receive mail over HTTP and SMTP; plugins decide; webhooks report.

    \b
    Example: gateway localserve
    """
