"""`reports.exchange`: Microsoft Exchange's texts, and those of Notes and Domino, which are built alike.

did not reach the following recipient(s):        was not delivered to:
user@example.org on Mon, 1 Jan 2001              user@example.org
    The recipient name is not recognized         because: ...
"""

from __future__ import annotations

import re
from itertools import islice

from gateway import DeliveryStatus, RecipientStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, notification, said_of, spans
from gateway.mail.dsn import readable_addresses
from gateway.mail.report_source import ADDRESS

_LIST = re.compile(
    r"did not reach the following recipient|was not delivered to:|delivery has failed to these recipients"
    r"|could not be delivered to the following|failed to reach the following|not reach the recipient"
    r"|-{3,} ?Failure Reasons",
    re.IGNORECASE,
)
_END = re.compile(
    r"^[ \t]*-{3,}|^Original message headers:|^[ \t]*Routes?[ \t]*$", re.MULTILINE | re.IGNORECASE
)
# Exchange 2003's code in a line of its own: <mx.example.org #5.1.1 smtp;550 ...>, or MSEXCH's own.
_ABOUT = re.compile(r"\b(?:user|recipient)\b", re.IGNORECASE)
_DIAGNOSTIC = re.compile(r"Diagnostic information for administrators:", re.IGNORECASE)


@hookimpl
def read_report(source: ReportSource) -> DeliveryStatus | None:
    start = _LIST.search(source.text)
    if start is None:
        return None
    text = source.text[start.end() :]
    end = _END.search(text)
    body = text if end is None or start[0].startswith("-") else text[: end.start()]
    for_people, _, for_administrators = _split(body)
    found: dict[str, RecipientStatus] = {}
    action = action_of(source)
    for part in (for_administrators, for_people):  # what is said to administrators has the codes
        for start, below in spans(part, _starts(part)):
            address = start[0].rstrip(".")
            said = below if below.strip() else part[: start.start()]  # why, before or after to whom
            if address.lower() not in found:
                found[address.lower()] = said_of(said, address, readable_addresses(address), action)
    return notification(source, list(found.values()))


def _split(text: str) -> tuple[str, str, str]:
    found = _DIAGNOSTIC.search(text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found[0], text[found.end() :]


def _starts(text: str) -> list[re.Match[str]]:
    """The addresses that begin a line, or stand in the brackets behind a name."""
    return [match for match in islice(ADDRESS.finditer(text), MAX_RECIPIENTS) if _begins(text, match.start())]


def _begins(text: str, at: int) -> bool:
    before = text[text.rfind("\n", 0, at) + 1 : at]
    if not before.strip(" \t<'\""):
        return True
    return len(before) < 80 and before.endswith(("(", "(<")) and not _ABOUT.search(before)
