"""`reports.amazon`: what Amazon SES tells by mail: a bounce, a complaint or a delivery, as JSON."""

from __future__ import annotations

import json
from typing import Any

from gateway import (
    Address,
    AddressError,
    DeliveryStatus,
    FeedbackReport,
    RecipientStatus,
    ReportSource,
    hookimpl,
)
from gateway.mail.bounce_class import classify, is_permanent
from gateway.mail.bounce_text import MAX_RECIPIENTS, MAX_SAID
from gateway.mail.dsn import find_reply, readable_addresses


@hookimpl
def read_report(source: ReportSource) -> DeliveryStatus | FeedbackReport | None:
    told = _notification(source.text)
    if told is None:
        return None
    mail = _object(told.get("mail"))
    message_id = _text(_object(mail.get("commonHeaders")).get("messageId"))
    kind = told.get("notificationType") or told.get("eventType")
    if kind == "Complaint":
        complaint = _object(told.get("complaint"))
        listed = [
            _text(_object(item).get("emailAddress")) for item in _list(complaint.get("complainedRecipients"))
        ]
        return FeedbackReport(
            feedback_type=(_text(complaint.get("complaintFeedbackType")) or "other").lower(),
            recipients=tuple(a for text in listed for a in readable_addresses(text)),
            mail_from=_address(_text(mail.get("source"))),
            message_id=message_id,
            user_agent=_text(complaint.get("userAgent")),
        )
    if kind == "Bounce":
        bounce = _object(told.get("bounce"))
        temporary = _text(bounce.get("bounceType")).lower() == "transient"
        recipients = [_bounced(_object(item), temporary) for item in _list(bounce.get("bouncedRecipients"))]
        reporter = _text(bounce.get("reportingMTA"))
    elif kind == "Delivery":
        delivery = _object(told.get("delivery"))
        said = _text(delivery.get("smtpResponse"))
        recipients = [
            RecipientStatus(
                action="delivered",
                code=int(said[:3]) if said[:3].isdecimal() and said[:3].isascii() else 0,
                diagnostic=said,
                final_recipient=_text(item),
                addresses=readable_addresses(_text(item)),
            )
            for item in _list(delivery.get("recipients"))
        ]
        reporter = _text(delivery.get("reportingMTA"))
    else:
        return None
    return DeliveryStatus(
        reporting_mta=reporter.rpartition(";")[2].strip(),
        envelope_id="",
        message_id=message_id,
        recipients=tuple(recipients),
    )


def _bounced(item: dict[str, Any], temporary: bool) -> RecipientStatus:
    said = _text(item.get("diagnosticCode")).removeprefix("smtp;").strip()
    address, status = _text(item.get("emailAddress")), _text(item.get("status"))
    code, enhanced = find_reply(said)
    enhanced = enhanced or status
    if not code and enhanced[:1] in ("4", "5"):
        code = int(enhanced[0]) * 100
    action = _text(item.get("action")).lower() or "failed"
    return RecipientStatus(
        action=action,
        status=status,
        code=code,
        enhanced=enhanced,
        diagnostic=said,
        final_recipient=address,
        addresses=readable_addresses(address),
        failure=classify(said, code=code, enhanced=enhanced),
        permanent=is_permanent(said, action=action, code=code, enhanced=enhanced)
        and not (temporary and not code),
    )


def _notification(text: str) -> dict[str, Any] | None:
    """The notification, which may be wrapped in SNS's own; None if there is none."""
    start = text.find("{")
    if start < 0 or text[:start].strip():
        return None
    # sendmail breaks lines over 990 octets with "!", newline and a space.
    text = text[start:].replace("!\n ", "")
    for _ in range(2):
        try:
            found, _end = json.JSONDecoder(strict=False).raw_decode(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        if "notificationType" in found or "eventType" in found:
            return found
        text = _raw(found.get("Message"))
    return None


def _raw(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in value[:MAX_SAID]) if isinstance(value, str) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value[:MAX_RECIPIENTS] if isinstance(value, list) else []


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except AddressError:
        return None
