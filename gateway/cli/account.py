"""`gateway account`: accounts of a running gateway."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.common import ask, dir_option


@click.group()
def account() -> None:
    """Accounts of a running gateway.

    \b
    Example: gateway account password mox
    """


@account.command()
@click.argument("name")
@dir_option
@click.option(
    "--password",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for when it is not given.",
)
def password(name: str, directory: Path, password: str) -> None:
    """Set an account's password.

    \b
    Example: gateway account password mox
    """
    ask(directory, "account/password", {"Account": name, "Password": password})
    click.echo(f"password of account {name} set")
