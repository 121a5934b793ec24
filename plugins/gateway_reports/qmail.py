"""`reports.qmail`: the format of qmail-send (QSBMF), and of the many that write like it.

For each recipient a paragraph that begins with the address in angle brackets and a colon. Postfix's old
format has them as well, and those of Yahoo and others, each with an introduction of its own.
"""

from __future__ import annotations

import re
from itertools import islice

from gateway import DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, is_bounce, spans
from gateway_reports.recipients import notification

_RECIPIENT = re.compile(
    r"^[ \t]{0,2}[<\"]([^<>\"\s@]{1,320}@[^<>\"\s@]{1,255})[>\"](?:[ \t]\([^()\n]{1,200}\))?:(?=\s)",
    re.MULTILINE,
)


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    if not is_bounce(source):
        return None
    text = source.text
    found = ((start[1], _paragraphs(said)) for start, said in spans(text, _starts(text)))
    return await notification(source, found, action_of(source))


def _starts(text: str) -> list[re.Match[str]]:
    """Where each recipient begins; a line of an answer may look the same, with the same address."""
    found: dict[str, re.Match[str]] = {}
    for match in islice(_RECIPIENT.finditer(text), 10 * MAX_RECIPIENTS):
        found.setdefault(match[1].lower(), match)
    return list(found.values())[:MAX_RECIPIENTS]


def _paragraphs(said: str) -> str:
    """Up to what is no more about the recipient: a line of dashes (QSBMF's break), or two empty lines."""
    return re.split(r"\n[ \t]*\n[ \t]*\n|\n[-=*_]{3}", said.lstrip("\n"), maxsplit=1)[0]
