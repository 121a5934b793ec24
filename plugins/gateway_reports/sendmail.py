"""`reports.sendmail`: sendmail's text without the fields of RFC 3464, and that of its like.

----- The following addresses had permanent fatal errors -----
<user@example.org>
----- Transcript of session follows -----
550 <user@example.org>... User unknown
"""

from __future__ import annotations

import re
from itertools import islice

from gateway import DeliveryStatus, RecipientStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, near, notification, said_of, spans
from gateway.mail.dsn import readable_addresses

_SECTION = re.compile(r"^[ \t]*-{3,}[ \t]*([A-Za-z][^\n]{0,100}?)[ \t]*-{3,}[ \t]*$", re.MULTILINE)
_ADDRESSES = re.compile(r"addresses had|failed addresses|unsuccessful delivery", re.IGNORECASE)
_TRANSCRIPT = re.compile(r"transcript", re.IGNORECASE)
# In brackets, or at the beginning of a line.
_NAMED = re.compile(r"(?:<|^[ \t>]{0,8})([^<>\s()\[\],;:]{1,128}@[\w.-]{1,255}\w)(?=[>\s\[]|$)", re.MULTILINE)
# A line of the transcript that is sendmail's own verdict on a recipient.
_VERDICT = re.compile(
    r"^[ \t]*([45]\d\d)[ -](?:[45]\.\d{1,3}\.\d{1,3} )?<?"
    r"([^<>\s]{1,320}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,10})>?\.\.\.[ \t]*([^\n]{0,500})",
    re.MULTILINE,
)


@hookimpl
def read_report(source: ReportSource) -> DeliveryStatus | None:
    sections = _sections(source.text)
    transcript = next((text for title, text in sections if _TRANSCRIPT.search(title)), "")
    listed = next((text for title, text in sections if _ADDRESSES.search(title)), "")
    if not transcript and not listed:
        return None
    action = action_of(source)
    found: dict[str, RecipientStatus] = {}
    for match in islice(_VERDICT.finditer(transcript), MAX_RECIPIENTS):
        said = f"{match[1]} {match[3]}"
        found.setdefault(match[2].lower(), said_of(said, match[2], readable_addresses(match[2]), action))
    for match in islice(_NAMED.finditer(listed), MAX_RECIPIENTS):
        if match[1].lower() not in found:
            addresses = readable_addresses(match[1])
            said = near(source.text, addresses, alone=True) or transcript or listed
            found[match[1].lower()] = said_of(said, match[1], addresses, action)
    return notification(source, list(found.values()))


def _sections(text: str) -> list[tuple[str, str]]:
    """Titles between dashes, and what stands below each."""
    return [(start[1], below) for start, below in spans(text, list(islice(_SECTION.finditer(text), 20)))]
