"""`reports.exim`: Exim's format, and others with the recipients in X-Failed-Recipients or lines of their own.

The following address(es) failed:

  user@example.org
    host mx.example.org [192.0.2.1]: 550 5.1.1 no such user
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from itertools import islice

from gateway import Address, DeliveryStatus, ReportSource, hookimpl
from gateway.mail.bounce_text import MAX_RECIPIENTS, action_of, is_bounce, near, says_why, spans
from gateway.mail.dsn import readable_addresses
from gateway.mail.report_source import addresses_in
from gateway_reports.recipients import notification

# An address that stands alone in an indented or marked line, perhaps with what comes next in the same line.
# What is possessive is so that a line of spaces takes no quadratic time.
_LINE = re.compile(
    r"^([ \t]{1,20}|[ \t]{0,8}[*-][ \t]{1,4}|)<?([^<>\s:;,()\"@]{1,128}@[\w.-]{1,255}\w)>?"
    r"(?::([^\n]*+)|[ \t]*+)$",
    re.MULTILINE,
)
MAX_SAID = 500  # characters that stand beside an address


@hookimpl
async def read_report(source: ReportSource) -> DeliveryStatus | None:
    named = {str(address).lower() for address in addresses_in(source.header("X-Failed-Recipients"))}
    if not named and not is_bounce(source):
        return None
    action = "failed" if named else action_of(source)
    starts = _starts(source.text, named, addresses_in(source.header("To")))
    found = {start[2]: said for start, said in _said(source.text, starts)}
    lines = {address.lower() for address in found}
    # Some stand in no line of their own: a program gets their mail, say.
    for address in sorted(named - lines) if len(lines) < len(named) else ():
        found[address] = near(source.text, readable_addresses(address), alone=False) if lines else source.text
    return await notification(source, found.items(), action)


def _said(text: str, starts: Sequence[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    for start, below in spans(text, starts):
        said = f"{(start[3] or '').strip()}\n{below}"
        # Some say why first, and then to whom.
        yield start, text if len(starts) == 1 and not says_why(said) else said


def _starts(text: str, named: Set[str], senders: tuple[Address, ...]) -> list[re.Match[str]]:
    """The lines with recipients. Where the header names them, others count only if they stand out."""
    found: dict[str, re.Match[str]] = {}
    for match in islice(_LINE.finditer(text), 10 * MAX_RECIPIENTS):
        address = match[2].lower()
        if len((match[3] or "").strip()) > MAX_SAID:
            continue
        if (match[1] or not named or address in named) and not {*readable_addresses(address)} & {*senders}:
            found.setdefault(address, match)
    return list(found.values())[:MAX_RECIPIENTS]
