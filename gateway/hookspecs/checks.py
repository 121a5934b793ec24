"""What an answer must hold besides its type: a plugin's dataclass may hold anything.

Each check gets the answer and the hook's arguments, and says what is wrong; "" is nothing.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from pydantic import BaseModel

from gateway.mail.address import Address
from gateway.mail.bounce_class import FailureClass
from gateway.mail.dsn import MAX_RECIPIENTS, DeliveryStatus, RecipientStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.model import Reject, ReportMatch, Result, RetryAt, Submission, Suppress, TransportType
from gateway.outbound import outcomes

MAX_REASON = 2000  # characters of a GiveUp, Suppress or ReportMatch
MAX_BY = 100  # characters of a ReportMatch
MAX_MATCHES = 1000  # of one report
MAX_MAILBOX = 200  # characters of a mailbox's name
MAX_CONTENT_TYPE = 255  # characters
MAX_KEY = 255  # characters of Limits
MAX_HEADERS = 100  # of a webhook call
MAX_HEADER_VALUE = 4096  # characters
MAX_LIMIT = 1_000_000  # of each kind

_SURROGATE = re.compile("[\ud800-\udfff]")


def _is_text(value: object) -> bool:
    """Whether it is a str that can be stored and sent: UTF-8 has no lone surrogates, PostgreSQL no NUL."""
    return isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value)


def _is_time(value: object) -> bool:
    """Whether it is an aware datetime that UTC has too."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return False
    try:
        value.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _is_extra(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_text(k) and _is_text(v) for k, v in value.items())


_SUBMISSION: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "reverse_path": (lambda v: isinstance(v, Address), "is not an Address"),
    "header_from": (lambda v: isinstance(v, Address), "is not an Address"),
    "data": (lambda v: isinstance(v, bytes) and v != b"", "is not bytes, or empty"),
    "message_id": (lambda v: _is_text(v) and v.isprintable(), "is not printable text"),
    "subject": (_is_text, "is not text"),
    "smtputf8": (lambda v: isinstance(v, bool), "is not a bool"),
    "has_8bit": (lambda v: isinstance(v, bool), "is not a bool"),
    "require_tls": (lambda v: v is None or isinstance(v, bool), "is neither a bool nor None"),
    "not_before": (lambda v: v is None or _is_time(v), "is neither a datetime with a time zone nor None"),
    "extra": (_is_extra, "is not a Mapping from text to text"),
}


def submission(answer: Any, submission: Submission) -> str:
    if isinstance(answer, Reject):
        return ""
    for name in ("id", "account", "login", "via"):
        if getattr(answer, name) != getattr(submission, name):
            return f"a Submission with another {name}, which no plugin may change"
    for name, (is_good, problem) in _SUBMISSION.items():
        changed = getattr(answer, name) is not getattr(submission, name)
        if changed and not is_good(getattr(answer, name)):
            return f"a Submission whose {name} {problem}"
    recipients = answer.recipients
    if not isinstance(recipients, tuple) or not all(isinstance(r, Address) for r in recipients):
        return "a Submission whose recipients are not a tuple of Address"
    return "" if recipients else "a Submission without recipients (to refuse the message, answer Reject)"


def data(answer: Any, *_: object) -> str:
    return "" if answer else "an empty message"


def route(answer: Any, *_: object) -> str:
    return "" if isinstance(answer.transport, str) and answer.transport else "a Route without a transport"


def transports(answer: Any) -> str:
    for name, kind in answer.items():
        if not isinstance(name, str) or not isinstance(kind, TransportType):
            return (
                f"a Mapping with {type(name).__name__}: {type(kind).__name__} in place of str: TransportType"
            )
        settings: object = kind.settings
        make: object = kind.make
        if not isinstance(settings, type) or not issubclass(settings, BaseModel):
            return f"a TransportType {name!r} whose settings are no subclass of pydantic.BaseModel"
        if not callable(make):
            return f"a TransportType {name!r} whose make cannot be called"
    return ""


