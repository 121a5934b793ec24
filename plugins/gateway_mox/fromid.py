"""`mox.fromid`: what comes to a unique address is about the message that was sent from it.

A FromID that the gateway made is known to nobody but those who got or carried the message, so a report that
comes to one is trusted, and so is a complaint that names one, unless it is about somebody else. One that a
submitter chose may be guessed. Nothing else is sent to such
an address: what is no report at all is recognized as that.
"""

from __future__ import annotations

from gateway import IncomingReport, ReportMatch, SentMessages, hookimpl
from gateway_mox.recipients import may_be_for


@hookimpl
async def match_report(report: IncomingReport, sent: SentMessages) -> ReportMatch | None:
    for from_id in report.details:
        for message in await sent.find(from_id=from_id):
            trusted = message.from_id_secret
            if report.feedback is not None:
                trusted = trusted and may_be_for(message, report.feedback.recipients)
                return ReportMatch(message.id, "fromid", None, trusted)
            if report.dsn is None:
                reason = f"it is {report.automatic or 'no delivery status notification'}"
            elif len(report.dsn.recipients) != 1:
                reason = f"it is about {len(report.dsn.recipients)} recipients, and the message had one"
            else:
                said = report.dsn.recipients[0]
                return ReportMatch(
                    message.id, "fromid", said, trusted and may_be_for(message, said.addresses)
                )
            return ReportMatch(message.id, "fromid", None, trusted, reason)
    return None
