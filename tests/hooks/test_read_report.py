"""What a reader may answer, and what counts as its failure."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import Address, AutomaticReply, DeliveryStatus, FeedbackReport, RecipientStatus, hookimpl
from tests.hooks.helpers import a_source, load

ADA = Address("ada", "example.net")


class Reader:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def read_report(self) -> Any:
        return self.answer


def status(**fields: Any) -> DeliveryStatus:
    recipient = RecipientStatus(**{"action": "failed", **fields})
    return DeliveryStatus(reporting_mta="", envelope_id="", message_id="", recipients=(recipient,))


GOOD = [
    status(code=550, addresses=(ADA,), failure="full", permanent=True),
    DeliveryStatus(reporting_mta="", envelope_id="", message_id="", recipients=()),
    FeedbackReport(feedback_type="abuse", recipients=(ADA,), mail_from=ADA),
    AutomaticReply("away"),
]
lazy: Any = object()
BAD = [
    status(code="550"),
    status(failure="broken"),
    status(failure=[]),
    status(permanent=1),
    status(addresses=("ada@example.net",)),
    status(diagnostic="x" * 2001),
    DeliveryStatus(reporting_mta=lazy, envelope_id="", message_id="", recipients=()),
    DeliveryStatus(reporting_mta="", envelope_id="", message_id="", recipients=lazy),
    FeedbackReport(feedback_type="abuse\0"),
    FeedbackReport(feedback_type="abuse", mail_from=lazy),
    FeedbackReport(feedback_type="abuse", recipients=lazy),
    AutomaticReply(lazy),
    "a report",
]


@pytest.mark.parametrize("answer", GOOD)
async def test_good_answers(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    hooks = load({"reader": Reader(answer)})
    assert await hooks.gateway.read_report(source=a_source()) is answer
    assert caplog.text == ""


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
async def test_bad_answers(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The next plugin is asked."""
    hooks = load({"reader": Reader(answer), "next": Reader(AutomaticReply("next"))})
    assert await hooks.gateway.read_report(source=a_source()) == AutomaticReply("next")
    assert "plugin 'reader', hook 'read_report': answered " in caplog.text
