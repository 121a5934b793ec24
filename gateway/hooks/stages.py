"""The typed methods by which core code asks plugins, one for each hook of `gateway.hookspecs`.

`gateway.plugins.tables` compiles each plugin set into a table, hook to calls, that never changes: a reload
makes new tables, and work under way keeps the ones that it began with. What the hooks mean, and what
becomes of a plugin's failure, is written in `gateway.hookspecs`; every method here raises `PluginError` where
a plugin fails whose policy is DEFER. An answer of the wrong type is a failure, so what comes out here is what
the signature says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import click
import trio

from gateway.hooks.calls import Call, Calls
from gateway.hooks.verbs import around, first, fold, tell
from gateway.hookspecs.additions import (
    ApiMethod,
    AsgiApplication,
    Collector,
    ContentStore,
    Credentials,
    GatewayContext,
    LoginAnswer,
    Service,
)
from gateway.mail.address import Address
from gateway.mail.dsn import DeliveryStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.mail.report_source import ReportSource
from gateway.model import (
    Accept,
    Delivery,
    Earlier,
    Event,
    FailureSource,
    GiveUp,
    HoldRule,
    IncomingEvent,
    IncomingReport,
    Limits,
    NextHop,
    Outcome,
    QueuedMessage,
    Reception,
    Reject,
    ReportMatch,
    RetryAt,
    Route,
    RouteRule,
    SentMessages,
    Submission,
    Suppress,
    Suppression,
    TemplateEngine,
    TransportType,
    WebhookBody,
    WebhookCall,
)

T = TypeVar("T")
Table = Mapping[str, tuple[Call, ...]]


class _Asked:
    """Who answers which hook."""

    __slots__ = ("_table",)

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def table(self) -> Table:
        """Everyone's calls, by hook."""
        return self._table

    def has(self, hook: str) -> bool:
        """Whether any plugin takes the stage."""
        return hook in self._table

    def plugins(self, hook: str) -> tuple[str, ...]:
        """The plugins that take the stage, in the order in which they are asked."""
        return tuple(call.plugin for call in self._table.get(hook, ()))


class Stages(_Asked):
    """The hooks of account scope, as one account's plugin set and settings have them."""

    __slots__ = ()

    async def submission(self, *, submission: Submission) -> Submission:
        """The submission as the plugins leave it. Raises RejectedByPlugin when one refuses it."""
        calls = self._table.get("submission")
        changed: Submission = await fold(calls, submission) if calls else submission
        return changed

    async def sign(self, *, data: bytes, submission: Submission) -> bytes:
        """The message with its signatures."""
        calls = self._table.get("sign")
        signed: bytes = await fold(calls, data, submission) if calls else data
        return signed

    async def hold(
        self, *, submission: Submission, recipient: Address, rules: Sequence[HoldRule]
    ) -> bool | None:
        """Whether to hold; None when nobody says."""
        calls = self._table.get("hold")
        answer: bool | None = await first(calls, submission, recipient, rules) if calls else None
        return answer

    async def base_address(self, *, address: Address) -> Address | None:
        """The address that stands for this one and its like; None when nobody says."""
        calls = self._table.get("base_address")
        answer: Address | None = await first(calls, address) if calls else None
        return answer

    async def suppressed(self, *, message: QueuedMessage, entry: Suppression | None) -> bool | None:
        """Whether not to send; None when nobody says."""
        calls = self._table.get("suppressed")
        answer: bool | None = await first(calls, message, entry) if calls else None
        return answer

    async def route(self, *, message: QueuedMessage, routes: Sequence[RouteRule]) -> Route | None:
        """The transport to use; None when nobody says."""
        calls = self._table.get("route")
        answer: Route | None = await first(calls, message, routes) if calls else None
        return answer

    def around_attempt(self, *, delivery: Delivery) -> AbstractAsyncContextManager[None]:
        """Use it around the attempt."""
        calls = self._table.get("around_attempt")
        return around(calls, delivery) if calls else nullcontext()

    async def classify_outcome(self, *, outcome: Outcome, message: QueuedMessage, transport: str) -> Outcome:
        """What the failure means, as the plugins have it."""
        calls = self._table.get("classify_outcome")
        classified: Outcome = await fold(calls, outcome, message, transport) if calls else outcome
        return classified

    async def retry(
        self, *, message: QueuedMessage, outcome: Outcome, now: datetime, route: Route | None = None
    ) -> RetryAt | GiveUp | None:
        """What to do after a temporary failure of an attempt on this way; None when nobody says."""
        calls = self._table.get("retry")
        answer: RetryAt | GiveUp | None = await first(calls, message, outcome, now, route) if calls else None
        return answer

    async def suppress(
        self,
        *,
        message: QueuedMessage,
        outcome: Outcome,
        source: FailureSource,
        history: Sequence[Earlier],
        now: datetime,
    ) -> Suppress | None:
        """What to add to the suppression list after a failure; None for nothing."""
        calls = self._table.get("suppress")
        answer: Suppress | bool | None = (
            await first(calls, message, outcome, source, history, now) if calls else None
        )
        return answer if isinstance(answer, Suppress) else None

    async def match_report(self, *, report: IncomingReport, sent: SentMessages) -> tuple[ReportMatch, ...]:
        """The messages that it is about; none when nobody says."""
        calls = self._table.get("match_report")
        answer: ReportMatch | tuple[ReportMatch, ...] | None = (
            await first(calls, report, sent) if calls else None
        )
        return (answer,) if isinstance(answer, ReportMatch) else answer or ()

    async def mailbox(
        self, *, reception: Reception, account: str, recipient: Address, chosen: str
    ) -> str | None:
        """Where a message goes; None when nobody says."""
        calls = self._table.get("mailbox")
        answer: str | None = await first(calls, reception, account, recipient, chosen) if calls else None
        return answer

    async def event(self, *, event: Event | IncomingEvent) -> None:
        """Tells all observers."""
        calls = self._table.get("event")
        if calls:
            await tell(calls, event)

    async def format_webhook(
        self, *, event: Event | IncomingEvent, format_name: str
    ) -> WebhookBody | bool | None:
        """The body of the webhook call; False when there is none for the event, None when nobody could
        format it."""
        calls = self._table.get("format_webhook")
        answer: WebhookBody | bool | None = await first(calls, event, format_name) if calls else None
        return answer

    async def sign_webhook(self, *, headers: Mapping[str, str], call: WebhookCall) -> Mapping[str, str]:
        """The header fields with the signatures."""
        calls = self._table.get("sign_webhook")
        signed: Mapping[str, str] = await fold(calls, headers, call) if calls else headers
        return signed

    def around_webhook(self, *, call: WebhookCall) -> AbstractAsyncContextManager[None]:
        """Use it around the request."""
        calls = self._table.get("around_webhook")
        return around(calls, call) if calls else nullcontext()


