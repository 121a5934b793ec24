"""`gateway queue`: look at the queue and act on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    POSITIVE,
    CommandError,
    act,
    ask,
    dir_option,
    duration,
    filter_options,
    given,
    json_option,
    options,
    page_options,
    page_request,
    print_excerpt,
    print_fields,
    print_more,
    print_table,
    print_text,
    printable,
    relative,
    time_bound,
)
from gateway.cli.hold_rules import hold_rules

TIMES = ("Queued", "LastAttempt", "NextAttempt", "LastActivity", "KeepUntil")


@click.group()
def queue() -> None:
    """Look at the queue of a running gateway and act on it.

    \b
    Example: gateway queue list --to example.org
    """


queue.add_command(hold_rules)


@queue.command("list")
@dir_option
@filter_options
@page_options("next-attempt", "queued")
@click.option("--retired", is_flag=True, help="Messages that have left the queue.")
@click.option("--success/--failed", default=None, help="Only retired messages that arrived, or did not.")
@click.option(
    "--last-activity", type=time_bound, help="Only retired messages of which something was last known then."
)
@json_option
def list_(
    directory: Path,
    sort: str,
    desc: bool,
    maximum: int,
    cursor: str,
    retired: bool,
    success: bool | None,
    last_activity: dict[str, str] | None,
    as_json: bool,
    **conditions: Any,
) -> None:
    """List messages, the next due first.

    \b
    Example: gateway queue list --account mox --next-attempt "<1h"
    """
    if not retired and (success is not None or last_activity):
        raise click.UsageError("--success, --failed and --last-activity are of messages that are --retired")
    wanted = given(conditions | {"Success": success, "LastActivity": last_activity})
    request = {"Filter": {**wanted, "State": "retired" if retired else "queued"}}
    answer = ask(directory, "queue/list", request | page_request(sort, desc, maximum, cursor))
    if as_json:
        click.echo(json.dumps(answer))
        return
    if not answer["Messages"]:
        click.echo("no messages match" if wanted else "no messages")
        return
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "ID": lambda m: m["ID"],
        "QUEUED": lambda m: relative(m["Queued"]),
        **(
            {"LAST ACTIVITY": lambda m: relative(m["LastActivity"])}
            if retired
            else {"HOLD": lambda m: "hold" if m["Hold"] else "-"}
        ),
        "FROM": lambda m: m["Sender"] or "<>",
        "TO": lambda m: m["Recipient"],
        "ATTEMPTS": lambda m: m["Attempts"],
        **({"RESULT": lambda m: m["RetiredAs"]} if retired else {"NEXT": _next}),
        "SUBJECT": lambda m: m["Subject"][:40],
        "LAST ERROR": lambda m: m["LastError"][:80],
    }
    print_table([*columns], [[cell(m) for cell in columns.values()] for m in answer["Messages"]])
    print_more(answer["NextCursor"])


def _next(message: dict[str, Any]) -> str:
    if message["Hold"]:
        return "when released"
    return "now" if message["Delivering"] else relative(message["NextAttempt"])


@queue.command()
@click.argument("message_id", type=POSITIVE)
@dir_option
@click.option("--content", is_flag=True, help="How the message begins, its header fields first.")
@json_option
def show(message_id: int, directory: Path, content: bool, as_json: bool) -> None:
    """Show a message, queued or retired, with its attempts.

    \b
    Example: gateway queue show 12
    """
    answer = ask(directory, "queue/show", {"ID": message_id, "Content": content})
    if as_json:
        click.echo(json.dumps(answer))
        return
    print_fields(answer["Message"], TIMES)
    for attempt in answer["Attempts"]:
        _show_attempt(attempt)
    if content and answer["Content"] is None:
        click.echo("\ncontent: not kept any more")
    elif content:
        print_excerpt("content", answer["Content"])


def _show_attempt(attempt: dict[str, Any]) -> None:
    if attempt["Number"]:
        click.echo(
            f"\nattempt {attempt['Number']}: {attempt['State']}, {relative(attempt['Start'])}, "
            f"{attempt['Duration']:.3f} s, transport {printable(attempt['Transport']) or '-'}, "
            f"remote {_remote(attempt)}"
        )
    else:  # what was no attempt of ours
        click.echo(f"\nnoted {relative(attempt['Start'])}:")
    if attempt["Error"]:
        codes = (attempt["Code"] or "", attempt["EnhancedCode"])
        click.echo("  " + " ".join(printable(str(part)) for part in (*codes, attempt["Error"]) if part))
    print_text(attempt["Transcript"])


def _remote(attempt: dict[str, Any]) -> str:
    """The server, its address if that says more, and TLS with what the server was verified by."""
    host, address = printable(attempt["RemoteMTA"]), printable(attempt["RemoteIP"])
    server = f"{host}[{address}]" if address not in ("", host) else host or "-"
    return ", ".join(part for part in (server, printable(attempt["TLS"])) if part)


# --- Actions on all that match ---------------------------------------------------------------------

_choice = options(
    dir_option,
    filter_options,
    click.option("--all", "everything", is_flag=True, help="Every message of the queue."),
    click.option("--max", "Max", type=POSITIVE, help="At most this many, those queued first."),
)


def _act(directory: Path, command: str, everything: bool, conditions: dict[str, Any], **more: Any) -> None:
    more["Max"] = conditions.pop("Max")
    if not given(conditions) and not everything:
        raise CommandError("choose messages (--id, --to, ...), or --all for every message of the queue")
    act(directory, f"queue/{command}", "message", conditions, **more)


@queue.command()
@_choice
def hold(directory: Path, everything: bool, **conditions: Any) -> None:
    """Put messages on hold: no attempt is made until they are released.

    \b
    Example: gateway queue hold --to example.org
    """
    _act(directory, "hold", everything, conditions)


@queue.command()
@_choice
def release(directory: Path, everything: bool, **conditions: Any) -> None:
    """Release messages from hold.

    \b
    Example: gateway queue release --id 12
    """
    _act(directory, "release", everything, conditions)


@queue.command()
@_choice
@click.option("--in", "in_", type=duration, help="From now: 90s, 7.5m, 1h30m, 2d; now, if it is not given.")
@click.option("--add", type=duration, help="Later than it is due by this, instead of from now.")
def schedule(
    directory: Path, everything: bool, in_: timedelta | None, add: timedelta | None, **conditions: Any
) -> None:
    """Set when the next attempt is made. One that is under way is left alone.

    \b
    Example: gateway queue schedule --to example.org --in 1h
    """
    if in_ is not None and add is not None:
        raise click.UsageError("give either --in or --add")
    if add is not None:
        _act(directory, "schedule", everything, conditions, Add=add.total_seconds())
    else:
        _act(directory, "schedule", everything, conditions, Seconds=(in_ or timedelta()).total_seconds())


@queue.command()
@_choice
@click.option("--set", "name", required=True, help='[transports.NAME] of gateway.toml; "": routes decide.')
def transport(directory: Path, everything: bool, name: str, **conditions: Any) -> None:
    """Set the transport of messages, from the next attempt on.

    \b
    Example: gateway queue transport --to example.org --set smarthost
    """
    _act(directory, "transport", everything, conditions, Transport=name)


@queue.command("require-tls")
@click.argument("value", type=click.Choice(["yes", "no", "default"]))
@_choice
def require_tls(value: str, directory: Path, everything: bool, **conditions: Any) -> None:
    """Set whether messages may only go over verified TLS, from the next attempt on.

    "no" lets them go whatever the recipient's domain asks for; "default" keeps to what it asks for.

    \b
    Example: gateway queue require-tls yes --id 12
    """
    wanted = {"yes": True, "no": False, "default": None}[value]
    _act(directory, "require-tls", everything, conditions, RequireTLS=wanted)


@queue.command()
@_choice
def fail(directory: Path, everything: bool, **conditions: Any) -> None:
    """Give up on messages; the account hears of it as event failed.

    \b
    Example: gateway queue fail --to example.org
    """
    _act(directory, "fail", everything, conditions)


@queue.command()
@_choice
def drop(directory: Path, everything: bool, **conditions: Any) -> None:
    """Remove messages from the queue; the account hears of it as event canceled.

    \b
    Example: gateway queue drop --id 12
    """
    _act(directory, "drop", everything, conditions)
