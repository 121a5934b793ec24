"""`gateway webhook`: look at the queue of webhook calls and act on it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    EVENTS,
    POSITIVE,
    CommandError,
    act,
    ask,
    call_filter_options,
    count,
    dir_option,
    duration,
    given,
    json_option,
    moment,
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
    print_more(answer["NextCursor"])


def _next(call: dict[str, Any]) -> str:
    return "now" if call["Calling"] else relative(call["NextAttempt"])


def _result(call: dict[str, Any]) -> str:
    if call["Success"]:
        return "success"
    if call["SupersededBy"]:
        return f"superseded by {call['SupersededBy']}"
    return "failed" if call["Success"] is False else "not sent"


@webhook.command()
@click.argument("call_id", type=POSITIVE)
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


@webhook.command()
@dir_option
@options(
    click.option("--id", "IDs", type=POSITIVE, multiple=True, help="ID; may be given again."),
    click.option("--account", "Account", default="", help="Account name."),
    click.option("--url", "URL", default="", help="URL that was called."),
    click.option("--event", "Event", type=click.Choice(EVENTS), help="Event that the call tells of."),
    click.option("--after", type=moment, help="Queued after a time: 2026-01-31T08:00:00Z, or 2h ago."),
    click.option("--before", type=moment, help="Queued before a time."),
    click.option("--failed", "Failed", is_flag=True, default=None, help="Only those that no receiver took."),
    click.option("--all", "everything", is_flag=True, help="Every call that is kept."),
)
def replay(
    directory: Path, everything: bool, after: str | None, before: str | None, **conditions: Any
) -> None:
    """Make webhook calls again that are over, with the same IDs and payloads.

    \b
    Example: gateway webhook replay --account mox --after 2h --failed
    """
    times = given({"After": after, "Before": before}) or None
    wanted = given({**conditions, "Submitted": times})
    if not wanted and not everything:
        raise CommandError(
            "choose calls (--id, --account, --after, ...), or --all for every call that is kept"
        )
    affected = ask(directory, "webhook/replay", {"Filter": wanted})["Affected"]
    click.echo(count(affected, "call"))


# --- URLs -----------------------------------------------------------------------------------------


@webhook.command()
@dir_option
@click.option("--account", default="", help="Account name.")
@json_option
def urls(directory: Path, account: str, as_json: bool) -> None:
    """List the URLs that webhooks go to, and how they fare.

    \b
    Example: gateway webhook urls --account mox
    """
    answer = ask(directory, "webhook/urls", {"Account": account})
    if as_json:
        click.echo(json.dumps(answer))
        return
    if not answer["URLs"]:
        click.echo("no URLs")
        return
    print_table(
        ("ACCOUNT", "URL", "EVENTS", "FORMAT", "SIGNED", "STATE"),
        [
            (
                url["Account"],
                url["URL"][:100],
                _events(url["Events"]),
                url["Format"],
                "yes" if url["Signed"] else "no",
                _state(url),
            )
            for url in answer["URLs"]
        ],
    )


def _events(events: list[str]) -> str:
    missing = set(EVENTS) - set(events)
    return "all" if not missing else "all outgoing" if missing == {"incoming"} else ",".join(events)


def _state(url: dict[str, Any]) -> str:
    if url["Disabled"]:
        return f"disabled {relative(url['Disabled'])}: {url['Error']}"
    if url["FailingSince"]:
        return f"fails since {relative(url['FailingSince'])}: {url['Error']}"
    return "works"


@webhook.command()
@click.argument("url")
@dir_option
@click.option("--account", default="", help="Account name; by default of every account that has it.")
def enable(url: str, directory: Path, account: str) -> None:
    """Have a URL called again that is disabled, from the next event on.

    \b
    Example: gateway webhook enable http://localhost:9090/
    """
    accounts = ask(directory, "webhook/enable", {"Account": account, "URL": url})["Accounts"]
    of = ", ".join(map(printable, accounts))
    click.echo(f"enabled for {of}" if accounts else "it was not disabled")


@webhook.command()
@click.argument("url", default="")
@dir_option
@click.option("--account", required=True, help="Account name.")
@click.option("--event", type=click.Choice(EVENTS), help="Event to tell of; by default the URL's first.")
@json_option
def test(url: str, directory: Path, account: str, event: str | None, as_json: bool) -> None:
    """Call a URL of an account, by default its first, with an example; show what it answers.

    \b
    Example: gateway webhook test --account mox --event failed
    """
    request = {"Account": account, "URL": url, "Event": event or ""}
    answer = ask(directory, "webhook/test", request)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        result = f"status {answer['Code']}" if answer["Code"] else "no answer"
        url = printable(answer["URL"])
        click.echo(f"{answer['Event']} to {url}: {result}, {answer['Duration']:.3f} s")
        if answer["Error"]:
            click.echo(f"  {printable(answer['Error'])}")
        print_text(answer["Response"])
        if answer["Payload"] is not None:
            print_excerpt(f"payload, {printable(answer['Payload']['ContentType'])}", answer["Payload"])
    if not answer["Success"]:
        raise SystemExit(1)
