"""`gateway queue`: look at the queue and act on it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    MESSAGE_ID,
    CommandError,
    ask,
    dir_option,
    duration,
    filter_options,
    filter_request,
    json_option,
    print_table,
    printable,
    relative,
)


@click.group()
def queue() -> None:
    """Look at the queue of a running gateway and act on it.

    \b
    Example: gateway queue list --to example.org
    """


@queue.command("list")
@dir_option
@filter_options
@click.option(
    "--sort", type=click.Choice(["next-attempt", "queued"]), default="next-attempt", show_default=True
)
@click.option("--desc", is_flag=True, help="Latest first.")
@click.option("--max", "maximum", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", default="", help="Go on after a page: what the page before ended with.")
@click.option("--retired", is_flag=True, help="Messages that have left the queue.")
@json_option
def list_(
    directory: Path,
    sort: str,
    desc: bool,
    maximum: int,
    cursor: str,
    retired: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """List messages, the next due first.

    \b
    Example: gateway queue list --account mox --next-attempt "<1h"
    """
    request = {
        "Filter": {**filter_request(**conditions), "State": "retired" if retired else "queued"},
        "Sort": {"next-attempt": "NextAttempt", "queued": "Queued"}[sort],
        "Asc": not desc,
        "Cursor": cursor,
        "Max": maximum,
    }
    answer = ask(directory, "queue/list", request)
    if as_json:
        click.echo(json.dumps(answer))
        return
    messages = answer["Messages"]
    if not messages:
        click.echo("no messages match" if filter_request(**conditions) else "no messages")
        return
    print_table(
        (
            "ID",
            "QUEUED",
            "HOLD",
            "FROM",
            "TO",
            "ATTEMPTS",
            "RESULT" if retired else "NEXT",
            "SUBJECT",
            "LAST ERROR",
        ),
        [
            (
                m["ID"],
                relative(m["Queued"]),
                "hold" if m["Hold"] else "-",
                m["Sender"] or "<>",
                m["Recipient"],
                m["Attempts"],
                m["RetiredAs"] if retired else _next(m),
                m["Subject"][:40],
                m["LastError"][:80],
            )
            for m in messages
        ],
    )
    if answer["NextCursor"]:
        click.echo(f"more: --cursor {answer['NextCursor']}")


def _next(message: dict[str, Any]) -> str:
    if message["Hold"]:
        return "when released"
    return "now" if message["Delivering"] else relative(message["NextAttempt"])


@queue.command()
@click.argument("message_id", type=MESSAGE_ID)
@dir_option
@json_option
def show(message_id: int, directory: Path, as_json: bool) -> None:
    """Show a message, queued or retired, with its attempts.

    \b
    Example: gateway queue show 12
    """
    answer = ask(directory, "queue/show", {"ID": message_id})
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name, value in answer["Message"].items():
        click.echo(f"{name + ':':<15} {printable(_shown(name, value))}")
    for attempt in answer["Attempts"]:
        click.echo(
            f"\nattempt {attempt['Number']}: {attempt['State']}, {relative(attempt['Start'])}, "
            f"{attempt['Duration']:.3f} s, transport {attempt['Transport'] or '-'}, "
            f"remote {printable(attempt['RemoteMTA']) or '-'}"
        )
        if attempt["Error"]:
            codes = (attempt["Code"] or "", attempt["EnhancedCode"])
            click.echo("  " + " ".join(printable(str(part)) for part in (*codes, attempt["Error"]) if part))
        for line in attempt["Transcript"].splitlines():
            click.echo(f"    {printable(line)}")


def _shown(name: str, value: Any) -> str:
    if value in (None, "", {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={entry}" for key, entry in value.items())
    if name in ("Queued", "LastAttempt", "NextAttempt", "LastActivity", "KeepUntil"):
        return f"{value} ({relative(value)})"
    return str(value)


def _act(directory: Path, command: str, conditions: dict[str, Any], everything: bool, **more: Any) -> None:
    request = filter_request(**conditions)
    if not request and not everything:
        raise CommandError("choose messages (--id, --to, ...), or --all for every message of the queue")
    affected = ask(directory, f"queue/{command}", {"Filter": request, **more})["Affected"]
    click.echo(_messages(affected))


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


all_option = click.option("--all", "everything", is_flag=True, help="Every message of the queue.")


@queue.command()
@dir_option
@filter_options
@all_option
def hold(directory: Path, everything: bool, **conditions: Any) -> None:
    """Put messages on hold: no attempt is made until they are released.

    \b
    Example: gateway queue hold --to example.org
    """
    _act(directory, "hold", conditions, everything)


@queue.command()
@dir_option
@filter_options
@all_option
def release(directory: Path, everything: bool, **conditions: Any) -> None:
    """Release messages from hold.

    \b
    Example: gateway queue release --id 12
    """
    _act(directory, "release", conditions, everything)


@queue.command()
@dir_option
@filter_options
@all_option
@click.option(
    "--in", "in_", type=duration, default="0s", show_default=True, help="From now: 90s, 7.5m, 1h30m, 2d."
)
def schedule(directory: Path, everything: bool, in_: timedelta, **conditions: Any) -> None:
    """Set when the next attempt is made.

    \b
    Example: gateway queue schedule --to example.org --in 1h
    """
    _act(directory, "schedule", conditions, everything, Seconds=in_.total_seconds())


@queue.command()
@dir_option
@filter_options
@all_option
def drop(directory: Path, everything: bool, **conditions: Any) -> None:
    """Remove messages from the queue; the account hears of it as event canceled.

    \b
    Example: gateway queue drop --id 12
    """
    _act(directory, "drop", conditions, everything)


@queue.group("hold-rules")
def hold_rules() -> None:
    """Rules that put messages on hold as they are queued.

    \b
    Example: gateway queue hold-rules add --to-domain example.org
    """


@hold_rules.command("add")
@dir_option
@click.option("--account", default="", help="Account that sends.")
@click.option("--from-domain", default="", help="Sender's domain.")
@click.option("--to-domain", default="", help="Recipient's domain.")
@click.option("--all", "everything", is_flag=True, help="A rule that matches everything: pauses the queue.")
def add_rule(directory: Path, account: str, from_domain: str, to_domain: str, everything: bool) -> None:
    """Hold what matches all that is given, what is queued already included.

    \b
    Example: gateway queue hold-rules add --account mox --to-domain example.org
    """
    if not (account or from_domain or to_domain or everything):
        raise CommandError("give --account, --from-domain or --to-domain, or --all to pause the whole queue")
    request = {"Account": account, "SenderDomain": from_domain, "RecipientDomain": to_domain}
    answer = ask(directory, "queue/hold-rules/add", request)
    click.echo(f"hold rule {answer['ID']} added; {_messages(answer['Affected'])} of the queue put on hold")


@hold_rules.command("list")
@dir_option
@json_option
def list_rules(directory: Path, as_json: bool) -> None:
    """List the hold rules.

    \b
    Example: gateway queue hold-rules list
    """
    rules = ask(directory, "queue/hold-rules/list", {})["Rules"]
    if as_json:
        click.echo(json.dumps(rules))
    elif not rules:
        click.echo("no hold rules")
    else:
        print_table(
            ("ID", "ACCOUNT", "FROM DOMAIN", "TO DOMAIN"),
            [
                (r["ID"], r["Account"] or "any", r["SenderDomain"] or "any", r["RecipientDomain"] or "any")
                for r in rules
            ],
        )


@hold_rules.command("remove")
@click.argument("rule_id", type=MESSAGE_ID)
@dir_option
def remove_rule(rule_id: int, directory: Path) -> None:
    """Remove a hold rule. Messages that it held stay on hold: release them.

    \b
    Example: gateway queue hold-rules remove 1
    """
    ask(directory, "queue/hold-rules/remove", {"ID": rule_id})
    click.echo(f"hold rule {rule_id} removed; messages on hold stay so: gateway queue release")
