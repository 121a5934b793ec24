"""`gateway suppression`: whom an account does not send to."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import ask, dir_option, duration, json_option, print_table, printable, relative

account_option = click.option(
    "--account", default="", help="Account name.", show_default="the only account there is"
)


@click.group()
def suppression() -> None:
    """The suppression list of an account of a running gateway: addresses that it sends nothing to.

    \b
    Example: gateway suppression list
    """


@suppression.command("list")
@dir_option
@account_option
@click.option("--max", "maximum", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", default="", help="Go on after a page: what the page before ended with.")
@json_option
def list_(directory: Path, account: str, maximum: int, cursor: str, as_json: bool) -> None:
    """List the addresses, by base address.

    \b
    Example: gateway suppression list --account mox
    """
    request = {"Account": account, "Cursor": cursor, "Max": maximum}
    answer = ask(directory, "suppression/list", request)
    if as_json:
        click.echo(json.dumps(answer))
        return
    entries = answer["Suppressions"]
    if not entries:
        click.echo("no addresses")
        return
    print_table(
        ("BASE ADDRESS", "ADDED", "BY", "EXPIRES", "ADDRESS", "REASON"),
        [
            (
                e["BaseAddress"],
                relative(e["Created"]),
                _by(e),
                relative(e["Expires"]),
                e["OriginalAddress"],
                e["Reason"][:80],
            )
            for e in entries
        ],
    )
    if answer["NextCursor"]:
        click.echo(f"more: --cursor {printable(answer['NextCursor'])}")


@suppression.command()
@click.argument("address")
@dir_option
@account_option
@click.option("--reason", default="", help="Why, for people.")
@click.option("--expires-in", type=duration, help="How long: 12h, 30d.", show_default="until it is removed")
def add(address: str, directory: Path, account: str, reason: str, expires_in: timedelta | None) -> None:
    """Add an address: nothing is sent to it, nor to others with the same base address.

    \b
    Example: gateway suppression add ada@example.org --reason "asked for it" --expires-in 90d
    """
    request: dict[str, Any] = {"Account": account, "Address": address, "Reason": reason}
    if expires_in is not None:
        request["Seconds"] = expires_in.total_seconds()
    entry = ask(directory, "suppression/add", request)["Suppression"]
    base = f" as {printable(entry['BaseAddress'])}" if entry else ""
    click.echo(f"{printable(address)} added{base}")


@suppression.command()
@click.argument("address")
@dir_option
@account_option
def remove(address: str, directory: Path, account: str) -> None:
    """Remove an address: from the next attempt on, mail is sent to it again.

    \b
    Example: gateway suppression remove ada@example.org
    """
    ask(directory, "suppression/remove", {"Account": account, "Address": address})
    click.echo(f"{printable(address)} removed")


@suppression.command()
@click.argument("address")
@dir_option
@account_option
@json_option
def lookup(address: str, directory: Path, account: str, as_json: bool) -> None:
    """Say whether an address is suppressed, and why.

    \b
    Example: gateway suppression lookup ada@example.org
    """
    answer = ask(directory, "suppression/lookup", {"Account": account, "Address": address})
    entry = answer["Suppression"]
    if as_json:
        click.echo(json.dumps(answer))
    elif entry is None:
        click.echo(f"{printable(address)} is not suppressed")
    else:
        lines = {
            "Base address": entry["BaseAddress"],
            "Address": entry["OriginalAddress"],
            "Added": f"{entry['Created']} ({relative(entry['Created'])}), {_by(entry)}",
            "Expires": relative(entry["Expires"]) if entry["Expires"] else "never",
            "Reason": entry["Reason"] or "-",
        }
        click.echo(f"{printable(address)} is suppressed")
        for name, value in lines.items():
            click.echo(f"{name + ':':<14} {printable(value)}")


def _by(entry: dict[str, Any]) -> str:
    return "manually" if entry["Manual"] else "automatically"
