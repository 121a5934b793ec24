"""`reports.automatic`: what machines answer and what is no report on a delivery.

These are automatic replies (RFC 3834, and the customs before it) and message disposition notifications
(RFC 8098).
"""

from __future__ import annotations

import re

from gateway import AutomaticReply, ReportSource, hookimpl
from gateway.mail.bounce_text import from_system, is_bounce

_DISPOSITION = ("message/disposition-notification", "message/global-disposition-notification")
_SUBJECTS = re.compile(
    r"\s*\W?(?:auto(?:matic|mated)?[ -]?(?:reply|response|respond\w*|answer)|auto:"
    r"|out[ -]of[ -](?:the[ -])?office|vacation|on (?:leave|holiday)|away from|i am (?:away|out)"
    r"|abwesenheit|réponse automatique|respuesta autom|risposta autom|automatische antwort"
    r"|automatisch antwoord|autosvar|自動返信|自動応答|不在)",
    re.IGNORECASE,
)
_HEADERS = (
    "X-Autoreply",
    "X-Autorespond",
    "X-Autoresponse",
    "X-Auto-Reply",
    "X-Auto-Reply-From",
    "X-Vacation",
)


@hookimpl
def read_report(source: ReportSource) -> AutomaticReply | None:
    if source.fields(*_DISPOSITION) is not None:
        return AutomaticReply("a disposition notification")
    report = source.params.get("report-type", "").lower()
    if source.content_type == "multipart/report" and report == "disposition-notification":
        return AutomaticReply("a disposition notification")
    if not _is_reply(source):
        return None
    # Exim's bounces, and others', call themselves replies as well.
    bounced = source.header("X-Failed-Recipients") or (from_system(source) and is_bounce(source))
    return None if bounced else AutomaticReply("an automatic reply")


def _is_reply(source: ReportSource) -> bool:
    submitted = source.header("Auto-Submitted").partition(";")[0].partition("(")[0].strip().lower()
    if submitted == "auto-replied" or any(source.header(name) for name in _HEADERS):
        return True
    if source.header("Precedence").strip().lower() in ("auto_reply", "auto-reply"):
        return True
    return bool(_SUBJECTS.match(source.header("Subject")[:500]))
