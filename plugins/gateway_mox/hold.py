"""`mox.hold`: a message is put on hold when it is queued and a hold rule matches it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway import Address, HoldRule, Submission, hookimpl


@hookimpl
def hold(submission: Submission, recipient: Address, rules: Sequence[HoldRule]) -> bool | None:
    """True if any rule matches; None, so that other plugins are asked, if none does."""
    sender_domain = submission.reverse_path.domain
    if any(rule.matches(submission.account, sender_domain, recipient.domain) for rule in rules):
        return True
    return None
