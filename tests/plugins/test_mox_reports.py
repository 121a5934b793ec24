"""The plugins mox.fromid, mox.envid and mox.messageid, each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway import (
    Address,
    DeliveryStatus,
    FeedbackReport,
    IncomingReport,
    QueuedMessage,
    RecipientStatus,
    ReportMatch,
)
from gateway_mox import envid, fromid, messageid
from tests.hooks.helpers import a_message, a_report

SECRET = "Ln8lXz1HhVh3TvGrxIbAPg"


@dataclass
class Sent:
    """A gateway.SentMessages of these."""

    messages: tuple[QueuedMessage, ...]

    async def find(
        self, *, from_id: str = "", env_id: str = "", message_id: str = ""
    ) -> Sequence[QueuedMessage]:
        given = {"from_id": from_id, "env_id": env_id, "message_id": message_id}
        wanted = {name: value for name, value in given.items() if value}
        return [m for m in self.messages if wanted and all(getattr(m, k) == v for k, v in wanted.items())]

    async def get(self, queue_msg_id: int) -> QueuedMessage | None:
        return next((m for m in self.messages if m.id == queue_msg_id), None)


def sent(*recipients: str, **fields: Any) -> Sent:
    """Messages 1, 2, ..."""
    addresses = recipients or ("you@example.net",)
    return Sent(
        tuple(
            replace(a_message(), id=number, recipient=Address.parse(address), **fields)
            for number, address in enumerate(addresses, 1)
        )
    )


def about(*addresses: str) -> tuple[RecipientStatus, ...]:
    return tuple(RecipientStatus(action="failed", addresses=(Address.parse(a),)) for a in addresses)


def report(*addresses: str, **fields: Any) -> IncomingReport:
    given = {name: fields.pop(name) for name in ("details",) if name in fields}
    dsn: dict[str, Any] = {"reporting_mta": "mx", "envelope_id": "", "message_id": ""} | fields
    return replace(a_report(), dsn=DeliveryStatus(**dsn, recipients=about(*addresses)), **given)


@pytest.mark.parametrize("from_id", [SECRET, "order-17"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_fromid(from_id: str, trusted: bool) -> None:
    given = report("You@example.net", details=("other", from_id))
    assert given.dsn is not None
    answer = await fromid.match_report(given, sent(from_id=from_id, from_id_secret=trusted))
    assert answer == ReportMatch(1, "fromid", given.dsn.recipients[0], trusted)
    assert await fromid.match_report(report("you@example.net"), sent(from_id=from_id)) is None
    for details in ((), (from_id.upper(),), ("",)):
        assert await fromid.match_report(replace(given, details=details), sent(from_id=from_id)) is None


@pytest.mark.parametrize(
    ("addresses", "trusted"),
    [
        (("forwarded@example.com",), False),
        (("forwarded@example.com", "you@example.net"), True),  # Final- and Original-Recipient
        (("yo@example.net",), True),  # the base address
        ((), True),  # named in no way that can be read
    ],
)
async def test_what_differs_from_the_recipient_suppresses_nobody(
    addresses: tuple[str, ...], trusted: bool
) -> None:
    """It is about the message all the same: a FromID is known to those only who got or carried it."""
    block = RecipientStatus(action="failed", addresses=tuple(map(Address.parse, addresses)))
    secrets = {
        "from_id": SECRET,
        "from_id_secret": True,
        "env_id": "E",
        "env_id_origin": "recipient",
        "base_address": "yo@example.net",
    }
    known = sent(**secrets)
    given = report(details=(SECRET,), envelope_id="E")
    assert given.dsn is not None
    given = replace(given, dsn=replace(given.dsn, recipients=(block,)))
    assert await fromid.match_report(given, known) == ReportMatch(1, "fromid", block, trusted)
    assert await envid.match_report(given, known) == (ReportMatch(1, "envid", block, trusted),)


async def test_fromid_without_one_recipient() -> None:
    for given, words in (
        (replace(a_report(), details=(SECRET,)), "no delivery status"),
        (report(details=(SECRET,)), "about 0 recipients"),
        (report("a@x.example", "b@x.example", details=(SECRET,)), "about 2 recipients"),
    ):
        answer = await fromid.match_report(given, sent(from_id=SECRET))
        assert answer is not None
        assert (answer.queue_msg_id, answer.recipient) == (1, None)
        assert words in answer.reason


@pytest.mark.parametrize("secret", [True, False])
async def test_envid(secret: bool) -> None:
    known = sent(env_id="A+=B", env_id_origin="recipient" if secret else "transaction")
    for written in ("A+=B", "A+2B+3DB"):
        given = report("YOU@example.net", envelope_id=written)
        assert given.dsn is not None
        answer = await envid.match_report(given, known)
        assert answer == (ReportMatch(1, "envid", given.dsn.recipients[0], secret),)
    # An alias on the way: only who has a secret can be believed that this is about the message.
    alias = await envid.match_report(report("alias@example.net", envelope_id="A+=B"), known)
    assert (alias is not None) is secret
    assert alias is None or not alias[0].trusted
    assert await envid.match_report(report("you@example.net", envelope_id="other"), known) is None
    assert await envid.match_report(report("you@example.net"), sent()) is None
    assert await envid.match_report(a_report(), known) is None


async def test_envid_of_several() -> None:
    known = sent("a@x.example", "b@x.example", "c@x.example", env_id="E")
    answer = await envid.match_report(
        report("c@x.example", "d@x.example", "a@x.example", envelope_id="E"), known
    )
    assert answer is not None
    assert [(match.queue_msg_id, match.trusted) for match in answer] == [(3, False), (1, False)]


@pytest.mark.parametrize("secret", [True, False])
async def test_messageid(secret: bool) -> None:
    known = sent(message_id_secret=secret)
    given = report("You@example.net", message_id="<7@example.org>")
    assert given.dsn is not None
    answer = await messageid.match_report(given, known)
    assert answer == (ReportMatch(1, "messageid", given.dsn.recipients[0], secret),)
    for other in (
        report("me@example.net", message_id="<7@example.org>"),
        report("you@example.com", message_id="<7@example.org>"),
        report("you@example.net", message_id="<8@example.org>"),
        report("you@example.net"),
        a_report(),
    ):
        assert await messageid.match_report(other, known) is None


async def test_messageid_of_several() -> None:
    """Each message once; of two to one address, the first."""
    known = sent("a@x.example", "b@x.example", "a@x.example")
    given = report("b@x.example", "a@x.example", "A@x.example", message_id="<7@example.org>")
    answer = await messageid.match_report(given, known)
    assert answer is not None
    assert [match.queue_msg_id for match in answer] == [2, 1]


# --- Complaints -----------------------------------------------------------------------------------


def complaint(*addresses: str, details: tuple[str, ...] = (), **fields: Any) -> IncomingReport:
    named = tuple(map(Address.parse, addresses))
    return replace(
        a_report(),
        details=details,
        feedback=FeedbackReport(feedback_type="abuse", recipients=named, **fields),
    )


@pytest.mark.parametrize(
    ("named", "trusted"), [((), True), (("YOU@example.net",), True), (("me@example.net",), False)]
)
async def test_complaints_by_fromid(named: tuple[str, ...], trusted: bool) -> None:
    answer = await fromid.match_report(
        complaint(*named, details=(SECRET,)), sent(from_id=SECRET, from_id_secret=True)
    )
    assert answer == ReportMatch(1, "fromid", None, trusted)
    guessed = await fromid.match_report(complaint(details=(SECRET,)), sent(from_id=SECRET))
    assert guessed == ReportMatch(1, "fromid", None, False)


@pytest.mark.parametrize(
    ("plugin", "by", "given", "known"),
    [
        (envid, "envid", {"envelope_id": "E+2B"}, {"env_id": "E+"}),
        (envid, "envid", {"feedback_id": "E+2B"}, {"env_id": "E+2B"}),
        (messageid, "messageid", {"message_id": "<7@example.org>"}, {}),
    ],
)
@pytest.mark.parametrize("secret", [True, False])
async def test_complaints_by_identifiers(
    plugin: Any, by: str, given: dict[str, Any], known: dict[str, Any], secret: bool
) -> None:
    known = known | {
        "env_id_origin": "recipient" if secret else "transaction",
        "message_id_secret": secret,
    }
    found = (ReportMatch(1, by, None, secret),)
    assert await plugin.match_report(complaint("You@example.net", **given), sent(**known)) == found
    # Who hides the recipient is believed only if one recipient alone can know the identifier.
    assert await plugin.match_report(complaint(**given), sent(**known)) == (found if secret else None)
    two = sent("you@example.net", "me@example.net", **known)
    assert await plugin.match_report(complaint(**given), two) is None
    assert await plugin.match_report(complaint("you@example.net", **given), two) == found
    for other in (complaint("she@example.net", **given), complaint("you@example.net")):
        assert await plugin.match_report(other, sent(**known)) is None
