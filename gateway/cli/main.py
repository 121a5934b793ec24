"""The command `gateway`."""

from __future__ import annotations

import click

from gateway import __version__
from gateway.cli.account import account
from gateway.cli.localserve import localserve
from gateway.cli.queue import queue
from gateway.cli.webhook_receiver import webhook_receiver

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """A mail gateway: applications send and receive mail over HTTP and SMTP; plugins decide; webhooks report.

    \b
    Example: gateway localserve
    """


main.add_command(localserve)
main.add_command(webhook_receiver)
main.add_command(queue)
main.add_command(account)
