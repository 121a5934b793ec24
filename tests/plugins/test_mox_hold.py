from __future__ import annotations

import pytest

from gateway import Address, HoldRule, Submission
from gateway_mox.hold import hold

ME, YOU = Address("me", "example.com"), Address("you", "example.org")
SUBMISSION = Submission(
    id="s",
    account="a",
    login=ME,
    via="api",
    reverse_path=Address("me+x", "example.com"),
    recipients=(YOU,),
    header_from=Address("me", "other.example"),
    data=b"x",
    message_id="<m@example.com>",
    subject="",
)


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({}, True),
        ({"account": "a"}, True),
        ({"account": "b"}, None),
        ({"sender_domain": "example.com"}, True),
        ({"sender_domain": "other.example"}, None),
        ({"recipient_domain": "example.org"}, True),
        ({"recipient_domain": "example.com"}, None),
        ({"account": "a", "sender_domain": "example.com", "recipient_domain": "example.org"}, True),
        ({"account": "a", "sender_domain": "example.com", "recipient_domain": "example.net"}, None),
    ],
)
def test_each_field_of_a_rule_must_match(fields: dict[str, str], held: bool | None) -> None:
    assert hold(SUBMISSION, YOU, [HoldRule(id=1, **fields)]) is held


def test_any_rule_holds_and_none_leaves_it_to_others() -> None:
    other = HoldRule(id=1, account="b")
    assert hold(SUBMISSION, YOU, []) is None
    assert hold(SUBMISSION, YOU, [other, HoldRule(id=2, account="a")]) is True
