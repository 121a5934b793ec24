"""`reports.arf`: feedback reports (RFC 5965), those to a CFBL-Address (RFC 9477) among them."""

from __future__ import annotations

from gateway import FeedbackReport, ReportSource, hookimpl
from gateway.mail.feedback import read_feedback


@hookimpl
def read_report(source: ReportSource) -> FeedbackReport | None:
    return read_feedback(source)
