"""Every stage that a plugin can take: one typed, documented hook each.

A plugin is a module, a class or an object that has functions of these names, marked with `@hookimpl`:

    from gateway import QueuedMessage, Route, hookimpl

    @hookimpl
    def route(message: QueuedMessage) -> Route | None:
        return Route("backup") if message.attempts > 3 else None

A function takes any subset of its hook's arguments, in any order, and `settings`: the plugin's own
settings, an instance of its pydantic model `Settings`, as configured for the account at hand.

`async def` is awaited under the hook's time limit. Plain `def` runs on the event loop and must not block;
`@hookimpl(thread=True)` gives a blocking function a thread, and its time limit back.

How a stage asks its plugins is its verb:

    FIRST   in the set's order, until one answers something else than None
    ALL     each one, once, when the configuration is loaded: plain `def` only
    FOLD    each gets as the hook's first argument what the one before answered; None changes nothing
    TELL    everyone hears it; nobody can stop it
    AROUND  each may answer an async context manager around a step, entered in the set's order and left in
            reverse; none can swallow or replace what the step returns or raises

What happens when a plugin raises, does not answer in time or answers something of another type:

    DEFER     PluginError: the caller does not go on, and the message waits and is tried again later
    FALLBACK  as if it had answered None; when nobody else answers, the caller does what it can by itself
    SKIP      as if it had answered None

The configuration can set both: `limits = {HOOK = seconds}` and `on_error = {HOOK = "skip"}` under
`[plugin.NAME]`. Only where FALLBACK stands here, "defer" is refused: nothing may stop those steps.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, overload

import pluggy
from pydantic import AfterValidator, Field, ValidationInfo

from gateway import hookchecks
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

PROJECT = "gateway"  # pluggy's name for us
SETTINGS = "settings"  # the argument that every hook has
_SPEC = "gateway_hook"  # the attribute of a specification that holds its Spec
F = TypeVar("F", bound=Callable[..., Any])


class Verb(enum.Enum):
    FIRST = "first"
    ALL = "all"
    FOLD = "fold"
    TELL = "tell"
    AROUND = "around"


class Scope(enum.Enum):
    """Whose plugin set is asked."""

    GATEWAY = "gateway"
    ACCOUNT = "account"  # the account's, else the domain's, else the gateway's


class OnError(enum.Enum):
    DEFER = "defer"
    FALLBACK = "fallback"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the engine knows of a hook."""

    name: str
    arguments: tuple[str, ...]  # without `settings`
    verb: Verb
    scope: Scope
    limit: float  # seconds, for one plugin's answer; for AROUND each for entering and leaving
    on_error: OnError
    answer: tuple[type, ...]  # None is always an answer too
    necessary: bool  # a set without a plugin for it is refused
    check: Callable[..., str] | None  # (answer, *arguments): what is wrong with it; "" is nothing


def hookspec(
    *,
    verb: Verb,
    scope: Scope,
    limit: float,
    on_error: OnError,
    answer: type | tuple[type, ...],
    necessary: bool = False,
    check: Callable[..., str] | None = None,
) -> Callable[[F], F]:
    """Makes a method of `HookSpecs` a hook; the arguments are the fields of `Spec`."""

    def decorate(function: F) -> F:
        names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        if names[-1] != SETTINGS:
            raise TypeError(f"the last argument of hook {function.__name__!r} must be {SETTINGS!r}")
        spec = Spec(
            name=function.__name__,
            arguments=names[:-1],
            verb=verb,
            scope=scope,
            limit=limit,
            on_error=on_error,
            answer=answer if isinstance(answer, tuple) else (answer,),
            necessary=necessary,
            check=check,
        )
        setattr(function, _SPEC, spec)
        return pluggy.HookspecMarker(PROJECT)(function)

    return decorate


# --- What a plugin author uses -------------------------------------------------------------------


@overload
def hookimpl(function: F, /) -> F: ...


