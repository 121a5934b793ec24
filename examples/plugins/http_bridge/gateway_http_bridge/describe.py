"""What the service is told: a JSON object for each stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway import Address, Event, QueuedMessage, Reception, RouteRule, Submission

Json = dict[str, Any]
# Of each field of a header its name, its value and all its bytes; and the body.
Parts = tuple[list[tuple[bytes, bytes, bytes]], bytes]

MAX_HEADER = 1 << 18  # bytes of a message's header: a longer one is not taken apart
MAX_FIELDS = 1000  # likewise

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")


def split(data: bytes) -> Parts | None:
    """None for a header that is too long, has too many fields, or cannot be taken apart."""
    end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n", 0, MAX_HEADER) + 2
    if end == 1:
        return None
    fields = [(found[1], found[2], found[0]) for found in _FIELD.finditer(data, 0, end)]
    if len(fields) > MAX_FIELDS or sum(len(field) for _, _, field in fields) != end:
        return None
    return fields, data[end + 2 :]


def of_submission(submission: Submission, parts: Parts | None) -> Json:
    return {
        "stage": "data",
        "action": "accept",
        "protocol": {"version": "1.0"},
        "envelope": _envelope(submission.reverse_path, submission.recipients),
        "message": {
            "subject": submission.subject,
            "headers": None if parts is None else [header_field(name, value) for name, value, _ in parts[0]],
        },
        "gateway": {
            "hook": "submission",
            "submission": submission.id,
            "account": submission.account,
            "login": str(submission.login),
            "via": submission.via,
            "extra": dict(submission.extra),
        },
    }


def of_reception(reception: Reception) -> Json:
    described: Json = {
        "stage": reception.step,
        "action": "accept",
        "protocol": {"version": "1.0"},
        "client": {"ip": reception.remote_ip, "ehlo": reception.helo},
        "envelope": _envelope(reception.reverse_path, reception.recipients),
        "gateway": {"hook": "receive_policy"},
    }
    if reception.auth is not None:
        described["senderAuth"] = {
            "spf": reception.auth.spf.result,
            "dkim": next((one.result for one in reception.auth.dkim), "none"),
            "dmarc": reception.auth.dmarc.result,
        }
    return described


def of_queued(message: QueuedMessage, routes: Sequence[RouteRule]) -> Json:
    return {
        "stage": "route",
        "action": "continue",
        "protocol": {"version": "1.0"},
        "queue": {"id": str(message.id)},
        "envelope": _envelope(message.sender, (message.recipient,)),
        "message": {"subject": message.subject},
        "gateway": {
            "hook": "route",
            "account": message.account,
            "attempt": message.attempts,
            "transport": None,
            "transports": sorted({rule.transport for rule in routes}),
            "extra": dict(message.extra),
        },
    }


def of_event(event: Event) -> Json:
    return {
        "stage": "defer" if event.name == "delayed" else "delivery",
        "action": "continue",
        "protocol": {"version": "1.0"},
        "timestamp": event.time.isoformat(),
        "queue": {"id": str(event.queue_msg_id)},
        "envelope": {"to": [{"address": event.recipient}]},
        "message": {"subject": event.subject},
        "response": {"code": event.code, "enhancedCode": event.enhanced, "message": event.error},
        "gateway": {
            "hook": "event",
            "account": event.account,
            "id": event.id,
            "event": event.name,
            "attempt": event.attempt,
            "extra": dict(event.extra),
        },
    }


def _envelope(sender: Address | None, recipients: Sequence[Address]) -> Json:
    return {
        "from": {"address": None if sender is None else str(sender)},
        "to": [{"address": str(one)} for one in recipients],
    }


def header_field(name: bytes, value: bytes) -> Json:
    return {"name": name.decode(), "value": value.strip().decode("utf-8", "replace")}