class GatewayStages(_Asked):
    """The hooks of gateway scope. (Those of the verb ALL are asked when loading: see `Hooks`.)"""

    __slots__ = ()

    async def shape(self, *, hop: NextHop) -> Limits | None:
        """The limits of a server; None when nobody says."""
        calls = self._table.get("shape")
        answer: Limits | None = await first(calls, hop) if calls else None
        return answer

    async def read_report(
        self, *, source: ReportSource
    ) -> DeliveryStatus | FeedbackReport | AutomaticReply | None:
        """What a message reports; None when nobody says."""
        calls = self._table.get("read_report")
        answer: DeliveryStatus | FeedbackReport | AutomaticReply | None = (
            await first(calls, source) if calls else None
        )
        return answer

    async def authenticate(self, *, credentials: Credentials) -> LoginAnswer | None:
        """Who it is, False for a refusal; None when nobody says."""
        calls = self._table.get("authenticate")
        answer: LoginAnswer | None = await first(calls, credentials) if calls else None
        return answer

    async def start(self, *, gateway: GatewayContext) -> None:
        """Tells all that the gateway starts."""
        await tell(self._table.get("start", ()), gateway)

    async def stop(self, *, gateway: GatewayContext) -> None:
        """Tells all that the gateway stops."""
        await tell(self._table.get("stop", ()), gateway)

    async def receive_policy(self, *, reception: Reception) -> Accept | Reject | None:
        """Whether to take the mail; None when nobody says."""
        calls = self._table.get("receive_policy")
        answer: Accept | Reject | None = await first(calls, reception) if calls else None
        return answer


Named = Mapping[str, tuple[str, T]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What the hooks of the verb ALL registered: by name, each with its plugin's name."""

    transports: Named[TransportType]
    template_engines: Named[TemplateEngine]
    api_methods: Named[ApiMethod]
    pages: Named[AsgiApplication]
    commands: Named[click.Command]
    services: Named[Service]
    content_stores: Named[ContentStore]
    metrics: Sequence[tuple[str, Collector]]  # each with its plugin's name


class Hooks:
    """All plugins of one configuration, loaded. Never changes; a reload makes another.

    `gateway`: the stages of gateway scope. `transports`: what the plugins registered, by type name.
    `added`: what they registered otherwise, by name, each with its plugin's name.
    `calls`: the tallies. `limiters`: each plugin's threads.
    """

    def __init__(
        self,
        *,
        gateway: GatewayStages,
        stages: Mapping[str, Stages],
        transports: Mapping[str, TransportType],
        added: Added,
        calls: Calls,
        limiters: Mapping[str, trio.CapacityLimiter],
    ) -> None:
        self.gateway, self.transports, self.calls, self.limiters = gateway, transports, calls, limiters
        self.added = added
        self._stages = stages  # by account, and "" for one that is not configured

    def for_account(self, account: str) -> Stages:
        """The stages of account scope: of the account's plugin set, else of its first address's domain's,
        else of the gateway's, which an account that is not configured has too."""
        return self._stages.get(account) or self._stages[""]
