"""Stage `match_report`: reads the bounces of an old mail server, which are text for people only."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from gateway import IncomingReport, RecipientStatus, ReportMatch, SentMessages, hookimpl

_BOUNCE = re.compile(
    rb"Sorry, no mailbox here by that name: <(.+?)>.*?^Message-ID: (<.+?>)", re.DOTALL | re.MULTILINE
)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    trusted: bool = False  # whether a bounce may put an address on the suppression list


@hookimpl
async def match_report(report: IncomingReport, sent: SentMessages, settings: Settings) -> ReportMatch | None:
    if report.mail_from is not None:
        return None
    found = _BOUNCE.search(await report.content.read())
    if found is None:
        return None
    for message in await sent.find(message_id=found[2].decode()):
        if str(message.recipient) == found[1].decode():
            said = RecipientStatus(action="failed", code=550, enhanced="5.1.1", diagnostic="no mailbox here")
            return ReportMatch(message.id, "acme", said, settings.trusted)
    return None
