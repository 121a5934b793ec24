"""What an operator can set for domains and accounts, and the routes that both, and the gateway, have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, get_args

from pydantic import Field, model_validator

from gateway.config.values import (
    AllEvents,
    AsTuple,
    DomainPatterns,
    EmailAddresses,
    Events,
    FormatName,
    HeaderValue,
    HttpUrl,
    Mailboxes,
    Secrets,
    Section,
    Separators,
    Text,
    without_login,
)
from gateway.model import EventName, RouteRule

OUTGOING: tuple[EventName, ...] = get_args(EventName)  # the names of events of messages that were sent
INCOMING = "incoming"  # the name of the event of a message that came in
MOX = "mox"  # the format of webhooks that is written where none is chosen


class Route(Section):
    """[[routes]], also in an account or a domain."""

    transport: Annotated[str, Field(min_length=1)]
    from_domains: DomainPatterns = ()
    to_domains: DomainPatterns = ()
    minimum_attempts: Annotated[int, Field(ge=0)] = 0
    name: str = ""  # for plugins that treat what goes this way in another way, such as `retry`

    @property
    def matches_all(self) -> bool:
        return not (self.from_domains or self.to_domains or self.minimum_attempts)

    @cached_property
    def rule(self) -> RouteRule:
        """For plugins."""
        return RouteRule(
            transport=self.transport,
            from_domains=self.from_domains,
            to_domains=self.to_domains,
            minimum_attempts=self.minimum_attempts,
            name=self.name,
        )


Routes = Annotated[tuple[Route, ...], AsTuple]
AccountNames = Annotated[tuple[str, ...], AsTuple, Field(min_length=1, max_length=100)]


class DomainSettings(Section):
    """[domains."example.org"]: a domain whose mail this gateway handles."""

    disabled: bool = False
    catchall_separator: Separators = ()  # such as "+": the localpart is cut there to find the account
    catchall_account: str = ""  # gets mail for this domain's other addresses
    # Localparts of addresses for which each of these accounts gets a copy. Nobody logs in with them.
    aliases: Mapping[str, AccountNames] = {}
    plugin_set: str = ""  # instead of the gateway's, for the stages of account scope
    routes: Routes = ()


class WebhookTarget(Section):
    """[[accounts.NAME.webhooks]]: one URL (beyond mox) that an account's webhooks go to."""

    url: HttpUrl
    authorization: Annotated[HeaderValue, Field(repr=False)] = ""  # the header's value
    events: AllEvents = ()  # none listed means all, "incoming" too
    supersede: bool = True  # outgoing only: drop a waiting call when a newer event of the message comes
    format: FormatName = MOX  # of the body; a plugin makes it
    secrets: Secrets = ()  # each signs; while one is changed there are two, the new one first


class MoxWebhookTarget(WebhookTarget):
    """[accounts.NAME.webhook_outgoing] and webhook_incoming, one each as mox has them."""

    events: Events = ()  # outgoing only; none listed means all


class AccountSettings(Section):
    """[accounts.NAME]: who may send, and receives."""

    addresses: Annotated[EmailAddresses, Field(min_length=1)]
    full_name: Text = ""
    plugin_set: str = ""  # instead of the domain's or the gateway's, for the stages of account scope
    plugin: Mapping[str, Mapping[str, Any]] = {}  # [accounts.NAME.plugin.PLUGIN]: over [plugin.PLUGIN]
    routes: Routes = ()
    webhook_outgoing: MoxWebhookTarget | None = None
    webhook_incoming: MoxWebhookTarget | None = None
    webhooks: Annotated[tuple[WebhookTarget, ...], AsTuple, Field(max_length=100)] = ()
    # Logins whose messages get a unique reverse-path for each recipient, so that what comes back says which
    # message it is about. The domains of all the account's addresses need a catchall separator.
    from_id_login_addresses: EmailAddresses = ()
    # Over the last 24 hours, counted for each recipient; 0 is the default, -1 no limit.
    max_messages_per_day: Annotated[int, Field(ge=-1)] = 0
    max_first_time_recipients_per_day: Annotated[int, Field(ge=-1)] = 0
    quota: Annotated[int, Field(ge=0)] = 0  # bytes in its mailboxes; 0: any number
    mailboxes: Mailboxes = ()  # of its own, beside those that every account has
    keep_retired_days: Annotated[float, Field(ge=0)] = 7.0
    keep_webhooks_days: Annotated[float, Field(ge=0)] = 7.0

    def all_webhook_targets(self) -> Iterator[tuple[WebhookTarget, tuple[str, ...]]]:
        """Each URL with the events that go there."""
        if self.webhook_outgoing is not None:
            yield self.webhook_outgoing, self.webhook_outgoing.events or OUTGOING
        if self.webhook_incoming is not None:
            yield self.webhook_incoming, (INCOMING,)
        for target in self.webhooks:
            yield target, target.events or (*OUTGOING, INCOMING)

    def webhook_targets(self, event: str) -> tuple[WebhookTarget, ...]:
        """Where calls for an event go, each with a call of its own: an outgoing one's name, or "incoming"."""
        return tuple(target for target, events in self.all_webhook_targets() if event in events)

    @model_validator(mode="after")
    def _one_call_for_each_url(self) -> AccountSettings:
        """Two calls for one event to one URL would supersede each other."""
        seen = set()
        for target, events in self.all_webhook_targets():
            for event in events:
                if (target.url, event) in seen:
                    raise ValueError(
                        f"{without_login(target.url)} would be called twice for {event!r}: give one of its"
                        " tables other events, or take it out"
                    )
                seen.add((target.url, event))
        return self
