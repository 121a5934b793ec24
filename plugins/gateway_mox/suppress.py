"""`mox.suppress`: which failures put an address on the suppression list.

Some answers say that an address does not exist, or wants no mail: these do so at once, as does a complaint.
Any other failure with an SMTP code does so when the two messages to the address before failed as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import Earlier, FailureSource, Outcome, Suppress, hookimpl

# 521 and 556: no mail there (RFC 7504). 550, 551, 553: no such mailbox (RFC 5321, 4.2.3).
AT_ONCE = frozenset({521, 550, 551, 553, 556})
# RFC 3463, without the class: bad mailbox, bad system, bad syntax, moved, disabled, not authorized.
AT_ONCE_ENHANCED = frozenset({"1.1", "1.2", "1.3", "1.6", "2.1", "7.1"})
IN_A_ROW = 3  # failures, this one included


@hookimpl
def suppress(outcome: Outcome, source: FailureSource, history: Sequence[Earlier]) -> Suppress | None:
    if source == "complaint":
        return Suppress(outcome.error)
    if not outcome.code or not outcome.about_recipient:
        return None  # nobody answered, or what was refused is not the address
    said = f"{outcome.code} {outcome.enhanced}".rstrip()
    teller = "a DSN" if source == "dsn" else "the queue"
    if _at_once(outcome):
        return Suppress(f"failure reported by {teller}: {said}")
    before = history[: IN_A_ROW - 1]
    if len(before) == IN_A_ROW - 1 and not any(earlier.success for earlier in before):
        return Suppress(f"{IN_A_ROW} failures in a row, the last reported by {teller}: {said}")
    return None


def _at_once(outcome: Outcome) -> bool:
    _, _, enhanced = outcome.enhanced.partition(".")
    return outcome.code in AT_ONCE or (outcome.code // 100 == 5 and enhanced in AT_ONCE_ENHANCED)
