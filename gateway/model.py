"""The frozen data that the gateway and its plugins exchange.

Plugins import these names from `gateway`. They are snapshots: changing the world is done by answering
a hook, never by changing an argument. Times are aware datetimes in UTC; durations are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from pydantic import BaseModel

from gateway.frozen import freeze
from gateway.mail.address import Address
from gateway.mail.auth_results import AuthResults
from gateway.mail.dsn import DeliveryStatus, RecipientStatus
from gateway.mail.feedback import FeedbackReport
from gateway.mail.reading import ParsedMessage
from gateway.net.tls_results import TlsResult

if TYPE_CHECKING:
    from gateway.net.network import Network  # with all that DNS and TLS need

# --- Answers that several stages share -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reject:
    """A plugin's refusal: a public answer, not a failure.

    `code` is an SMTP reply code (400-599), `enhanced` an RFC 3463 status such as "5.7.1", `reason` text
    for a person. A 4xx asks the sender to try again later. `after`: of `receive_policy`, seconds that the
    client is kept waiting for it, at most an hour.
    """

    code: int
    enhanced: str
    reason: str
    after: float = 0.0

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599:
            raise ValueError(f"Reject.code must be an SMTP code from 400 to 599, not {self.code!r}")
        if any(ord(c) < 32 or ord(c) == 127 for c in self.enhanced + self.reason):
            raise ValueError("Reject.enhanced and Reject.reason must not contain control characters")
        if not 0 <= self.after <= 3600:
            raise ValueError(f"Reject.after must be 0 to 3600 seconds, not {self.after!r}")


# What an API key of an account may do; a password can do everything.
Scope = Literal["send", "read", "suppressions", "queue", "events"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# --- Submission ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A message that an account hands in, before it is signed and queued.

    The `submission` stage may answer a changed copy (`dataclasses.replace`): other recipients, other
    data, another `extra`. `data` is the whole message with CRLF line ends.
    """

    id: str  # in every log line of this message
    account: str
    login: Address
    via: Literal["api", "smtp"]
    reverse_path: Address
    recipients: tuple[Address, ...]
    header_from: Address
    data: bytes
    message_id: str  # with its angle brackets
    subject: str
    smtputf8: bool = False
    has_8bit: bool = False
    require_tls: bool | None = None
    not_before: datetime | None = None  # FutureRelease: no attempt earlier than this
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A message of an account whose gaps are filled for each recipient."""

    name: str
    engine: str  # by its name in the `template_engines` stage
    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A template with its gaps filled."""

    subject: str
    text: str
    html: str