@overload
def hookimpl(
    *, thread: bool = False, limit: float | None = None, specname: str | None = None, **options: bool
) -> Callable[[F], F]: ...


def hookimpl(
    function: F | None = None,
    /,
    *,
    thread: bool = False,
    limit: float | None = None,
    specname: str | None = None,
    **options: bool,
) -> F | Callable[[F], F]:
    """Marks a function as a plugin's implementation of the hook of its name.

    `thread`: a plain `def` that blocks; it is run in one of the plugin's own few threads, and abandoned
    there at its limit. `limit`: seconds, instead of the hook's own. `specname`: the hook's name, if the
    function has another. `options` are pluggy's; `optionalhook=True` is for a hook that this version of the
    gateway may not have, and the others are refused when the plugin is loaded.
    """

    def mark(function: F) -> F:
        marked: dict[str, Any] = {"specname": specname, **options}
        pluggy.HookimplMarker(PROJECT)(function, **marked)
        # In pluggy's own record of the function, so that they go with it through every wrapper.
        getattr(function, f"{PROJECT}_impl").update(thread=thread, limit=limit)
        return function

    return mark if function is None else mark(function)


def _from_config_dir(path: Path, info: ValidationInfo) -> Path:
    return info.context["config_dir"] / path if info.context else path


# For a plugin's settings: a path, relative to the directory of the configuration file.
ConfigPath = Annotated[Path, Field(strict=False), AfterValidator(_from_config_dir)]


# --- The hooks -----------------------------------------------------------------------------------


