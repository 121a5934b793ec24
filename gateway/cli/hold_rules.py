"""`gateway queue hold-rules`: what is put on hold as it is queued."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gateway.cli.common import POSITIVE, CommandError, ask, count, dir_option, json_option, print_table


@click.group("hold-rules")
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
    if everything and (account or from_domain or to_domain):
        raise CommandError(
            "--all holds everything: leave out --account, --from-domain and --to-domain, or --all"
        )
    request = {"Account": account, "SenderDomain": from_domain, "RecipientDomain": to_domain}
    answer = ask(directory, "queue/hold-rules/add", request)
    click.echo(
        f"hold rule {answer['ID']} added; {count(answer['Affected'], 'message')} of the queue put on hold"
    )


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
@click.argument("rule_id", type=POSITIVE)
@dir_option
def remove_rule(rule_id: int, directory: Path) -> None:
    """Remove a hold rule. Messages that it held stay on hold: release them.

    \b
    Example: gateway queue hold-rules remove 1
    """
    ask(directory, "queue/hold-rules/remove", {"ID": rule_id})
    click.echo(f"hold rule {rule_id} removed; messages on hold stay so: gateway queue release")