class TemplateEngine(Protocol):
    """What a plugin registers in the `template_engines` stage: a language of templates.

    It runs in a worker process that is killed at its time limit. So it must be a function or a class that can
    be imported, and depend on nothing but its arguments.
    """

    def __call__(self, template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
        """What fills the template's gaps with one recipient's variables, which are values of JSON.

        Both raise TemplateError for what the template's author can mend: its syntax, a variable that is
        missing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRule:
    """Holds each message that every non-empty field matches; with all fields empty, every message."""

    id: int
    account: str = ""
    sender_domain: str = ""
    recipient_domain: str = ""

    def matches(self, account: str, sender_domain: str, recipient_domain: str) -> bool:
        return (
            self.account in ("", account)
            and self.sender_domain in ("", sender_domain)
            and self.recipient_domain in ("", recipient_domain)
        )


# --- The queue -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """One recipient's copy of a submission, as it stands in the queue (or, retired, in the history)."""

    id: int
    base_id: int  # ID of the first message of the same submission; 0 for a single recipient
    submission_id: str
    account: str
    sender: Address | None  # reverse-path; None is the null sender
    recipient: Address
    queued: datetime
    hold: bool
    attempts: int  # made so far, one under way included
    max_attempts: int  # 0: as the schedule has it
    next_attempt: datetime
    last_attempt: datetime | None
    message_id: str
    subject: str
    size: int  # bytes
    has_8bit: bool
    smtputf8: bool
    require_tls: bool | None
    transport: str  # empty: routes decide
    from_id: str
    env_id: str
    extra: Mapping[str, str]
    env_id_origin: EnvIdOrigin = "submitter"
    # The gateway made the identifier, with 128 random bits, and sent it to this recipient alone: who knows it
    # got the message.
    message_id_secret: bool = False
    from_id_secret: bool = False
    base_address: str = ""  # the recipient's, as of the stage `base_address` when it was queued

    def __post_init__(self) -> None:
        freeze(self, "extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRule:
    """A configured route. Empty domain lists match all; a leading dot matches the domain and those below."""

    transport: str
    from_domains: tuple[str, ...] = ()
    to_domains: tuple[str, ...] = ()
    minimum_attempts: int = 0  # earlier attempts that there must have been
    name: str = ""  # several may have one name


@dataclass(frozen=True, slots=True)
class Route:
    """The `route` stage's answer: the name of a transport of `[transports.NAME]`, and of the rule that chose
    it, by which other plugins may know it."""

    transport: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class NextHop:
    """A server that a connection is to be had to."""

    domain: str  # the recipients'
    host: str  # the MX host's name, or the smarthost's
    address: str  # the IP address; empty if it is not known yet
    port: int
    transport: str  # the name of one of [transports.NAME]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The `shape` stage's answer: how much may go to a server. 0 is no limit."""

    connections: int = 0  # at a time
    messages_per_connection: int = 0
    per_minute: float = 0.0  # messages; one for many recipients counts once
    key: str = ""  # who has the same shares the limits; empty: each host and port for itself
    wait: float = 30.0  # seconds for a place or a turn; after that the message is tried again later


class Result(enum.Enum):
    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attempt came to for one recipient. There is no other type for this."""

    result: Result
    code: int = 0  # SMTP reply code; 0 where no reply was had (no connection, DNS, TLS)
    enhanced: str = ""  # "5.1.1"
    error: str = ""  # for people; the remote's words included
    remote_mta: str = ""  # host name
    remote_ip: str = ""
    tls: str = ""  # version and verification, "" for none
    transcript: str = ""  # of a failure; no credentials, no message data
    # False: the sender or the session was refused, or nobody was asked; that says nothing of the recipient.
    about_recipient: bool = True
    dsn_passed_on: bool = False  # the next hop was told what the sender wants to hear: see DsnRequest
    unknown: bool = False  # of a failure: there was no answer to the whole message, which may have been taken
    # False, of a temporary one: nothing was tried, for limits of our own; no attempt is counted for it.
    counts: bool = True
    # The addresses that were tried, by host, in this order; kept while the message waits: see Delivery.
    dialed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # Of the connections that this delivery made, each in the outcome of one message only.
    tls_results: tuple[TlsResult, ...] = ()

    def __post_init__(self) -> None:
        freeze(self, "dialed")

    @classmethod
    def temporary(cls, error: str, *, code: int = 0, enhanced: str = "") -> Outcome:
        return cls(result=Result.TEMPORARY, code=code, enhanced=enhanced, error=error)

    @classmethod
    def permanent(cls, error: str, *, code: int = 0, enhanced: str = "") -> Outcome:
        return cls(result=Result.PERMANENT, code=code, enhanced=enhanced, error=error)


class Content(Protocol):
    """A stored message's bytes."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces of at most 64 KiB."""

    async def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnRequest:
    """What the sender wants to hear of one recipient (RFC 3461); empty is what was not said."""

    ret: Literal["", "FULL", "HDRS"] = ""
    notify: tuple[str, ...] = ()  # NEVER alone, or some of SUCCESS, FAILURE, DELAY
    orcpt: str = ""  # type;address, decoded: "rfc822;user@example.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt at one SMTP transaction: the messages share content and envelope but for the recipient."""

    messages: tuple[QueuedMessage, ...]
    content: Content
    hostname: str  # ours, for EHLO
    started: datetime
    deadline: datetime  # the lease's: a transport that takes longer is cancelled
    dsn: tuple[DsnRequest, ...] = ()  # one for each message; or none at all, when nothing was asked for
    # The addresses that earlier attempts tried, by host, the oldest first.
    dialed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "dialed")


class Transport(Protocol):
    """Hands messages to a next hop. Made once for each `[transports.NAME]`."""

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        """One outcome for each of `delivery.messages`, in order. To raise is a temporary outcome for all."""


@runtime_checkable
class ServingTransport(Transport, Protocol):
    """A transport with work between deliveries, such as connections to end."""

    async def serve(self) -> None:
        """Runs as long as the gateway does, and is cancelled after the last delivery."""


@dataclass(frozen=True, slots=True)
class TransportType:
    """What a plugin registers in the `transports` stage: `type = "..."` of `[transports.NAME]`."""

    settings: type[BaseModel]  # of [transports.NAME], without `type`
    make: Callable[[str, Any, Network], Transport]  # (name, parsed settings, what transports share)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again, not before `time`."""

    time: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is permanent now; `reason` says why."""

    reason: str


# --- Suppression ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """An entry of an account's suppression list: no mail to addresses that have this base address."""

    id: int
    created: datetime
    account: str
    base_address: str
    original_address: str  # the address that caused it
    manual: bool  # a person's, not a failure's
    reason: str
    expires: datetime | None  # None: never
    list_name: str = ""  # the mailing list that it holds for; "" for all that the account sends


@dataclass(frozen=True, slots=True)
class Suppress:
    """The `suppress` stage's answer: the recipient goes on the account's suppression list.

    `reason` is text for a person. With `expires` the entry holds until then, else until it is removed.
    """

    reason: str
    expires: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier message of the same account to the same address, delivered or given up."""

    id: int
    time: datetime  # when something was last known of it
    success: bool  # whatever a report says that anybody could have written


# Who says that a delivery failed: an attempt of ours, or a delivery status notification that came back. A
# complaint says that it was not wanted.
FailureSource = Literal["queue", "dsn", "complaint"]


# --- Events and webhooks -------------------------------------------------------------------------

# Who made an envelope's identifier (ENVID): the submitter; or the gateway, with 128 random bits, for all that
# share a transaction, or for one recipient alone, so that who knows it got the message.
EnvIdOrigin = Literal["submitter", "transaction", "recipient"]
EventName = Literal[
    "delivered",
    "suppressed",
    "delayed",
    "failed",
    "relayed",
    "expanded",
    "canceled",
    "unrecognized",
    "complained",
    "unsubscribed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something became known about a message that the account sent. IDs are in commit order."""

    id: int
    time: datetime
    account: str
    name: EventName
    queue_msg_id: int
    from_id: str
    message_id: str
    subject: str
    recipient: str
    attempt: int
    dsn: bool = False
    suppressing: bool = False
    code: int = 0
    enhanced: str = ""
    error: str = ""
    remote_mta: str = ""
    matched_by: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    sender: str = ""  # MAIL FROM, with its FromID; "" is the null sender, or not known any more

    def __post_init__(self) -> None:
        freeze(self, "extra")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A stored message of an account's mailbox, without its content."""

    id: int
    account: str
    mailbox: str
    received: datetime
    size: int
    flags: tuple[str, ...]
    mail_from: str  # "" is the null sender
    mail_from_validated: bool
    rcpt_to: str
    msg_from: str
    msg_from_validated: bool
    dkim_verified_domains: tuple[str, ...]
    remote_ip: str
    dsn: bool
    automated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingEvent:
    """A message arrived for the account."""

    id: int
    time: datetime
    account: str
    message: ReceivedMessage
    parsed: ParsedMessage
    data: bytes  # the whole message


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """The `format_webhook` stage's answer."""

    body: bytes
    content_type: str = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookCall:
    """A request of a webhook call that is about to be made."""

    id: int  # X-Mox-Webhook-ID: the same in retries and replays; 0 of a test
    account: str
    event: str  # an EventName, or "incoming"
    url: str
    format: str
    attempt: int  # from 1
    time: datetime
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)  # the URL's, "whsec_..."


