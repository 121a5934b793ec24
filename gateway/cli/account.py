"""`gateway account`: accounts of a running gateway."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    CommandError,
    ask,
    dir_option,
    json_option,
    lifetime,
    print_table,
    printable,
    relative,
)
from gateway.model import SCOPES


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


@account.group()
def keys() -> None:
    """API keys of an account: for programs, instead of its password, and for some things only.

    \b
    Example: gateway account keys list mox
    """


@keys.command()
@click.argument("name")
@click.argument("key")
@dir_option
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What it may do; may be given again.",
)
@click.option("--expires-in", type=lifetime, help="How long it is valid: 12h, 90d. Not given: until revoked.")
@json_option
def add(
    name: str,
    key: str,
    directory: Path,
    scopes: tuple[str, ...],
    expires_in: timedelta | None,
    as_json: bool,
) -> None:
    """Make a key called KEY for account NAME, and print it: it can't be seen again.

    Programs give it as their password, with an address of the account as the user, or alone as a Bearer
    token.

    \b
    Example: gateway account keys add mox shop --scope send --scope events --expires-in 90d
    """
    request: dict[str, Any] = {"Account": name, "Name": key, "Scopes": list(dict.fromkeys(scopes))}
    if expires_in is not None:
        request["Seconds"] = expires_in.total_seconds()
    answer = ask(directory, "account/keys/add", request)
    click.echo(json.dumps(answer) if as_json else answer["Key"])


@keys.command("list")
@click.argument("name")
@dir_option
@json_option
def list_(name: str, directory: Path, as_json: bool) -> None:
    """List the keys of account NAME: what each may do, how long, and when it was used last.

    \b
    Example: gateway account keys list mox
    """
    answer = ask(directory, "account/keys/list", {"Account": name})
    if as_json:
        click.echo(json.dumps(answer))
    elif not answer["Keys"]:
        click.echo("no keys")
    else:
        print_table(
            ("KEY", "SCOPES", "MADE", "EXPIRES", "LAST USED"),
            [
                (
                    k["Name"],
                    ",".join(k["Scopes"]),
                    relative(k["Created"]),
                    relative(k["Expires"]),
                    relative(k["LastUsed"]),
                )
                for k in answer["Keys"]
            ],
        )


@keys.command()
@click.argument("name")
@click.argument("key")
@dir_option
def revoke(name: str, key: str, directory: Path) -> None:
    """Revoke the key called KEY of account NAME: nobody logs in with it any more.

    \b
    Example: gateway account keys revoke mox shop
    """
    ask(directory, "account/keys/revoke", {"Account": name, "Name": key})
    click.echo(f"key {printable(key)} of account {printable(name)} revoked")
