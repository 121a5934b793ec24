"""`gateway plugins`: which plugins there are, who is asked at which stage, and what they would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import trio

from gateway.cli.common import (
    CONFIG_FILE,
    CommandError,
    NotRunning,
    ask,
    dir_option,
    json_option,
    print_table,
    printable,
)
from gateway.errors import GatewayError

UNASKED = "-"


@click.group()
def plugins() -> None:
    """See the plugins: those of a running gateway, or else what the configuration says.

    \b
    Example: gateway plugins hooks
    """


@plugins.command("list")
@dir_option
@json_option
def list_(directory: Path, as_json: bool) -> None:
    """List the plugins that are installed, with the plugin sets that name them.

    \b
    Example: gateway plugins list
    """
    answer = _ask(directory, "plugins/list", {})
    if as_json:
        click.echo(json.dumps(answer))
        return
    running = answer["Running"]
    print_table(
        ["PLUGIN", "STATE", "FROM", "SETS", *(["CALLS", "FAILURES"] if running else [])],
        [
            [
                row["Plugin"],
                row["State"],
                f"{row['Distribution']} {row['Version']}".strip() or UNASKED,
                ", ".join(row["Sets"]) or UNASKED,
                *([row["Calls"], row["Failures"]] if running else []),
            ]
            for row in answer["Plugins"]
        ],
    )


@plugins.command()
@dir_option
@click.option("--account", default="", help="As an account has them, with its plugin set and settings.")
@click.option("--all", "everything", is_flag=True, help="Stages that no plugin takes, too.")
@json_option
def hooks(directory: Path, account: str, everything: bool, as_json: bool) -> None:
    """List the stages, each with its plugins in the order in which they are asked.

    \b
    Example: gateway plugins hooks --account mox
    """
    answer = _ask(directory, "plugins/hooks", {"Account": account})
    if as_json:
        click.echo(json.dumps(answer))
        return
    rows: list[list[object]] = []
    for hook in answer["Hooks"]:
        rows += [[hook["Hook"], hook["Verb"], *_call(call, answer["Running"])] for call in hook["Plugins"]]
        if everything and not hook["Plugins"]:
            rows.append([hook["Hook"], hook["Verb"], *[UNASKED] * (7 if answer["Running"] else 4)])
    counted = ["CALLS", "FAILURES", "MEAN"] if answer["Running"] else []
    print_table(["HOOK", "VERB", "PLUGIN", "RUNS", "LIMIT", "ON ERROR", *counted], rows)


def _call(call: dict[str, Any], running: bool) -> list[object]:
    cells: list[object] = [
        call["Plugin"],
        {"plain": "on the loop", "async": "async", "thread": "in a thread"}[call["Way"]],
        UNASKED if call["Way"] == "plain" else f"{call['Limit']:g} s",
        call["OnError"],
    ]
    if running:
        mean = f"{call['Seconds'] / call['Calls'] * 1e6:.0f} us" if call["Calls"] else UNASKED
        suspended = " (suspended)" if call["Suspended"] else ""
        cells += [call["Calls"], f"{call['Failures']}{suspended}", mean]
    return cells


@plugins.command()
@dir_option
@click.option("--to", required=True, help="Recipient.")
@click.option("--from", "sender", default="", help="Sender.  [default: the account's first address]")
@click.option("--account", default="", help="Account that sends, or receives.  [default: the address's]")
@click.option("--subject", default="trace", show_default=True, help="Subject of the message.")
@click.option("--incoming", is_flag=True, help="Mail that comes in, in place of mail that is sent.")
@json_option
def trace(
    directory: Path, to: str, sender: str, account: str, subject: str, incoming: bool, as_json: bool
) -> None:
    """Ask the plugins about a message that is not sent: who answers what at each stage, in what time.

    Stages that decide are asked; those in which plugins do something are named. Nothing is stored or dialled.

    \b
    Example: gateway plugins trace --to user@example.org
    """
    answer = _ask(
        directory,
        "plugins/trace",
        {"To": to, "From": sender, "Account": account, "Subject": subject, "Incoming": incoming},
    )
    if as_json:
        click.echo(json.dumps(answer))
        return
    source = "the running gateway" if answer["Running"] else "the configuration alone"
    click.echo(printable(f"{answer['From']} to {answer['To']}, account {answer['Account']}, by {source}"))
    for step in answer["Steps"]:
        click.echo(printable(f"{step['Stage']}: {step['Result']}"))
        for asked in step["Asked"]:
            said = f"FAILED: {asked['Failure']}" if asked["Failure"] else asked["Answer"]
            click.echo(printable(f"    {asked['Plugin']} ({asked['Seconds'] * 1e6:.0f} us): {said}"))


@plugins.command()
@click.argument("name")
@click.option("--hooks", "wanted", required=True, help="Names of hooks, with commas between them.")
@click.option(
    "--in", "where", type=click.Path(path_type=Path, file_okay=False), default=".", show_default=True,
    help="Directory to make the package's directory in.",
)  # fmt: skip
def new(name: str, wanted: str, where: Path) -> None:
    """Make a package with a plugin: its hooks, settings, tests that pass, README and entry point.

    NAME is the plugin's, such as acme.greeter; the package is made in a directory called acme-greeter.

    \b
    Example: gateway plugins new acme.greeter --hooks route,hold
    """
    from gateway.cli.new_plugin import make

    hooks = tuple(hook.strip() for hook in wanted.split(",") if hook.strip())
    try:
        made = make(where, name, hooks)
    except ValueError as exc:
        raise CommandError(str(exc)) from None
    except OSError as exc:
        raise CommandError(f"{exc.filename}: cannot be written: {exc.strerror}") from None
    click.echo(f"made {made}; try it:")
    click.echo(f"    cd {made}")
    click.echo("    pip install -e '.[test]'")
    click.echo("    python -m pytest")


# --- Asking --------------------------------------------------------------------------------------


def _ask(directory: Path, command: str, request: dict[str, Any]) -> Any:
    """The running gateway's answer, or the configuration's when none runs. Raises CommandError."""
    try:
        return ask(directory, command, request)
    except NotRunning:
        return _from_configuration(directory, command, request)


def _from_configuration(directory: Path, command: str, request: dict[str, Any]) -> Any:
    from gateway.clock import Clock
    from gateway.config.load import load
    from gateway.config.sets import plugin_sets
    from gateway.plugins.loading import load_plugins
    from gateway.plugins.views import plugin_rows
    from gateway.web.control.plugins import PluginCommands

    try:
        settings = load(directory / CONFIG_FILE)
        if command == "plugins/list":  # also when a plugin is what is wrong
            plugin_sets(settings)
            return {"Running": False, "Plugins": plugin_rows(settings)}
        commands = PluginCommands(settings, load_plugins(settings, directory), Clock()).commands()
        asked = commands[command]
        return json.loads(json.dumps(trio.run(asked.run, asked.request.model_validate(request))))
    except GatewayError as exc:
        raise CommandError(str(exc)) from None
