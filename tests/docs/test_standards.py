"""docs/standards.md: every standard that the code names is in it, and what it says is offered is."""

from __future__ import annotations

import re

from gateway.smtp.server import Offer, ServerLimits, SmtpServer
from tests.docs.pages import ROOT, sections, tables, text

PAGE = text("standards.md")


def test_every_standard_that_the_code_names() -> None:
    named = set()
    for directory in ("gateway", "plugins"):
        for path in (ROOT / directory).rglob("*.py"):
            named |= set(re.findall(r"RFC (\d{3,4})", path.read_text(encoding="utf-8")))
    listed = set(re.findall(r"RFC (\d{3,4})", PAGE))
    ranges = {"5891"}  # "RFC 5890 to RFC 5892"
    assert named <= listed | ranges | NOT_FOLLOWED, sorted(named - listed - NOT_FOLLOWED)


# Named in the code to say what something is like, or what others do.
NOT_FOLLOWED = {
    "2606",  # domains for examples
    "4291", "3056", "6052", "7526",  # networks that webhooks do not go to
}  # fmt: skip


def test_rows_have_all_cells() -> None:
    for title in ("SMTP", "Logins and TLS", "Messages", "Who sent it", "Reports", "HTTP"):
        [table] = tables(sections(PAGE, 2)[title])
        assert all(len(row) == 3 for row in table)
        assert all(row["what is done"] or row["what is not"] or "RFC" in row["standard"] for row in table)


def test_extensions_are_those_that_are_offered() -> None:
    server = SmtpServer(ServerLimits("mx.example.org"), Offer(starttls=True, require_tls=True))
    server.next_event()
    server.answer(server.greeting)
    server.receive_data(b"EHLO c\r\n")
    server.next_event()
    offered = re.findall(rb"250[- ]([A-Z0-9]+)", server.data_to_send())
    names = {"ENHANCEDSTATUSCODES": "enhanced status codes"}
    for keyword in (word.decode() for word in offered):
        assert names.get(keyword, keyword) in PAGE, keyword