class HookSpecs(Protocol):
    """The hooks. Each may also be `async def`, unless its verb is ALL."""

    # Before a message is queued

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=hookchecks.template_engines,
    )
    def template_engines(self, settings: Any) -> Mapping[str, TemplateEngine] | None:
        """Registers languages of templates: what `Engine` of TemplateSet can be.

        Called once, when the configuration is loaded. Answer the engines by their names; two plugins must not
        use the same.

        A failure: the configuration is refused.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(Submission, Reject),
        check=hookchecks.submission,
    )
    def submission(self, submission: Submission, settings: Any) -> Submission | Reject | None:
        """Looks at a message that an account hands in; may change or refuse it.

        Called once for each submission, after the gateway's own checks and before signing. Answer a changed
        copy (`dataclasses.replace`; not of id, account, login and via), `Reject` to refuse the message for
        all recipients, None to leave it as it is. The next plugin gets the changed one; after a Reject
        nobody is asked.

        A failure: the sender is asked to try again (API error, SMTP 451); nothing is queued.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=bytes,
        check=hookchecks.data,
    )
    def sign(self, data: bytes, submission: Submission, settings: Any) -> bytes | None:
        """Signs a message: the last that changes its data.

        Called once for each submission, after the stage `submission`. `data` is the whole message with
        CRLF line ends, as the plugin before left it (`submission.data` is as it was before all signing).
        Answer the whole message, usually with a header field prepended; None leaves it as it is.

        A failure: the sender is asked to try again; nothing is queued.
        """

    @hookspec(verb=Verb.FIRST, scope=Scope.ACCOUNT, limit=5.0, on_error=OnError.DEFER, answer=bool)
    def hold(
        self, submission: Submission, recipient: Address, rules: Sequence[HoldRule], settings: Any
    ) -> bool | None:
        """Decides whether one recipient's message waits in the queue until someone releases it.

        Called for each recipient of a submission when it is queued. `rules`: all hold rules in force. Answer
        True to hold, False not to (no other plugin is asked), None to leave it to the next. When nobody
        answers, the message is not held.

        A failure: the sender is asked to try again; nothing is queued.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=Address,
    )
    def base_address(self, address: Address, settings: Any) -> Address | None:
        """Says which addresses are one and the same for the suppression list: those of one base address.

        Called for each recipient when a message is queued, and when an address is added to the list, removed
        or looked up. The same address must always get the same answer. None leaves it to the next plugin.

        A failure: when nobody else answers, the address itself is its base address.
        """

    # Delivery

    @hookspec(verb=Verb.FIRST, scope=Scope.ACCOUNT, limit=5.0, on_error=OnError.DEFER, answer=bool)
    def suppressed(self, message: QueuedMessage, entry: Suppression | None, settings: Any) -> bool | None:
        """Decides whether a message is not sent because its recipient is suppressed.

        Called for each message when it is due, before its route is asked for. `entry`: what the account's
        suppression list has for the recipient's base address now, if anything. Answer True to end
        the message (event suppressed; nothing is dialled), False to send it (no other plugin is asked), None
        to leave it to the next. When nobody answers, it is sent.

        A failure: the attempt ends with a temporary outcome, and the message is tried again.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Route,
        necessary=True,
        check=hookchecks.route,
    )
    def route(self, message: QueuedMessage, routes: Sequence[RouteRule], settings: Any) -> Route | None:
        """Chooses the transport of an attempt.

        Called for each message when it is due, `message.attempts` counting the attempt that is about to be
        made. `routes`: the account's, then the domain's, then the gateway's. Answer a Route with the
        name of one of `[transports.NAME]`; None leaves it to the next plugin.

        A failure: the attempt ends with a temporary outcome, and the message is tried again.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        necessary=True,
        check=hookchecks.transports,
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
        check=hookchecks.shape,
    )
    def shape(self, hop: NextHop, settings: Any) -> Limits | None:
        """Limits what goes to a server at a time.

        Called for each server that an attempt is about to use, before a connection to it is opened or a kept
        one taken: often, so it should be quick. Answer the Limits; None leaves it to the next plugin. When
        nobody answers, there are none, and the gateway only slows down where a server asks for it.

        A failure: as if it had answered None.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(RetryAt, GiveUp),
        necessary=True,
        check=hookchecks.retry,
    )
    def retry(
        self, message: QueuedMessage, outcome: Outcome, now: datetime, settings: Any
    ) -> RetryAt | GiveUp | None:
        """Decides when a message is tried again after a temporary failure.

        Called for each message with a temporary outcome; `message.attempts` counts the attempt just made.
        `now` is an aware datetime in UTC. Answer RetryAt with an aware datetime, or GiveUp to make the
        failure permanent; None leaves it to the next plugin.

        A failure: the next attempt is made when the claim of this one said so.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(Suppress, bool),
        check=hookchecks.suppress,
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

    # What became of it

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=(DeliveryStatus, FeedbackReport, AutomaticReply),
        check=hookchecks.read_report,
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
        check=hookchecks.match_report,
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
        check=hookchecks.webhook,
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
        check=hookchecks.webhook_headers,
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

    # Reception

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(Accept, Reject),
        check=hookchecks.receive_policy,
    )
    def receive_policy(self, reception: Reception, settings: Any) -> Accept | Reject | None:
        """Accepts or refuses mail that comes in.

        Called at each step of an SMTP transaction on the inbound listener: MAIL FROM, each RCPT TO, and when
        the whole message is there and verified. Answer Accept (no other plugin is asked), in the end perhaps
        with a mailbox, Reject with the reply to give, None to leave it to the next. When nobody answers, it
        is accepted.

        A failure: 451, and the client tries again.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=str,
        check=hookchecks.mailbox,
    )
    def mailbox(
        self, reception: Reception, account: str, recipient: Address, chosen: str, settings: Any
    ) -> str | None:
        """Chooses the mailbox of a message that is taken.

        Called for each account that a message goes to, after `receive_policy` and before it is stored.
        `reception` is of the step "data". `recipient`: the one of its recipients that is the account's.
        `chosen`: where the message goes if nobody says otherwise, which is the mailbox of `receive_policy`,
        else the Inbox. Answer the name of a mailbox, which is made if it is missing; None leaves it to the
        next plugin.

        A failure: 451, and the client tries again.
        """


SPECS: Mapping[str, Spec] = {
    name: getattr(function, _SPEC) for name, function in vars(HookSpecs).items() if hasattr(function, _SPEC)
}