def template_engines(answer: Any) -> str:
    for name, engine in answer.items():
        if not isinstance(name, str) or not name or not callable(engine):
            return f"a Mapping with {name!r}: {type(engine).__name__} in place of a name: TemplateEngine"
    return ""


def shape(answer: Any, *_: object) -> str:
    """Written out, since it is asked for each message."""
    if type(answer.connections) is not int or not 0 <= answer.connections <= MAX_LIMIT:
        return f"Limits whose connections is not an int from 0 to {MAX_LIMIT}"
    most = answer.messages_per_connection
    if type(most) is not int or not 0 <= most <= MAX_LIMIT:
        return f"Limits whose messages_per_connection is not an int from 0 to {MAX_LIMIT}"
    if type(answer.per_minute) not in (int, float) or not 0 <= answer.per_minute <= MAX_LIMIT:
        return f"Limits whose per_minute is not a number from 0 to {MAX_LIMIT}"
    if type(answer.wait) not in (int, float) or not 0 <= answer.wait <= MAX_LIMIT:
        return f"Limits whose wait is not a number from 0 to {MAX_LIMIT}"
    if type(answer.key) is not str or len(answer.key) > MAX_KEY or not answer.key.isprintable():
        return f"Limits whose key is not printable text of at most {MAX_KEY} characters"
    return ""


def outcome(answer: Any, *_: object) -> str:
    if answer.result not in (Result.TEMPORARY, Result.PERMANENT):
        return "an Outcome whose result is neither Result.TEMPORARY nor Result.PERMANENT"
    return "" if outcomes.checked([answer], 1) else "an Outcome with a field of another type"


def retry(answer: Any, *_: object) -> str:
    if isinstance(answer, RetryAt):
        return "" if _is_time(answer.time) else "a RetryAt whose time is not a datetime with a time zone"
    short = _is_text(answer.reason) and len(answer.reason) <= MAX_REASON
    return "" if short else f"a GiveUp whose reason is not a str of at most {MAX_REASON} characters"


def suppress(answer: Any, *_: object) -> str:
    if not isinstance(answer, Suppress):
        return "True (to add the address, answer Suppress with a reason)" if answer else ""
    if not _is_text(answer.reason) or len(answer.reason) > MAX_REASON:
        return f"a Suppress whose reason is not a str of at most {MAX_REASON} characters"
    if answer.expires is not None and not _is_time(answer.expires):
        return "a Suppress whose expires is neither a datetime with a time zone nor None"
    return ""


def _is_status(value: object) -> bool:
    return (
        isinstance(value, RecipientStatus)
        and all(
            _is_text(getattr(value, name)) and len(getattr(value, name)) <= MAX_REASON
            for name in ("action", "status", "enhanced", "diagnostic", "remote_mta")
        )
        and type(value.code) is int
        and 0 <= value.code <= 999
        and value.failure in get_args(FailureClass)
        and isinstance(value.permanent, bool)
    )


_MATCH: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "queue_msg_id": (lambda v: type(v) is int, "is not an int"),
    "by": (
        lambda v: _is_text(v) and 0 < len(v) <= MAX_BY,
        f"is not a str of 1 to {MAX_BY} characters",
    ),
    "recipient": (
        lambda v: v is None or _is_status(v),
        f"is neither None nor a RecipientStatus with a code to 999, texts to {MAX_REASON} characters",
    ),
    "trusted": (lambda v: isinstance(v, bool), "is not a bool"),
    "reason": (
        lambda v: _is_text(v) and len(v) <= MAX_REASON,
        f"is not a str of at most {MAX_REASON} characters",
    ),
}


_FEEDBACK_TEXTS = (
    "feedback_type",
    "envelope_id",
    "message_id",
    "feedback_id",
    "user_agent",
    "source_ip",
    "reporting_mta",
)


