"""The mail to an account whose URL was disabled. It goes to its Inbox only, and no webhook tells of it."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from gateway.config.settings import Settings
from gateway.mail.address import Address, ascii_domain
from gateway.mail.compose import Draft, Mailbox, compose, new_message_id
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.content import StoredBytes
from gateway.store.received import INBOX
from gateway.store.webhook_urls import UrlState

MAX_HOST = 100  # characters, in the subject
TEXT = """\
The account {account} has this URL for its webhooks:

    {url}

It is not called any more: {reason}.

Of what happens from now on, the calls are kept as failed{kept}, and none is made.

When the receiver works again, have it called: on the page about webhooks beside the web API, with
its method WebhookEnable, or by an operator:

    gateway webhook enable '{url}'

and what it missed can be sent again, also with the method WebhookReplay of the web API:

    gateway webhook replay --account {account} --url '{url}' --failed --after {since:%Y-%m-%dT%H:%M:%SZ}
"""


def disabled_notice(settings: Settings, state: UrlState, now: datetime) -> NewReceived | None:
    """The message to store with the change; None if the account is no longer configured."""
    account = settings.accounts.get(state.account)
    if account is None:
        return None
    postmaster, owner = Address("postmaster", settings.hostname), account.addresses[0]
    days = account.keep_webhooks_days
    host = urlsplit(state.url).hostname or ""
    subject = f"Webhooks to {host[:MAX_HOST]} are disabled"
    composed = compose(
        Draft(
            from_=[Mailbox("Mail gateway", postmaster)],
            to=[Mailbox("", owner)],
            message_id=new_message_id(ascii_domain(settings.hostname)),
            date=now,
            subject=subject,
            text=TEXT.format(
                account=state.account,
                url=state.url,
                reason=state.error,
                kept=f", for {days:g} days" if days else "",
                since=state.failing_since,
            ),
            headers=[("Auto-Submitted", "auto-generated")],  # RFC 3834, 5
        )
    )
    return NewReceived(
        content=StoredBytes(len(composed.data), data=composed.data),
        copies=(
            NewCopy(
                account=state.account,
                mailbox=INBOX,
                rcpt_to=str(owner),
                msg_from=str(postmaster),
                automated=True,
                message_id=composed.message_id,
                subject=subject,
            ),
        ),
    )
