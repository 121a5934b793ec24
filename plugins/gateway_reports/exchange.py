"""`reports.exchange`: Microsoft Exchange's texts, and those of Notes and Domino, which are built alike.

did not reach the following recipient(s):        was not delivered to:
user@example.org on Mon, 1 Jan 2001              user@example.org
    The recipient name is not recognized         because: ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from gateway import DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, spans
from gateway.mail.report_source import ADDRESS
from gateway_reports.recipients import notification

_LIST = re.compile(
    r"did not reach the following recipient|was not delivered to:|delivery has failed to these recipients"
    r"|could not be delivered to the following|failed to reach the following|not reach the recipient"
    r"|--- ?Failure Reasons",
    re.IGNORECASE,
)
_END = re.compile(
    r"^[ \t]*-{3,}|^Original message headers:|^[ \t]*Routes?[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_ABOUT = re.compile(r"\b(?:user|recipient)\b", re.IGNORECASE)
_DIAGNOSTIC = re.compile(r"Diagnostic information for administrators:", re.IGNORECASE)


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    start = _LIST.search(source.text)
    if start is None:
        return None
    text = source.text[start.end() :]
    end = _END.search(text)
    body = text if end is None or start[0].startswith("-") else text[: end.start()]
    return await notification(source, _said(body), action_of(source))


def _said(text: str) -> Iterator[tuple[str, str]]:
    """First what is said to administrators, which has the codes; then what is said to people."""
    split = _DIAGNOSTIC.search(text)
    parts = (text,) if split is None else (text[split.end() :], text[: split.start()])
    for part in parts:
        for start, below in spans(part, _starts(part)):
            said = below if below.strip() else part[: start.start()]  # why, before or after to whom
            yield start[0].rstrip("."), said


def _starts(text: str) -> list[re.Match[str]]:
    """The addresses that begin a line, or stand in the brackets behind a name."""
    return [match for match in islice(ADDRESS.finditer(text), MAX_RECIPIENTS) if _begins(text, match.start())]


def _begins(text: str, at: int) -> bool:
    before = text[text.rfind("\n", 0, at) + 1 : at]
    if not before.strip(" \t<'\""):
        return True
    return len(before) < 80 and before.endswith(("(", "(<")) and not _ABOUT.search(before)