def read_report(answer: Any, *_: object) -> str:
    """Only what is wrong with the types and the sizes: everything else a report may say."""
    kind = type(answer).__name__
    if isinstance(answer, AutomaticReply):
        return "" if _is_short(answer.what) else f"an {kind} whose what is not a short text"
    texts = _FEEDBACK_TEXTS if isinstance(answer, FeedbackReport) else _NOTIFICATION_TEXTS
    for name in texts:
        if not _is_short(getattr(answer, name)):
            return f"a {kind} whose {name} is not a str of at most {MAX_REASON} characters"
    recipients = answer.recipients
    if not isinstance(recipients, tuple) or len(recipients) > MAX_RECIPIENTS:
        return f"a {kind} whose recipients are not a tuple of at most {MAX_RECIPIENTS}"
    if isinstance(answer, DeliveryStatus):
        good = all(_is_status(recipient) and _are_addresses(recipient.addresses) for recipient in recipients)
        return "" if good else f"a {kind} whose recipients are not good RecipientStatus"
    if not _are_addresses(recipients) or not isinstance(answer.mail_from, Address | None):
        return f"a {kind} whose recipients or mail_from are no Address"
    return ""


_NOTIFICATION_TEXTS = ("reporting_mta", "envelope_id", "message_id")


def _is_short(value: object) -> bool:
    return isinstance(value, str) and _is_text(value) and len(value) <= MAX_REASON


def _are_addresses(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(address, Address) for address in value)


def match_report(answer: Any, *_: object) -> str:
    matches: tuple[object, ...] = answer if isinstance(answer, tuple) else (answer,)
    if not matches or len(matches) > MAX_MATCHES:
        return f"a tuple of {len(matches)} in place of 1 to {MAX_MATCHES} ReportMatch"
    for match in matches:
        if not isinstance(match, ReportMatch):
            return f"a tuple with {type(match).__name__} in place of ReportMatch"
        for name, (is_good, problem) in _MATCH.items():
            if not is_good(getattr(match, name)):
                return f"a ReportMatch whose {name} {problem}"
    return ""


def receive_policy(answer: Any, *_: object) -> str:
    if isinstance(answer, Reject):
        return ""
    if _is_mailbox(answer.mailbox):
        return ""
    return f"an Accept whose mailbox is not printable text of at most {MAX_MAILBOX} characters"


def mailbox(answer: Any, *_: object) -> str:
    if answer and _is_mailbox(answer):
        return ""
    return f"a mailbox that is not printable text of 1 to {MAX_MAILBOX} characters"


def _is_mailbox(name: object) -> bool:
    return isinstance(name, str) and len(name) <= MAX_MAILBOX and name.isprintable() and name == name.strip()


def webhook(answer: Any, *_: object) -> str:
    if isinstance(answer, bool):
        return "True (to make the call, answer a WebhookBody)" if answer else ""
    if not isinstance(answer.body, bytes):
        return "a WebhookBody whose body is not bytes"
    # It becomes the value of an HTTP header field (RFC 9110, 5.5).
    kind = answer.content_type
    printable = isinstance(kind, str) and kind.isascii() and kind.isprintable() and kind.strip() != ""
    if not printable or len(kind) > MAX_CONTENT_TYPE:
        return "a WebhookBody whose content_type is not printable ASCII text"
    return ""


def webhook_headers(answer: Any, *_: object) -> str:
    """Names and values as RFC 9110 (5.1, 5.5) has them."""
    if len(answer) > MAX_HEADERS:
        return f"a Mapping of more than {MAX_HEADERS} header fields"
    for name, value in answer.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            return f"a Mapping with {reprlib.repr(name)} in place of a header's name"
        if name.lower() in _OUR_HEADERS:
            return f"a Mapping with {name}, which is the gateway's"
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            return f"a Mapping with a {name} that no header can have"
        if len(value) > MAX_HEADER_VALUE:
            return f"a Mapping with a {name} of more than {MAX_HEADER_VALUE} characters"
    return ""


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile("[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_OUR_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"})
