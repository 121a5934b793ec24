"""Reading feedback reports: complaints about a message (RFC 5965, RFC 6692, RFC 9477). Pure; bounded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.mail.address import Address, AddressError
from gateway.mail.dsn import readable_addresses
from gateway.mail.headers import Headers, read_headers
from gateway.mail.report_source import MAX_ADDRESSES, RETURNED_TYPES, ReportSource, addresses_in

# RFC 5965, 7.3. The other types are none: "not-spam" takes one back, "auth-failure" (RFC 6591) is nobody's.
COMPLAINTS: Final = frozenset({"abuse", "fraud"})
MAX_VALUE = 1_000  # characters

_CFBL: Final = b"cfbl-address"
_FIELD: Final = re.compile(r"^Feedback-Type:", re.IGNORECASE | re.MULTILINE)
_FIELDS: Final = re.compile(
    r"^(?:Feedback-Type|User-Agent|Version|Source-IP|Original-Mail-From|Original-Rcpt-To|Arrival-Date):",
    re.IGNORECASE | re.MULTILINE,
)
_COMPLAINT: Final = re.compile(r"\s*complaint about (?:a )?(?:message|e-?mail) from\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReport:
    """A feedback report. "" is what it does not say; who hides the recipient leaves `recipients` empty."""

    feedback_type: str  # lower case: "abuse", "fraud", "not-spam", "auth-failure", "opt-out", ...
    recipients: tuple[Address, ...] = ()  # Original-Rcpt-To, else those of the returned message
    mail_from: Address | None = None  # Original-Mail-From, else Return-Path of the returned message
    envelope_id: str = ""  # Original-Envelope-Id, as it is written
    message_id: str = ""  # of the returned message, with its angle brackets
    feedback_id: str = ""  # CFBL-Feedback-ID of the returned message (RFC 9477)
    user_agent: str = ""
    source_ip: str = ""
    reporting_mta: str = ""

    @property
    def is_complaint(self) -> bool:
        """Whether a person complains: only "abuse" and "fraud" say that."""
        return self.feedback_type in COMPLAINTS


def read_feedback(source: ReportSource) -> FeedbackReport | None:
    """The feedback report in a message; None if it is none."""
    text = source.fields("message/feedback-report")
    if text is None:
        text = _within(source)
    if text is None:
        return _without_fields(source)
    fields = _fields(text)
    return FeedbackReport(
        feedback_type=_value(fields, "Feedback-Type").partition("(")[0].strip().lower() or "other",
        recipients=_named(fields) or _returned_to(source),
        mail_from=_mail_from(_value(fields, "Original-Mail-From")) or _returned_path(source),
        envelope_id=_value(fields, "Original-Envelope-Id"),
        message_id=source.returned_message_id,
        feedback_id=next(iter(source.returned.get("cfbl-feedback-id", ())), "")[:MAX_VALUE],
        user_agent=_value(fields, "User-Agent"),
        source_ip=_value(fields, "Source-IP"),
        reporting_mta=_value(fields, "Reporting-MTA").rpartition(";")[2].strip(),
    )


def announces_feedback(message: bytes) -> bool:
    """Whether a message has a CFBL-Address, and no CFBL-Feedback-ID yet (RFC 9477). Lines end in CRLF."""
    end = message.find(b"\r\n\r\n")
    if _CFBL not in message[:end].lower():  # nearly always
        return False
    headers, _ = read_headers(message)
    return bool(headers.get("CFBL-Address")) and not headers.get("CFBL-Feedback-ID")


def may_be_complaint(subject: str) -> bool:
    """Whether a Subject, decoded, is that of a complaint without a part of its own."""
    return _COMPLAINT.match(subject[:500]) is not None


def _within(source: ReportSource) -> str | None:
    """The fields, where they have lost their own part."""
    for part in source.parts:
        found = _FIELD.search(part.text) if part.content_type not in RETURNED_TYPES else None
        if found is not None and len(_FIELDS.findall(part.text)) >= 2:
            start = part.text.rfind("\n\n", 0, found.start())
            return part.text[start + 2 if start >= 0 else 0 :]
    return None


def _without_fields(source: ReportSource) -> FeedbackReport | None:
    """Microsoft's reports (JMRP) are the message alone, with the recipient in a field of its own."""
    if not source.returned or not may_be_complaint(source.header("Subject")):
        return None
    return FeedbackReport(
        feedback_type="abuse",
        recipients=_returned_to(source),
        mail_from=_returned_path(source),
        message_id=source.returned_message_id,
        feedback_id=next(iter(source.returned.get("cfbl-feedback-id", ())), "")[:MAX_VALUE],
        user_agent=source.header("From")[:MAX_VALUE],
    )


def _fields(text: str) -> Headers:
    return read_headers(text.lstrip("\n").encode("utf-8", "replace"))[0]


def _value(fields: Headers, name: str) -> str:
    text = fields.get(name)[:MAX_VALUE]
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _named(fields: Headers) -> tuple[Address, ...]:
    """Original-Rcpt-To, which may stand several times (RFC 5965, 3.2); else what an opt-out names."""
    values = fields.get_all("Original-Rcpt-To") or fields.get_all("Removal-Recipient")
    found = [address for value in values[:MAX_ADDRESSES] for address in readable_addresses(_bare(value))]
    return tuple(dict.fromkeys(found))


def _returned_to(source: ReportSource) -> tuple[Address, ...]:
    """Whom the returned message was for, if it names one address only: else somebody else may be meant."""
    for name in ("x-hmxmroriginalrecipient", "x-original-to", "delivered-to", "original-recipient", "to"):
        found = addresses_in(" ".join(source.returned.get(name, ()))[:MAX_VALUE])
        if found:
            return found if len(found) == 1 else ()
    return ()


def _mail_from(value: str) -> Address | None:
    try:
        return Address.parse(_bare(value))
    except AddressError:
        return None


def _returned_path(source: ReportSource) -> Address | None:
    return _mail_from(next(iter(source.returned.get("return-path", ())), ""))


def _bare(value: str) -> str:
    kind, semicolon, rest = value.partition(";")
    if semicolon and kind.strip().replace("-", "").isalnum():
        value = rest
    return value[:MAX_VALUE].strip().removeprefix("<").removesuffix(">").strip()


@dataclass(frozen=True, slots=True)
class AutomaticReply:
    """What a machine answered to a message, and what is no report on its delivery. `what` is for people."""

    what: str