# --- Reports that come back -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingReport:
    """A received message that may say what became of one that the account sent."""

    account: str
    mail_from: Address | None  # None is the null sender
    rcpt_to: Address
    # What follows a catchall separator in its localpart or in that of feedback.mail_from: where a FromID is.
    details: tuple[str, ...]
    message_id: str
    subject: str
    dsn: DeliveryStatus | None  # what a bounce says, of whatever format; None: it is none
    content: Content  # the whole message
    feedback: FeedbackReport | None = None  # None: it is no feedback report
    automatic: str = ""  # what a machine wrote that is neither; "" for none


class SentMessages(Protocol):
    """What the account sent, queued or retired."""

    async def find(
        self, *, from_id: str = "", env_id: str = "", message_id: str = ""
    ) -> Sequence[QueuedMessage]:
        """The messages with all the identifiers given, the newest first, at most 1,000; none for none."""

    async def get(self, queue_msg_id: int) -> QueuedMessage | None:
        """The message of that ID."""


@dataclass(frozen=True, slots=True)
class ReportMatch:
    """The `match_report` stage's answer: what the report is about.

    `by` goes into the event's MatchedBy. `recipient` says what became of the message (one of
    `report.dsn.recipients`, say), or is None if nothing can be made of the report, for `reason`. A feedback
    report needs neither, it says all by itself. `trusted`: nobody could forge it, so a failure or a complaint
    may put the recipient on the suppression list.
    """

    queue_msg_id: int
    by: str
    recipient: RecipientStatus | None = None
    trusted: bool = False
    reason: str = ""


# --- Reception -----------------------------------------------------------------------------------


async def _not_stored() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """An SMTP transaction on the inbound listener, as far as it has come.

    `step` says what the answer decides: "mail" (the reverse-path), "rcpt" (the last of `recipients`), or
    "data" (the whole message). Only then there are `header`, `content` and `auth`, and `stored` is of use: it
    answers, once that is known, whether the message was taken. Await it in a task that a service or a
    transport of the plugin runs; the policy itself decides before.
    """

    step: Literal["mail", "rcpt", "data"]
    remote_ip: str
    helo: str
    reverse_path: Address | None
    recipients: tuple[Address, ...] = ()
    header: bytes = b""  # as the client sent it, at most 1 MiB
    content: Content | None = None  # the whole message, our Return-Path, Received and results before it
    auth: AuthResults | None = None  # SPF, DKIM, DMARC; None where nothing is verified
    stored: Callable[[], Awaitable[bool]] = _not_stored


@dataclass(frozen=True, slots=True)
class Accept:
    """The `receive_policy` stage's "yes, and ask nobody else".

    `mailbox`: where the message goes, at the step "data"; it is made if it is missing. Empty: the Inbox.
    """

    mailbox: str = ""
