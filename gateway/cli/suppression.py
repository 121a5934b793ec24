"""`gateway suppression`: whom an account does not send to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from gateway.cli import suppression_csv as csv_files
from gateway.cli.common import (
    Ask,
    CommandError,
    ask,
    asker,
    dir_option,
    json_option,
    lifetime,
    print_more,
    print_table,
    printable,
    relative,
)

account_option = click.option(
    "--account", default="", help="Account name.", show_default="the only account there is"
)
file_option = click.option("--file", "path", help="CSV file with a column address, or - for standard input.")
skip_option = click.option("--skip-wrong", is_flag=True, help="Leave out lines that are wrong.")

list_option = click.option(
    "--list", "list_name", default="", help="Mailing list.", show_default="all that the account sends"
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
        ("BASE ADDRESS", "ADDED", "BY", "EXPIRES", "LIST", "ADDRESS", "REASON"),
        [
            (
                e["BaseAddress"],
                relative(e["Created"]),
                _by(e),
                relative(e["Expires"]),
                e["List"] or "all",
                e["OriginalAddress"],
                e["Reason"][:80],
            )
            for e in entries
        ],
    )
    print_more(answer["NextCursor"])


@suppression.command()
@click.argument("address")
@dir_option
@account_option
@list_option
@click.option("--reason", default="", help="Why, for people.")
@click.option("--expires-in", type=lifetime, help="How long: 12h, 30d.", show_default="until it is removed")
def add(
    address: str, directory: Path, account: str, list_name: str, reason: str, expires_in: timedelta | None
) -> None:
    """Add an address: nothing is sent to it, nor to others with the same base address.

    One that begins with - comes after --, so that it is not taken for an option.

    \b
    Example: gateway suppression add ada@example.org --reason "asked for it" --expires-in 90d
    Example: gateway suppression add --reason "asked for it" -- -ada@example.org
    """
    request: dict[str, Any] = {"Account": account, "Address": address, "List": list_name, "Reason": reason}
    if expires_in is not None:
        request["Seconds"] = expires_in.total_seconds()
    entry = ask(directory, "suppression/add", request)["Suppression"]
    base = f" as {printable(entry['BaseAddress'])}" if entry else ""
    click.echo(f"{printable(address)} added{base}")


@suppression.command()
@click.argument("address", required=False)
@file_option
@dir_option
@account_option
@list_option
@skip_option
def remove(
    address: str | None, path: str | None, directory: Path, account: str, list_name: str, skip_wrong: bool
) -> None:
    """Remove an address, or all of a CSV file: from the next attempt on, mail is sent to it again.

    An address that begins with - comes after --, so that it is not taken for an option.

    \b
    Example: gateway suppression remove ada@example.org
    Example: gateway suppression remove -- -ada@example.org
    """
    _one_of(address, path)
    if path is None:
        ask(directory, "suppression/remove", {"Account": account, "Address": address, "List": list_name})
        click.echo(f"{printable(address or '')} removed")
        return
    removed, total = 0, 0
    for asked, answer in _in_steps(
        directory, account, path, "remove-many", list_name=list_name, skip_wrong=skip_wrong
    ):
        removed, total = removed + answer["Removed"], total + len(asked)
    click.echo(f"{removed} removed, {total - removed} not on the list")


@suppression.command()
@click.argument("address", required=False)
@file_option
@dir_option
@account_option
@list_option
@skip_option
@json_option
def lookup(
    address: str | None,
    path: str | None,
    directory: Path,
    account: str,
    list_name: str,
    skip_wrong: bool,
    as_json: bool,
) -> None:
    """Say whether an address is suppressed, and why. Of a CSV file's addresses, print those that are, as CSV.

    An address that begins with - comes after --, so that it is not taken for an option.

    \b
    Example: gateway suppression lookup ada@example.org
    Example: gateway suppression lookup -- -ada@example.org
    """
    _one_of(address, path)
    if path is not None:
        found = _in_steps(directory, account, path, "lookup-many", list_name=list_name, skip_wrong=skip_wrong)
        first = list(islice(found, 1))  # so that nothing is written if the file is refused
        writer = csv_files.write_header(sys.stdout, "asked", *csv_files.COLUMNS)
        for asked, answer in chain(first, found):
            for one, entry in zip(asked, answer["Suppressions"], strict=True):
                if entry is not None:
                    writer.writerow([one["Address"], *csv_files.cells(entry, plain=sys.stdout.isatty())])
        return
    answer = ask(directory, "suppression/lookup", {"Account": account, "Address": address, "List": list_name})
    entry = answer["Suppression"]
    if as_json:
        click.echo(json.dumps(answer))
    elif entry is None:
        click.echo(f"{printable(address or '')} is not suppressed")
    else:
        lines = {
            "Base address": entry["BaseAddress"],
            "Address": entry["OriginalAddress"],
            "Added": f"{entry['Created']} ({relative(entry['Created'])}), {_by(entry)}",
            "Expires": relative(entry["Expires"]) if entry["Expires"] else "never",
            "List": entry["List"] or "all",
            "Reason": entry["Reason"] or "-",
        }
        click.echo(f"{printable(address or '')} is suppressed")
        for name, value in lines.items():
            click.echo(f"{name + ':':<14} {printable(value)}")


@suppression.command("import")
@click.argument("path", metavar="FILE")
@dir_option
@account_option
@click.option("--reason", default="", help="For lines without one.")
@click.option("--expires-in", type=lifetime, help="For lines without an end: how long, as 12h or 30d.")
@skip_option
def import_(
    path: str, directory: Path, account: str, reason: str, expires_in: timedelta | None, skip_wrong: bool
) -> None:
    """Add the addresses of a CSV file, or of standard input (-).

    Its first line names the columns. One is address (or email); reason, manual (true or false), created,
    expires and list may be there too, others are ignored: it reads what export writes. A file of addresses
    only, one in each line, needs no first line. What is on the list already stays as it is. All lines are
    checked first: if one is wrong, nothing is added.

    \b
    Example: gateway suppression import bounced.csv --reason "from the old system"
    """
    if len(reason) > csv_files.MAX_REASON or "\0" in reason:
        raise CommandError(f"--reason: has more than {csv_files.MAX_REASON} characters, or a NUL")
    until = (datetime.now(UTC) + expires_in).isoformat() if expires_in is not None else None

    def complete(entry: dict[str, Any]) -> dict[str, Any]:
        defaults = {"Expires": until} if until else {}
        return defaults | entry | {"Reason": entry["Reason"] or reason}

    added, expired, total = 0, 0, 0
    for entries, answer in _in_steps(directory, account, path, "import", complete, skip_wrong=skip_wrong):
        added, expired = added + answer["Added"], expired + answer["Expired"]
        total += len(entries)
    ended = f", {expired} expired" if expired else ""
    click.echo(f"{added} added, {total - added - expired} on the list already{ended}")


@suppression.command()
@dir_option
@account_option
@click.option("--output", "path", type=click.Path(dir_okay=False), help="In place of the terminal.")
def export(directory: Path, account: str, path: str | None) -> None:
    """Write the list as CSV, which import reads.

    \b
    Example: gateway suppression export --output suppressed.csv
    """
    pages = _pages(asker(directory), account)
    first = next(pages)  # so that no file is made if there is nothing to write it from
    try:
        with nullcontext(sys.stdout) if path is None else Path(path).open("w", encoding="utf-8") as out:
            writer = csv_files.write_header(out, *csv_files.COLUMNS)
            progress = None if out.isatty() else csv_files.Progress()
            for page in chain([first], pages):
                writer.writerows(csv_files.cells(entry, plain=out.isatty()) for entry in page)
                if progress is not None:
                    progress.add(len(page))
            if progress is not None:
                progress.end()
    except BrokenPipeError:  # who reads has seen enough: click ends quietly
        raise
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror}; name a file that can be written") from None


def _one_of(address: str | None, path: str | None) -> None:
    if (address is None) == (path is None):
        raise click.UsageError("give an address, or a file with --file")


def _in_steps(
    directory: Path,
    account: str,
    path: str,
    command: str,
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    *,
    list_name: str = "",
    skip_wrong: bool,
) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """What was asked, and what was answered, a few hundred lines at a time. Without `complete` only the
    addresses are asked about. Raises CommandError."""
    with csv_files.opened(path) as file:
        total = csv_files.check(file, path, skip_wrong=skip_wrong)
        gateway = asker(directory)
        for entries in csv_files.steps(file, path, total):
            if complete is not None:
                request: dict[str, Any] = {"Entries": [complete(entry) for entry in entries]}
            else:
                request = {"Addresses": [entry["Address"] for entry in entries], "List": list_name}
            yield entries, gateway(f"suppression/{command}", {"Account": account, **request})


def _pages(gateway: Ask, account: str) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        answer = gateway("suppression/list", {"Account": account, "Cursor": cursor, "Max": 1000})
        yield answer["Suppressions"]
        cursor = answer["NextCursor"]
        if not cursor:
            return


def _by(entry: dict[str, Any]) -> str:
    return "manually" if entry["Manual"] else "automatically"
