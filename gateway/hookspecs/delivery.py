"""From the queue to the outcome of an attempt, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol

from gateway.hookspecs import checks
from gateway.hookspecs.marks import OnError, Scope, Verb, hookspec
from gateway.model import (
    Delivery,
    Earlier,
    FailureSource,
    GiveUp,
    Limits,
    NextHop,
    Outcome,
    QueuedMessage,
    RetryAt,
    Route,
    RouteRule,
    Suppress,
    Suppression,
    TransportType,
)


class DeliverySpecs(Protocol):
    """From the queue to the outcome of an attempt, and what follows from it."""

    @hookspec(verb=Verb.FIRST, scope=Scope.ACCOUNT, limit=5.0, on_error=OnError.DEFER, answer=bool)
    def suppressed(self, message: QueuedMessage, entry: Suppression | None, settings: Any) -> bool | None:
        """Decides whether a message is not sent because its recipient is suppressed.

        Called for each message when it is due, before its route is asked for. `entry`: what the account's
        suppression list has for the recipient's base address now, if anything. Answer True to end
        the message (event suppressed; nothing is dialled), False to send it (no other plugin is asked), None
        to leave it to the next. When nobody answers, it is sent.

        A failure: the message waits, no attempt is counted, and it is tried again.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Route,
        necessary=True,
        check=checks.route,
    )
    def route(self, message: QueuedMessage, routes: Sequence[RouteRule], settings: Any) -> Route | None:
        """Chooses the transport of an attempt.

        Called for each message when it is due, `message.attempts` counting the attempt that is about to be
        made. `routes`: the account's, then the domain's, then the gateway's. Answer a Route with the
        name of one of `[transports.NAME]`; None leaves it to the next plugin.

        A failure: the message waits, no attempt is counted, and it is tried again.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        necessary=True,
        check=checks.transports,
    )
    def transports(self, settings: Any) -> Mapping[str, TransportType] | None:
        """Registers types of transports: what `type = "..."` of `[transports.NAME]` can be.

        Called once, when the configuration is loaded. Answer the types by their names; two plugins must
        not use the same.

        A failure: the configuration is refused.
        """

    @hookspec(
        verb=Verb.AROUND,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.SKIP,
        answer=AbstractAsyncContextManager,
    )
    def around_attempt(self, delivery: Delivery, settings: Any) -> AbstractAsyncContextManager[object] | None:
        """Stands around an attempt: to trace, to measure, to wait for a turn.

        Called for each attempt before its transport; `contextlib.asynccontextmanager` makes the answer from
        a generator. None stays out. The manager runs in a task of its own: it may keep nurseries and cancel
        scopes open, which do not reach the attempt (nor do context variables that it sets). On leaving it is
        given the exception that the attempt raised, if any, which goes on whatever the manager does. It is
        left even when the attempt is cancelled, and then has its time limit to finish in.

        A failure on entering: the attempt goes on without it (with "defer": a temporary outcome). A failure
        on leaving is logged, whatever the policy.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=Limits,
        check=checks.shape,
    )
    def shape(self, hop: NextHop, settings: Any) -> Limits | None:
        """Limits what goes to a server at a time.

        Called for each server that an attempt is about to use, before a connection to it is opened or a kept
        one taken: often, so it should be quick. Answer the Limits; None leaves it to the next plugin. When
        nobody answers, there are none, and the gateway only slows down where a server asks for it.

        A failure: as if it had answered None.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=Outcome,
        check=checks.outcome,
    )
    def classify_outcome(
        self, outcome: Outcome, message: QueuedMessage, transport: str, settings: Any
    ) -> Outcome | None:
        """Says what an attempt's failure means: whether it is temporary, and what it is about.

        Called for each message whose attempt failed, before `retry` is asked. `outcome`: what the transport
        answered, as the plugin before left it. `transport`: the name of the transport, "" if none was
        reached. Answer a changed copy (`dataclasses.replace`): temporary or permanent, another `enhanced`,
        `error` or `about_recipient`; it can't become a success. None leaves it as it is.

        A failure: as if it had answered None.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(RetryAt, GiveUp),
        necessary=True,
        check=checks.retry,
    )
    def retry(
        self, message: QueuedMessage, outcome: Outcome, now: datetime, route: Route | None, settings: Any
    ) -> RetryAt | GiveUp | None:
        """Decides when a message is tried again after a temporary failure.

        Called for each message with a temporary outcome; `message.attempts` counts the attempt just made,
        unless nothing was tried (`outcome.counts` is False).
        `now` is an aware datetime in UTC; `route` is the way that the attempt took, None if it did not come
        as far. Answer RetryAt with an aware datetime, or GiveUp to make the failure permanent; None leaves it
        to the next plugin.

        A failure: the next attempt is made when the claim of this one said so.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(Suppress, bool),
        check=checks.suppress,
    )
    def suppress(
        self,
        message: QueuedMessage,
        outcome: Outcome,
        source: FailureSource,
        history: Sequence[Earlier],
        now: datetime,
        settings: Any,
    ) -> Suppress | Literal[False] | None:
        """Decides whether a failure puts the recipient on the account's suppression list.

        Called for each message that has failed for good, before that is recorded; once more if other messages
        to the address ended meanwhile. `outcome`: the last attempt's, or what the report says. `history`: the
        account's latest messages to the same address that were delivered or given up, the newest first, at
        most ten, without this one. Answer Suppress to add the address, False not to (no other plugin is
        asked), None to leave it to the next. When nobody answers, it is not added.

        A failure: as if it had answered None.
        """
