"""What the commands share: finding a running gateway, asking it, printing tables."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from gateway import datadir
from gateway.config.load import load
from gateway.durations import parse_bound, parse_duration
from gateway.errors import GatewayError
from gateway.model import EventName

CONFIG_FILE = "gateway.toml"
STARTING = 5.0  # seconds that a gateway is waited for that runs, but does not listen yet
LOOK_AGAIN = 0.1  # seconds
EVENTS = (*get_args(EventName), "incoming")
F = TypeVar("F", bound=Callable[..., Any])


def default_dir() -> Path:
    """$GATEWAY_DIR, or what localserve uses: gateway-localserve in the user's configuration directory."""
    named = os.environ.get("GATEWAY_DIR")
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "gateway-localserve"


dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_dir,
    show_default="$GATEWAY_DIR, or gateway-localserve in the user's configuration directory",
    help="Directory with gateway.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


class CommandError(click.ClickException):
    """One clear line and exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"gateway: {printable(self.message)}", err=True)


class NotRunning(CommandError):
    """There is nobody to ask."""


def reached_at(ip: str) -> str:
    """Where this machine reaches what listens on `ip`, which may be all of its addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(ip, ip)  # noqa: S104 - nothing is bound here


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


Ask = Callable[[str, dict[str, Any]], Any]


def ask(directory: Path, command: str, request: dict[str, Any]) -> Any:
    """Have the running gateway carry out a command; its answer. Raises NotRunning, CommandError."""
    return asker(directory)(command, request)


def asker(directory: Path) -> Ask:
    """`ask` for many commands, which reads the configuration once. Raises CommandError."""
    try:
        path = datadir.control_socket(load(directory / CONFIG_FILE).data_dir)
    except GatewayError as exc:
        raise CommandError(str(exc)) from None
    return partial(_ask, directory, path)


