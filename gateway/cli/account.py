"""`gateway account`: accounts of a running gateway."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.common import CommandError, ask, dir_option, printable


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
    """Set an account's password: 8 to 1000 characters.

    \b
    Example: gateway account password mox
    """
    if not 8 <= len(password) <= 1000:
        raise CommandError("a password must have 8 to 1000 characters; nothing was changed")
    ask(directory, "account/password", {"Account": name, "Password": password})
    click.echo(f"password of account {printable(name)} set")
