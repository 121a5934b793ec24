"""What follows from an attempt: history, retire or try again, the event, the webhook call.

`decide` is a pure function from the message, the outcome and the retry stage's answer to the change that
the store applies in one transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.config.accounts import AccountSettings, WebhookTarget
from gateway.model import EventName, GiveUp, Outcome, Result, RetryAt
from gateway.outbound.outcomes import add_dialed
from gateway.store.changes import (
    CallDraft,
    Claimed,
    Ending,
    EventDraft,
    Reschedule,
    Retire,
    RetiredAs,
    Settlement,
)

SHORTEST = timedelta(seconds=1)  # between two attempts: no plugin's answer may make them a loop
# For a plugin that fails a message waits as long as RFC 5321 (4.5.4.1) has any be tried at the least. It is
# due at once when the plugin answers again, so a look now and then is enough meanwhile.
WAITS_FOR_PLUGIN = timedelta(days=5)
LONGEST_PAUSE = timedelta(hours=4)
WEBHOOKS_MAY_TAKE = timedelta(days=2)  # their attempts are spread over 32 hours


def decide(
    claimed: Claimed,
    outcome: Outcome,
    retry: RetryAt | GiveUp | None,
    account: AccountSettings | None,
    *,
    suppressed: bool,
    waits_for: str = "",
    transport: str,
    duration: float,
    now: datetime,
) -> Settlement:
    """The change that settles one recipient's attempt.

    `retry` is asked for temporary outcomes only; None (no plugin answered) keeps the next attempt that the
    claim recorded. `suppressed`: nothing was attempted. `waits_for`: the plugin whose failure ended the
    attempt. `account` is None when it is no longer configured: then nobody is told.
    """
    message = claimed.message
    error = outcome.error
    name: EventName
    then: Reschedule | Retire
    since = (claimed.waits_since or now) if waits_for else None
    if since is not None and now - since > WAITS_FOR_PLUGIN:
        retry = GiveUp(f"given up after {WAITS_FOR_PLUGIN.days} days")
    if not suppressed and outcome.result is Result.TEMPORARY and not isinstance(retry, GiveUp):
        name = "delayed"
        chosen = max(retry.time, now + SHORTEST) if isinstance(retry, RetryAt) else message.next_attempt
        if since is not None:  # its attempts do not count, so no schedule makes the pauses longer
            chosen = max(chosen, now + min(now - since, LONGEST_PAUSE))
        dialed = add_dialed(claimed.dialed_ips, outcome.dialed) if outcome.dialed else None
        then = Reschedule(
            next_attempt=chosen,
            dialed_ips=dialed,
            counted=outcome.counts,
            waits_for=waits_for,
            waits_since=since,
        )
    else:
        ended: RetiredAs = "failed"
        if suppressed:
            ended = "suppressed"
        elif outcome.result is Result.DELIVERED:
            ended = "delivered"
        elif isinstance(retry, GiveUp):
            error = f"{error} ({retry.reason})" if error else retry.reason
        name = ended
        then = Retire(retired_as=ended, success=ended == "delivered", keep_until=_keep_until(account, now))
    delivered = name == "delivered"
    return Settlement(
        message_id=message.id,
        token=claimed.token,
        attempt_id=claimed.attempt_id,
        outcome=outcome,
        transport=transport,
        duration=duration,
        then=then,
        event=EventDraft(
            name=name,
            # As mox: a delivery has no code, text or status in its event.
            code=0 if delivered else outcome.code,
            enhanced="" if delivered else outcome.enhanced,
            error="" if delivered else error,
            remote_mta=outcome.remote_mta,
            keep_until=keep_events_until(account, now),
            calls=outgoing_calls(account, name, now),
        ),
    )


def outgoing_calls(account: AccountSettings | None, name: EventName, now: datetime) -> tuple[CallDraft, ...]:
    """The webhook calls that an outgoing event makes: to each of the account's URLs that subscribe to it."""
    if account is None:
        return ()
    return tuple(
        call_draft(target, account, now, supersede=target.supersede and name != "unrecognized")
        for target in account.webhook_targets(name)
    )


def call_draft(
    target: WebhookTarget, account: AccountSettings, now: datetime, *, supersede: bool
) -> CallDraft:
    return CallDraft(
        url=target.url,
        authorization=target.authorization,
        format=target.format,
        supersede=supersede,
        superseded_keep_until=keep_webhooks_until(account, now),
    )


def ending(account: AccountSettings | None, name: EventName, now: datetime) -> Ending:
    """What an account's settings say of a message that leaves the queue with the event `name`."""
    return Ending(
        keep_until=_keep_until(account, now),
        event_keep_until=keep_events_until(account, now),
        calls=outgoing_calls(account, name, now),
    )


def keep_webhooks_until(account: AccountSettings | None, now: datetime) -> datetime | None:
    """Until when a webhook call that is over is kept; None: not at all."""
    days = account.keep_webhooks_days if account else 0
    return now + timedelta(days=days) if days else None


def keep_events_until(account: AccountSettings | None, now: datetime) -> datetime:
    """Never less than webhook calls may still need the event."""
    return now + max(timedelta(days=account.keep_webhooks_days if account else 0), WEBHOOKS_MAY_TAKE)


def _keep_until(account: AccountSettings | None, now: datetime) -> datetime | None:
    """None: not kept at all."""
    days = account.keep_retired_days if account else 0
    return now + timedelta(days=days) if days else None
