"""`reports.sendmail`: sendmail's text without the fields of RFC 3464, and that of its like.

----- The following addresses had permanent fatal errors -----
<user@example.org>
----- Transcript of session follows -----
550 <user@example.org>... User unknown
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from gateway import DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, near, spans
from gateway.mail.dsn import readable_addresses
from gateway_reports.recipients import notification

_SECTION = re.compile(r"^[ \t]*+-{3,}+[ \t]*+([A-Za-z][^\n]{0,100}?)[ \t]{0,50}-{3,}+[ \t]*+$", re.MULTILINE)
_ADDRESSES = re.compile(r"addresses had|failed addresses|unsuccessful delivery", re.IGNORECASE)
_TRANSCRIPT = re.compile(r"transcript", re.IGNORECASE)
# In brackets, or at the beginning of a line.
_NAMED = re.compile(
    r"(?:<|^[ \t>]{0,8})([^<>\s()\[\],;:@]{1,128}@[\w.-]{1,255}\w)(?=[>\s\[]|$)", re.MULTILINE
)
# A line of the transcript that is sendmail's own verdict on a recipient.
_VERDICT = re.compile(
    r"^[ \t]*([45]\d\d[ -](?:[45]\.\d{1,3}\.\d{1,3} )?)<?"
    r"([^<>\s@]{1,320}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,10})>?\.\.\.[ \t]*([^\n]{0,500})",
    re.MULTILINE,
)


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    sections = _sections(source.text)
    transcript = next((text for title, text in sections if _TRANSCRIPT.search(title)), "")
    listed = next((text for title, text in sections if _ADDRESSES.search(title)), "")
    if not transcript and not listed:
        return None
    return await notification(source, _said(source.text, transcript, listed), action_of(source))


def _said(text: str, transcript: str, listed: str) -> Iterator[tuple[str, str]]:
    for match in islice(_VERDICT.finditer(transcript), MAX_RECIPIENTS):
        yield match[2], f"{match[1]}{match[3]}"
    for match in islice(_NAMED.finditer(listed), MAX_RECIPIENTS):
        yield match[1], near(text, readable_addresses(match[1]), alone=True) or transcript or listed


def _sections(text: str) -> list[tuple[str, str]]:
    """Titles between dashes, and what stands below each."""
    return [(start[1], below) for start, below in spans(text, list(islice(_SECTION.finditer(text), 20)))]
