"""`gateway report`: what the gateway understands of a bounce, a complaint or an automatic reply."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import trio

from gateway.cli.common import CONFIG_FILE, CommandError, dir_option, json_option, printable
from gateway.config.load import load
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.hooks.stages import Hooks
from gateway.mail.address import Address, AddressError
from gateway.mail.dsn import DeliveryStatus, RecipientStatus, readable_addresses
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.mail.report_source import ReportSource, read_source
from gateway.plugins.loading import load_plugins

MAX_SIZE = 100_000_000  # octets of a file that are read


@click.group()
def report() -> None:
    """Reports that come back: bounces, complaints, automatic replies.

    \b
    Example: gateway report read bounce.eml
    """


@report.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True)
)
@dir_option
@json_option
def read(files: tuple[Path, ...], directory: Path, as_json: bool) -> None:
    """Print what is understood of each FILE, a message; "-" is the standard input.

    The plugins are those of the gateway in the directory, which need not run; without one, the default ones.

    \b
    Example: gateway report read bounce.eml
    """
    hooks = _hooks(directory)
    for file in files:
        try:
            with click.open_file(str(file), "rb") as opened:
                data = opened.read(MAX_SIZE)
        except OSError as exc:
            raise CommandError(f"{file}: cannot be read: {exc.strerror}") from None
        answer = _described(trio.run(_read, hooks, _returned(read_source(data))))
        if as_json:
            click.echo(json.dumps({"File": str(file)} | answer))
        else:
            click.echo("\n".join(_lines(str(file), answer)))


async def _read(
    hooks: Hooks, source: ReportSource
) -> DeliveryStatus | FeedbackReport | AutomaticReply | None:
    return await hooks.gateway.read_report(source=source)


def _hooks(directory: Path) -> Hooks:
    path = directory / CONFIG_FILE
    try:
        settings = load(path) if path.exists() else Settings.model_validate({"hostname": "localhost"})
        return load_plugins(settings, directory)
    except GatewayError as exc:
        raise CommandError(str(exc)) from None


def _returned(source: ReportSource) -> ReportSource:
    """With the reverse-path that the server which delivered the message wrote into it."""
    try:
        return replace(source, mail_from=Address.parse(source.header("Return-Path").strip("<> ")))
    except AddressError:
        return source


def _described(read: DeliveryStatus | FeedbackReport | AutomaticReply | None) -> dict[str, Any]:
    """What the JSON output has."""
    if isinstance(read, DeliveryStatus):
        return {
            "Kind": "delivery-status",
            "ReportingMTA": read.reporting_mta,
            "EnvelopeID": read.envelope_id,
            "MessageID": read.message_id,
            "Recipients": [_recipient(said) for said in read.recipients],
        }
    if isinstance(read, FeedbackReport):
        return {
            "Kind": "feedback",
            "Type": read.feedback_type,
            "Complaint": read.is_complaint,
            "ReportingMTA": read.reporting_mta,
            "UserAgent": read.user_agent,
            "EnvelopeID": read.envelope_id,
            "MessageID": read.message_id,
            "MailFrom": str(read.mail_from or ""),
            "Recipients": [{"Address": str(address)} for address in read.recipients],
        }
    if isinstance(read, AutomaticReply):
        return {"Kind": "automatic", "What": read.what}
    return {"Kind": ""}


def _recipient(said: RecipientStatus) -> dict[str, Any]:
    return {
        "Address": str(next(iter((*readable_addresses(said.final_recipient), *said.addresses)), "")),
        "OriginalRecipient": said.original_recipient,
        "Action": said.action,
        "Class": said.failure,
        "Permanent": said.permanent,
        "Status": said.status,
        "SMTPCode": said.code,
        "SMTPEnhancedCode": said.enhanced,
        "RemoteMTA": said.remote_mta,
        "Diagnostic": said.diagnostic,
    }


def _lines(name: str, answer: dict[str, Any]) -> list[str]:
    """The same for people."""
    complaint = "a complaint" if answer.get("Complaint") else "no complaint"
    kinds = {
        "delivery-status": "a delivery status notification",
        "feedback": f"a feedback report, {answer.get('Type')}: {complaint}",
        "automatic": answer.get("What", ""),
        "": "no report",
    }
    lines = [f"{name}: {kinds[answer['Kind']]}"]
    for key in ("ReportingMTA", "UserAgent", "EnvelopeID", "MessageID", "MailFrom"):
        if answer.get(key):
            lines.append(f"  {key + ':':<14} {answer[key]}")
    for said in answer.get("Recipients", ()):
        lines.append(f"  {said['Address'] or 'a recipient that is not named'}")
        if "Action" in said:
            lasting = "" if not said["Class"] else ", permanent" if said["Permanent"] else ", not permanent"
            why = f", {said['Class'].replace('-', ' ')}" if said["Class"] else ""
            lines.append(f"    {said['Action'] or 'no action'}{why}{lasting}")
            codes = " ".join(str(code) for code in (said["SMTPCode"] or "", said["SMTPEnhancedCode"]) if code)
            lines += [
                f"    {text}"
                for text in (
                    f"code {codes}" if codes else "",
                    f"said by {said['RemoteMTA']}" if said["RemoteMTA"] else "",
                    said["Diagnostic"],
                )
                if text
            ]
    return [printable(line) for line in lines]
