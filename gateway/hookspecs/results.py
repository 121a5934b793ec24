"""What became of a message: reports that come back, events, webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from gateway.hookspecs import checks
from gateway.hookspecs.marks import OnError, Scope, Verb, hookspec
from gateway.mail.dsn import DeliveryStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.mail.report_source import ReportSource
from gateway.model import (
    Event,
    IncomingEvent,
    IncomingReport,
    ReportMatch,
    SentMessages,
    WebhookBody,
    WebhookCall,
)


class ResultSpecs(Protocol):
    """What became of a message: reports that come back, events, webhooks."""

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(DeliveryStatus, FeedbackReport, AutomaticReply),
        check=checks.read_report,
    )
    def read_report(
        self, source: ReportSource, settings: Any
    ) -> DeliveryStatus | FeedbackReport | AutomaticReply | None:
        """Reads a report: what became of a message, or a complaint about one.

        Called once for a received message that may be a report: it is a multipart/report, has the null sender
        or a mail system's, or came to an address with a catchall separator. Answer what it says: a
        DeliveryStatus or a FeedbackReport; or an AutomaticReply if a machine wrote it and it is neither. None
        leaves it to the next plugin. When nobody answers, it is no report.

        A failure: as if it had answered None.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(ReportMatch, tuple),
        check=checks.match_report,
    )
    def match_report(
        self, report: IncomingReport, sent: SentMessages, settings: Any
    ) -> ReportMatch | tuple[ReportMatch, ...] | None:
        """Says which message that the account sent a report is about.

        Called for each recipient of a received message that may be a report, with what `read_report` made of
        it. `sent` looks up what the account sent. Answer a match, or several for a report on several
        messages; None leaves it to the next plugin. When nobody answers, the message is announced as any
        other.

        A failure: as if it had answered None.
        """

    @hookspec(verb=Verb.TELL, scope=Scope.ACCOUNT, limit=5.0, on_error=OnError.SKIP, answer=type(None))
    def event(self, event: Event | IncomingEvent, settings: Any) -> None:
        """Hears of everything that becomes known about an account's messages, in the order of commits.

        Called after the commit, at least once for each event: after a crash some are told again. Answers
        nothing.

        A failure: logged; the others hear it nevertheless.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(WebhookBody, bool),
        necessary=True,
        check=checks.webhook,
    )
    def format_webhook(
        self, event: Event | IncomingEvent, format_name: str, settings: Any
    ) -> WebhookBody | Literal[False] | None:
        """Writes the body of a webhook call.

        Called before the first call for an event to a URL; later calls repeat the same bytes. `format_name`:
        the URL's `format`, "mox" where none is chosen. A plugin that writes one format answers None for the
        others, and for what it leaves to the next plugin; False if the format has nothing for the event: then
        no call is made. At start each format in use is tried with an example.

        A failure: formatting is tried again later.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=checks.webhook_headers,
    )
    def sign_webhook(
        self, headers: Mapping[str, str], call: WebhookCall, settings: Any
    ) -> Mapping[str, str] | None:
        """Signs a request of a webhook call: adds header fields.

        Called before each request, retries and replays included. `headers`: the fields that are sent, as the
        plugin before left them. Answer all of them, with others added or changed; None leaves them as they
        are. Host and the fields that say where the body ends are the gateway's.

        A failure: nothing is sent, and the call is tried again later.
        """

    @hookspec(
        verb=Verb.AROUND,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.SKIP,
        answer=AbstractAsyncContextManager,
    )
    def around_webhook(self, call: WebhookCall, settings: Any) -> AbstractAsyncContextManager[object] | None:
        """Stands around a request of a webhook call: to trace, to measure, to wait for a turn.

        Called before each request, once it is signed. The manager is held as that of `around_attempt` is.

        A failure on entering: the request is made without it (with "defer": the call is tried again later).
        A failure on leaving is logged, whatever the policy.
        """
