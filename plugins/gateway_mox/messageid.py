"""`mox.messageid`: a report that returns a message, or its header, that was sent.

The recipient must be the message's, too. Everybody who got a copy knows a Message-ID, so a notification with
one can be forged: it is trusted only if the gateway made the Message-ID, and one recipient alone got it.
"""

from __future__ import annotations

from gateway import IncomingReport, ReportMatch, SentMessages, hookimpl
from gateway_mox.recipients import by_recipient, complained


@hookimpl
async def match_report(report: IncomingReport, sent: SentMessages) -> tuple[ReportMatch, ...] | None:
    """For each of the notification's recipients the message that had it."""
    if report.feedback is not None and report.feedback.message_id:
        messages = await sent.find(message_id=report.feedback.message_id)
        return complained(report.feedback, messages, "messageid", lambda m: m.message_id_secret) or None
    if report.dsn is None or not report.dsn.message_id:
        return None
    messages = await sent.find(message_id=report.dsn.message_id)
    found = by_recipient(report.dsn.recipients, messages)
    return tuple(ReportMatch(m.id, "messageid", said, m.message_id_secret) for said, m in found) or None