def _ask(directory: Path, path: Path, command: str, request: dict[str, Any]) -> Any:
    connection = _UnixConnection(path)
    try:
        _connect(connection, directory, path)
        connection.request("POST", f"/{command}", json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise CommandError(f"the gateway at {path} did not answer: {exc}; see its log") from None
    finally:
        connection.close()
    if response.status != 200:
        raise CommandError(answer.get("Message", f"the gateway answered {response.status}"))
    return answer


def _connect(connection: _UnixConnection, directory: Path, path: Path) -> None:
    """A gateway that is starting is waited for. Raises NotRunning, OSError."""
    give_up = time.monotonic() + STARTING
    while True:
        try:
            return connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        process = datadir.user_of(path.parent.parent)
        if not process:
            raise NotRunning(
                f"no gateway runs with {directory}; start one (gateway localserve --dir {directory}) or name "
                "its directory with --dir"
            )
        if time.monotonic() > give_up:
            raise NotRunning(
                f"the gateway with {directory} (process {process}) takes no commands yet: it is starting, or "
                "one of its processes is being started again; try again in a moment"
            )
        time.sleep(LOOK_AGAIN)


def duration(text: str) -> timedelta:
    """An option's value: see parse_duration. Raises click.BadParameter."""
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def lifetime(text: str) -> timedelta:
    """An option's value: a duration for which something is to hold. Raises click.BadParameter."""
    found = duration(text)
    if not found:
        raise click.BadParameter(f"{text!r} is over at once; write one such as 12h or 30d")
    return found


def time_bound(text: str) -> dict[str, str]:
    """An option's value: see parse_bound. Raises click.BadParameter."""
    try:
        side, offset = parse_bound(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    return {"Before" if side == "<" else "After": (datetime.now(UTC) + offset).isoformat()}


def moment(text: str) -> str:
    """An option's value: an RFC 3339 time, or a duration into the past. Raises click.BadParameter."""
    if text[:1].isdigit() and "T" in text:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = datetime.min
        if time.tzinfo is None:
            raise click.BadParameter(f"{text!r} is no time; write one such as 2026-01-31T08:00:00Z")
        return time.isoformat()
    return (datetime.now(UTC) - duration(text)).isoformat()


POSITIVE = click.IntRange(1, 2**63 - 1)  # as far as a database counts


_id_option = click.option("--id", "IDs", type=POSITIVE, multiple=True, help="ID; may be given again.")
_account_option = click.option("--account", "Account", default="", help="Account name.")
_submitted_option = click.option(
    "--submitted", "Submitted", type=time_bound, help='Queued before or after, as in "<-1h" or ">-2d".'
)
_next_attempt_option = click.option(
    "--next-attempt", "NextAttempt", type=time_bound, help='Due before or after, as in "<now" or ">1h".'
)


def options(*several: Callable[[F], F]) -> Callable[[F], F]:
    """Several options of a command at once, in the order of its help."""

    def add(command: F) -> F:
        for option in reversed(several):
            command = option(command)
        return command

    return add


# What chooses messages of the queue, and webhook calls. Each arrives under the control socket's name for it.
filter_options: Callable[[F], F] = options(
    _id_option,
    _account_option,
    click.option("--from", "From", default="", help="Part of the sender's address."),
    click.option("--to", "To", default="", help="Part of the recipient's address."),
    click.option("--held/--not-held", "Hold", default=None, help="Only messages on hold, or not."),
    _submitted_option,
    _next_attempt_option,
    click.option("--transport", "Transport", default="", help="Transport that was set for the message."),
    click.option("--message-id", "MessageID", default="", help="Message-ID, as it is in the message."),
    click.option("--from-id", "FromID", default="", help="FromID of the message."),
)
call_filter_options: Callable[[F], F] = options(
    _id_option,
    _account_option,
    _submitted_option,
    _next_attempt_option,
    click.option("--url", "URL", default="", help="URL that is called."),
    click.option("--event", "Event", type=click.Choice(EVENTS), help="Event that the call tells of."),
)


def page_options(*orders: str) -> Callable[[F], F]:
    """Of a list: its order (the first is the default), and its pages."""
    return options(
        click.option("--sort", type=click.Choice(orders), default=orders[0], show_default=True),
        click.option("--desc", is_flag=True, help="Latest first."),
        click.option("--max", "maximum", type=click.IntRange(1, 1000), default=100, show_default=True),
        click.option("--cursor", default="", help="Go on after a page: what the page before ended with."),
    )


def page_request(sort: str, desc: bool, maximum: int, cursor: str) -> dict[str, Any]:
    """What `page_options` gave, as the control socket takes it."""
    name = "".join(part.capitalize() for part in sort.split("-"))
    return {"Sort": name, "Asc": not desc, "Max": maximum, "Cursor": cursor}


def given(conditions: dict[str, Any]) -> dict[str, Any]:
    """A filter with only the conditions that were given."""
    return {name: value for name, value in conditions.items() if value not in (None, "", ())}


def act(directory: Path, command: str, what: str, conditions: dict[str, Any], **more: Any) -> None:
    """Have the gateway do something to all that the conditions match, and say to how many `what` it was."""
    affected = ask(directory, command, {"Filter": given(conditions), **more})["Affected"]
    click.echo(count(affected, what))


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; nothing of a remote's text can move the cursor."""
    cells = [[*header], *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """Text that strangers may have written, without what moves a terminal's cursor or changes its colours."""
    return "".join(c if c.isprintable() else " " for c in text)


def print_more(cursor: str) -> None:
    """The option for the next page, if there is one. For pasting: a shell might act on what is in it."""
    if cursor:
        click.echo(f"more: --cursor {shlex.quote(printable(cursor))}")


def print_fields(fields: dict[str, Any], times: Collection[str]) -> None:
    """A name and its value in each line; `times` names those that are RFC 3339 times.

    What is retired is not attempted any more: the time that was kept for it is not shown.
    """
    for name, value in fields.items():
        if name == "NextAttempt" and fields.get("State") == "retired":
            value = None
        shown = f"{value} ({relative(value)})" if name in times and value else _shown(value)
        click.echo(f"{name + ':':<15} {printable(shown)}")


def _shown(value: Any) -> str:
    if value in (None, "", {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(entry)}" for key, entry in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_text(text: str) -> None:
    """Lines that strangers wrote, set off from ours."""
    for line in text.splitlines():
        click.echo(f"    {printable(line)}".rstrip())


def print_excerpt(name: str, excerpt: dict[str, Any]) -> None:
    """The beginning of something large."""
    size = f"{excerpt['Size']} bytes" + ("" if excerpt["Complete"] else ", of which the first are shown")
    click.echo(f"\n{name}, {size}:")
    print_text(excerpt["Text"])


def relative(time: str | None) -> str:
    """An RFC 3339 time as people read it: how long ago, or in how long."""
    if not time:
        return "-"
    seconds = (datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()
    size = abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if size >= 2 * length or (size >= length and unit == "m"):
            text = f"{size / length:.1f}{unit}"
            break
    else:
        text = f"{size:.0f}s"
    return f"in {text}" if seconds >= 0 else f"{text} ago"
