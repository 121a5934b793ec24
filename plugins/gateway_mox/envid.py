"""`mox.envid`: a report with the ENVID that was sent with MAIL FROM (RFC 3461, 4.4).

A complaint may have it as CFBL-Feedback-ID (RFC 9477), which a message with a CFBL-Address is given.
"""

from __future__ import annotations

from gateway import IncomingReport, QueuedMessage, ReportMatch, SentMessages, hookimpl
from gateway.mail.dsn import decode_xtext
from gateway_mox.recipients import by_recipient, complained, may_be_for


@hookimpl
async def match_report(report: IncomingReport, sent: SentMessages) -> tuple[ReportMatch, ...] | None:
    """For each of the notification's recipients the message that had it.

    Only an identifier that the gateway made, for one recipient alone, is trusted. It also says which message
    is meant when an alias on the way made another recipient of it; but that one's failure is not the
    message's recipient's.
    """
    source = report.feedback or report.dsn
    if source is None:
        return None
    # Some servers leave it encoded as it was on the wire.
    named = [source.envelope_id, decode_xtext(source.envelope_id)]
    if report.feedback is not None:
        named.append(report.feedback.feedback_id)
    recipients = report.dsn.recipients if report.dsn is not None else ()
    for env_id in dict.fromkeys(filter(None, named)):
        messages = await sent.find(env_id=env_id)
        if report.feedback is not None:
            about = complained(report.feedback, messages, "envid", _secret)
            if about:
                return about
            continue
        if len(messages) == len(recipients) == 1 and _secret(messages[0]):
            message, said = messages[0], recipients[0]
            return (ReportMatch(message.id, "envid", said, may_be_for(message, said.addresses)),)
        found = by_recipient(recipients, messages)
        if found:
            return tuple(ReportMatch(m.id, "envid", one, _secret(m)) for one, m in found)
    return None


def _secret(message: QueuedMessage) -> bool:
    return message.env_id_origin == "recipient"
