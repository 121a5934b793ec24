"""`gateway webhook`: look at the queue of webhook calls and act on it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    MESSAGE_ID,
    CommandError,
    act,
    ask,
    call_filter_options,
    dir_option,
    duration,
    given,
    json_option,
    options,
    page_options,
    page_request,
    print_excerpt,
    print_fields,
    print_table,
    print_text,
    printable,
    relative,
)

TIMES = ("Submitted", "NextAttempt", "LastActivity", "KeepUntil")


@click.group()
def webhook() -> None:
    """Look at the webhook calls of a running gateway and act on those that wait.

    \b
    Example: gateway webhook list --event failed
    """


@webhook.command("list")
@dir_option
@call_filter_options
@page_options("next-attempt", "submitted")
@click.option("--retired", is_flag=True, help="Calls that are over.")
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
    """List webhook calls, the next due first.

    \b
    Example: gateway webhook list --account mox --submitted "<-1h"
    """
    wanted = given(conditions)
    request = {"Filter": {**wanted, "State": "retired" if retired else "queued"}}
    answer = ask(directory, "webhook/list", request | page_request(sort, desc, maximum, cursor))
    if as_json:
        click.echo(json.dumps(answer))
        return
    if not answer["Calls"]:
        click.echo("no calls match" if wanted else "no calls")
        return
    print_table(
        (
            "ID",
            "SUBMITTED",
            "ACCOUNT",
            "EVENT",
            "MESSAGE",
            "ATTEMPTS",
            "RESULT" if retired else "NEXT",
            "URL",
            "ERROR",
        ),
        [
            (
                call["ID"],
                relative(call["Submitted"]),
                call["Account"],
                call["Event"],
                call["QueueMsgID"] or "-",
                call["Attempts"],
                _result(call) if retired else _next(call),
                call["URL"][:60],
                call["Error"][:80],
            )
            for call in answer["Calls"]
        ],
    )
    if answer["NextCursor"]:
        click.echo(f"more: --cursor {printable(answer['NextCursor'])}")


def _next(call: dict[str, Any]) -> str:
    return "now" if call["Calling"] else relative(call["NextAttempt"])


def _result(call: dict[str, Any]) -> str:
    if call["Success"]:
        return "success"
    if call["SupersededBy"]:
        return f"superseded by {call['SupersededBy']}"
    return "failed" if call["Success"] is False else "not sent"


@webhook.command()
@click.argument("call_id", type=MESSAGE_ID)
@dir_option
@json_option
def show(call_id: int, directory: Path, as_json: bool) -> None:
    """Show a webhook call, queued or retired, with its attempts and how its payload begins.

    \b
    Example: gateway webhook show 12
    """
    answer = ask(directory, "webhook/show", {"ID": call_id})
    if as_json:
        click.echo(json.dumps(answer))
        return
    print_fields(answer["Call"], TIMES)
    for number, attempt in enumerate(answer["Attempts"], 1):
        result = f"status {attempt['Code']}" if attempt["Code"] else "no answer"
        click.echo(f"\nattempt {number}: {result}, {relative(attempt['Start'])}, {attempt['Duration']:.3f} s")
        if attempt["Error"]:
            click.echo(f"  {printable(attempt['Error'])}")
        print_text(attempt["Response"])
    if answer["Payload"] is None:
        click.echo("\npayload: made when the call is first attempted")
    else:
        print_excerpt(f"payload, {printable(answer['Payload']['ContentType'])}", answer["Payload"])


# --- Actions on all that match ---------------------------------------------------------------------

_choice = options(
    dir_option,
    call_filter_options,
    click.option("--all", "everything", is_flag=True, help="Every call that waits."),
)


def _act(directory: Path, command: str, everything: bool, conditions: dict[str, Any], **more: Any) -> None:
    if not given(conditions) and not everything:
        raise CommandError("choose calls (--id, --event, ...), or --all for every call that waits")
    act(directory, f"webhook/{command}", "call", conditions, **more)


@webhook.command()
@_choice
def cancel(directory: Path, everything: bool, **conditions: Any) -> None:
    """Give up on webhook calls. One that is under way is not interrupted.

    \b
    Example: gateway webhook cancel --id 12
    """
    _act(directory, "cancel", everything, conditions)


@webhook.command()
@_choice
@click.option(
    "--in", "in_", type=duration, default="0s", show_default=True, help="From now: 90s, 7.5m, 1h30m, 2d."
)
def schedule(directory: Path, everything: bool, in_: timedelta, **conditions: Any) -> None:
    """Set when calls are attempted next. One that is under way is left alone.

    \b
    Example: gateway webhook schedule --account mox
    """
    _act(directory, "schedule", everything, conditions, Seconds=in_.total_seconds())
