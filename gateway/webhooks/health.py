"""When a URL is disabled: its receiver says 410, or it has failed for days.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md has both as the
thing to do. What was known and what happened go in, what is known now comes out.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.store.webhook_urls import UrlState

FAILING_FOR = timedelta(days=5)
# A URL that is called once a month has not failed all the month. A call is tried over 32 hours.
GAP = timedelta(days=2)


def after_failure(
    known: UrlState | None, account: str, url: str, now: datetime, error: str, *, gone: bool
) -> UrlState:
    """What is known of a URL after a call to it failed with `error`; `gone`: its receiver wants no more.

    `disabled` is set from the moment on when it is to be called no more.
    """
    if known is not None and known.disabled is not None:
        return known  # a call that was under way
    since = now if known is None or now - known.last_failure > GAP else known.failing_since
    failed_long = now - since >= FAILING_FOR
    if gone:
        error = f"its receiver wants no more ({error})"
    elif failed_long:
        error = f"every call of the last {FAILING_FOR.days} days failed, the last with: {error}"
    return UrlState(
        account=account,
        url=url,
        failing_since=since,
        last_failure=now,
        error=error,
        disabled=now if gone or failed_long else None,
    )
