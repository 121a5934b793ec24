"""Example events: for test calls, and to find out at start whether a plugin writes a format."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from gateway.config.accounts import INCOMING, MOX, AccountSettings
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.hooks.stages import Hooks
from gateway.mail.fields import format_date
from gateway.mail.reading import parse_message
from gateway.model import Event, EventName, IncomingEvent, ReceivedMessage
from gateway.store.received import INBOX

RECIPIENT = "ada@example.com"
MESSAGE_ID = "<test@example.com>"
_FAILURES = frozenset({"failed", "delayed", "suppressed"})


def example_event(name: str, account: str, settings: AccountSettings, now: datetime) -> Event | IncomingEvent:
    """What could have happened to the account just now; `name` is an outgoing event's, or "incoming"."""
    if name == INCOMING:
        return _incoming(account, str(settings.addresses[0]), now)
    failure = name in _FAILURES
    return Event(
        id=0,
        time=now,
        account=account,
        name=cast(EventName, name),
        queue_msg_id=0,
        from_id="",
        message_id=MESSAGE_ID,
        subject="A test of your webhook",
        recipient=RECIPIENT,
        attempt=1,
        code=550 if failure else 0,
        enhanced="5.1.1" if failure else "",
        error="550 5.1.1 this is a test: there is no such address" if failure else "",
        remote_mta="mail.example.com",
        extra={"test": "yes"},
        sender=str(settings.addresses[0]),
    )


def _incoming(account: str, address: str, now: datetime) -> IncomingEvent:
    data = (
        f"From: Ada <{RECIPIENT}>\r\nTo: <{address}>\r\nSubject: A test of your webhook\r\n"
        f"Message-ID: {MESSAGE_ID}\r\nDate: {format_date(now)}\r\n\r\nThis is a test.\r\n"
    ).encode()
    message = ReceivedMessage(
        id=0,
        account=account,
        mailbox=INBOX,
        received=now,
        size=len(data),
        flags=(),
        mail_from=RECIPIENT,
        mail_from_validated=True,
        rcpt_to=address,
        msg_from=RECIPIENT,
        msg_from_validated=True,
        dkim_verified_domains=("example.com",),
        remote_ip="192.0.2.1",
        dsn=False,
        automated=False,
    )
    parsed = parse_message(data)
    return IncomingEvent(id=0, time=now, account=account, message=message, parsed=parsed, data=data)


async def check_formats(settings: Settings, hooks: Hooks, now: datetime) -> None:
    """Raises ConfigError if a URL has a format that no plugin writes.

    One that fails may be better when the first call is due, and is left alone.
    """
    seen = set()
    for account, configured in settings.accounts.items():
        stages = hooks.for_account(account)
        asked = stages.plugins("format_webhook")
        for target, (event, *_) in configured.all_webhook_targets():
            if target.format == MOX or (stages, target.format, event) in seen:
                continue
            seen.add((stages, target.format, event))
            before = [hooks.calls[plugin, "format_webhook"].failures for plugin in asked]
            example = example_event(event, account, configured, now)
            answer = await stages.format_webhook(event=example, format_name=target.format)
            failed = before != [hooks.calls[plugin, "format_webhook"].failures for plugin in asked]
            if answer is None and not failed:
                raise ConfigError(
                    f"accounts.{account}: webhooks to {target.url} have the format {target.format!r},"
                    f" which no plugin of its set writes; asked were {', '.join(asked)}"
                )
