"""What the core asks the store to write: decisions as frozen data.

A decision is made outside, on a snapshot; the function that takes it checks the facts it relies on inside the
transaction and raises `gateway.errors.Stale` when they no longer hold. Times are aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gateway.mail.address import Address
from gateway.model import EnvIdOrigin, EventName, Outcome, QueuedMessage, ReceivedMessage, Suppression
from gateway.store.content import StoredBytes

STEP = 500  # rows in one transaction: holding more would stop every other write
# What each recipient counts for in the `size` of Store.write_together. Else they would go together by the
# thousand, and stop every other write too: 6,400 took 0.4 s.
MESSAGE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an action by filter. Call again with `position`, in another transaction, until it is None.

    `files` may be unlinked once the step is committed.
    """

    affected: int
    position: str | None
    files: tuple[str, ...] = ()


# --- Mail for a mailbox ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDraft:
    """A webhook call for the event it comes with: URL, Authorization and format as configured now."""

    url: str
    authorization: str = ""
    format: str = "mox"
    supersede: bool = True  # retires the calls that still wait for the same message and URL
    # How long those that it retires are kept; None removes them.
    superseded_keep_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingDraft:
    """The event "incoming" of a received message, and its calls."""

    keep_until: datetime
    calls: tuple[CallDraft, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCopy:
    """One account's copy of a message; the mailbox is made if it is missing."""

    account: str
    mailbox: str
    flags: tuple[str, ...] = ()
    mail_from: str = ""  # "" is the null sender
    mail_from_validated: bool = False
    rcpt_to: str = ""
    msg_from: str = ""
    msg_from_validated: bool = False
    dkim_verified_domains: tuple[str, ...] = ()
    remote_ip: str = ""
    dsn: bool = False
    automated: bool = False
    message_id: str = ""
    subject: str = ""
    quota: int = 0  # bytes that the account's mailboxes may hold with it; 0: any number
    event: IncomingDraft | None = None  # None: nobody is told (a sent copy, a report, a DSN of ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReceived:
    """A message for mailboxes: its content once, a row for each copy."""

    content: StoredBytes
    copies: tuple[NewCopy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRef:
    """Where a stored message's bytes are: here, or in a file below the content directory."""

    id: int
    size: int  # bytes
    data: bytes | None
    file: str | None


@dataclass(frozen=True, slots=True)
class Received:
    message: ReceivedMessage
    content: ContentRef


# --- Into the queue -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    address: Address
    destination: str  # what concurrency is limited by; not empty
    base_address: str = ""  # for the suppression list; empty: the address itself
    hold: bool = False
    from_id: str = ""
    from_id_secret: bool = False  # see model.QueuedMessage
    env_id: str = ""
    env_id_origin: EnvIdOrigin = "submitter"
    sender: Address | None = None  # a reverse-path of its own; None: the submission's
    dsn_notify: str = ""
    dsn_orcpt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessages:
    """A submission, composed and signed: one message for each recipient.

    Relies on `hold_generation`: the hold rules that `hold` was decided with.
    """

    account: str
    submission_id: str
    sender: Address | None  # reverse-path; None is the null sender
    recipients: tuple[NewRecipient, ...]
    content: StoredBytes
    message_id: str  # with its angle brackets
    message_id_secret: bool = False  # see model.QueuedMessage
    subject: str
    hold_generation: int
    not_before: datetime | None = None  # no attempt earlier than this
    has_8bit: bool = False
    smtputf8: bool = False
    require_tls: bool | None = None
    transport: str = ""
    future_release: str = ""
    dsn_ret: str = ""
    is_report: str = ""
    list_name: str = ""  # of a mailing list; "" for none
    max_attempts: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    # Over 24 hours, counted for each recipient; None is no limit.
    max_messages: int | None = None
    max_first_time: int | None = None
    sent_copy: NewReceived | None = None

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.content.size + (0 if self.sent_copy is None else self.sent_copy.content.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of destinations or URLs by what came of earlier attempts. A claim only reads it."""

    slow: Container[str] = ()  # kept us waiting in vain: one place each
    proven: Container[str] = ()  # took something lately
    unproven_room: int | None = None  # for all others together; None: as for any
    asked: tuple[str, ...] = ()  # with no room for others: the proven ones that are to be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Wanted: what is due, for at most `room` transactions, `per_destination` of each with `busy` under way.

    A transaction has up to `max_recipients` messages of one submission.
    """

    owner: str
    now: datetime
    lease_seconds: float
    room: int
    per_destination: int
    max_recipients: int
    busy: Mapping[str, int] = field(default_factory=dict)  # destination -> under way
    shared: bool = False  # other owners' leases count as well: look for them
    standing: Standing = Standing()
    position: str = ""  # as the claim before answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A message under lease, as it is after the claim. Its attempt is recorded already."""

    message: QueuedMessage
    token: int
    attempt_id: int
    lease_expires: datetime
    destination: str
    content: ContentRef
    future_release: str
    dsn_ret: str
    dsn_notify: str
    dsn_orcpt: str
    is_report: str
    dialed_ips: Mapping[str, list[str]]
    suppression: Suppression | None  # of the recipient, if it is on the account's list
    waits_since: datetime | None  # since when plugins have kept it waiting, if they have


@dataclass(frozen=True, slots=True)
class Claims:
    """What came of a claim: messages under lease, those of one SMTP transaction together.

    `more`: there may be more that is due now; claim again, with `position`. Else `next_due` is when the
    earliest message is due, in the past if its destination has no room; None: nothing waits.
    """

    transactions: tuple[tuple[Claimed, ...], ...]
    position: str
    more: bool
    next_due: datetime | None = None


# --- What became of a message ---------------------------------------------------------------------

RetiredAs = Literal["delivered", "failed", "suppressed", "canceled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """An event of a message; the store adds the message's own fields and whether it was suppressing."""

    name: EventName
    keep_until: datetime
    code: int = 0
    enhanced: str = ""
    error: str = ""
    dsn: bool = False
    remote_mta: str = ""
    matched_by: str = ""
    calls: tuple[CallDraft, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppress:
    """Put the message's recipient on its account's suppression list.

    Relies on `history`, if it is not None: the IDs that `settle.latest_retired` answered.
    """

    base_address: str
    original_address: str
    reason: str
    expires: datetime | None = None
    history: tuple[int, ...] | None = None
    list_name: str = ""  # for this mailing list alone; "" for all that the account sends


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    next_attempt: datetime
    dialed_ips: Mapping[str, list[str]] | None = None  # None: as they were
    counted: bool = True  # False: the attempt was none
    waits_for: str = ""  # the plugin whose failure ended the attempt
    waits_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    retired_as: RetiredAs
    success: bool
    keep_until: datetime | None  # None: removed at once
    keep_content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The result of a claimed attempt. Relies on the lease: with another token it is late."""

    message_id: int
    token: int
    attempt_id: int
    outcome: Outcome
    duration: float  # seconds
    transport: str
    then: Reschedule | Retire
    event: EventDraft | None = None
    suppress: Suppress | None = None
    notice: NewReceived | None = None  # our DSN, for the sender's mailbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came to be known outside of an attempt: a report that came back, or what an operator did.

    It is added to the history of the message, queued or retired. With `retire` it ends a queued message, and
    raises Stale if the message is no longer queued.
    """

    message_id: int
    code: int = 0
    enhanced: str = ""
    error: str = ""
    remote_mta: str = ""
    success: bool | None = None  # of a retired message, or of one that is being delivered; None: as it was
    trusted: bool = True  # False: anybody could have said so; no later suppression rests on it
    retire: Retire | None = None
    event: EventDraft | None = None
    suppress: Suppress | None = None
    notice: NewReceived | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What an account's configuration says of a message that is canceled now."""

    keep_until: datetime | None  # None: the message is removed at once
    event_keep_until: datetime
    calls: tuple[CallDraft, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the transaction did. `files` may be unlinked once it is committed."""

    applied: bool
    event_id: int = 0
    call_ids: tuple[int, ...] = ()
    suppressing: bool = False
    files: tuple[str, ...] = ()


# --- Webhook calls --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCalls:
    """As `Claim`, by URL."""

    owner: str
    now: datetime
    lease_seconds: float
    room: int
    per_url: int = 1
    busy: Mapping[str, int] = field(default_factory=dict)  # URL -> under way
    shared: bool = False  # as of Claim
    standing: Standing = Standing()
    position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A webhook call. `payload` is None until its first result is in, and in lists."""

    id: int
    account: str
    event_id: int
    event_name: str
    queue_msg_id: int
    url: str
    authorization: str
    format: str
    state: str
    submitted: datetime
    content_type: str
    payload: bytes | None
    attempts: int  # one under way included
    next_attempt: datetime
    leased: bool  # a call is under way
    token: int
    success: bool | None
    superseded_by: int
    error: str
    last_activity: datetime | None
    keep_until: datetime | None


@dataclass(frozen=True, slots=True)
class CallClaims:
    calls: tuple[Call, ...]
    position: str
    more: bool


# Of a URL: it took the call, it did not, it wants no more; "": the call never reached it.
Health = Literal["good", "bad", "gone", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The result of a claimed call. Relies on the lease: with another token only the history grows."""

    call_id: int
    account: str
    token: int
    start: datetime
    duration: float  # seconds
    url: str
    success: bool | None  # None: over without a request, as the format has nothing for the event
    payload: bytes
    content_type: str
    code: int = 0
    error: str = ""
    response: str = ""  # at most 512 bytes of it
    next_attempt: datetime | None = None  # None: the call is over
    keep_until: datetime | None = None  # once over; None: removed at once
    health: Health = ""  # what it says of the URL
