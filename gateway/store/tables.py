"""The schema: every table, its columns and why its indexes are there.

Rows are written with SQLAlchemy Core statements; `gateway.model` has the frozen types that leave the store.
IDs are AUTOINCREMENT: one that was seen once never names anything else. Times are microseconds since 1970
in the database and aware UTC datetimes in Python. Domains are in Unicode form, case-folded.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970: exact, ordered, the same on every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def _id() -> Any:
    # SQLite's AUTOINCREMENT needs the type INTEGER; elsewhere 64 bits.
    return Field(
        default=None,
        sa_type=cast(Any, sa.BigInteger().with_variant(sa.Integer(), "sqlite")),
        primary_key=True,
    )


def _ref(*, null: bool = False) -> Any:
    """Another row's ID; 0 or NULL for none. No foreign keys: they would be checked on the hot path."""
    return Field(default=None if null else 0, sa_type=cast(Any, sa.BigInteger), nullable=null)


def _big() -> Any:
    """A number that may need more than 32 bits."""
    return Field(default=0, sa_type=cast(Any, sa.BigInteger), nullable=False)


def _time(*, null: bool = False) -> Any:
    return Field(default=None, sa_type=cast(Any, UtcTime), nullable=null)


def _json() -> Any:
    return Field(default_factory=dict, sa_type=cast(Any, sa.JSON), nullable=False)


def _options(*indexes: sa.Index | sa.UniqueConstraint) -> Any:
    return (*indexes, {"sqlite_autoincrement": True})


def _index(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    """A partial index. A query must repeat the condition word for word, or SQLite does not use it."""
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


MESSAGE_READY = "state = 'queued' AND NOT hold AND lease_owner IS NULL"
MESSAGE_WAITING = "waits_for <> ''"
CALL_READY = "state = 'queued' AND lease_owner IS NULL"


class ContentRow(SQLModel, table=True):
    """A message's bytes, stored once for all who refer to it: small ones here, large ones in a file."""

    __tablename__ = "content"
    __table_args__ = _options()
    id: int = _id()
    size: int
    data: bytes | None = None
    file: str | None = Field(
        default=None, unique=True
    )  # a content store and a name in it; a name alone: of the built-in one
    created: datetime = _time()


class MessageRow(SQLModel, table=True):
    """One recipient's copy of a submission, from queued to retired (retiring is a change of state)."""

    __tablename__ = "message"
    __table_args__ = _options(
        # What may be claimed: the earliest of all, or the earliest of one destination.
        _index("message_due", "next_attempt", "id", "destination", where=MESSAGE_READY),
        _index("message_ready", "destination", "next_attempt", "id", where=MESSAGE_READY),
        _index("message_leased", "lease_expires", where="lease_owner IS NOT NULL"),
        # Lists and actions by filter, in either order, of everybody or of one account: the messages of others
        # are passed over within the index.
        sa.Index("message_next", "state", "next_attempt", "id", "account"),
        sa.Index("message_queued", "state", "queued", "id"),
        sa.Index("message_account", "account", "state", "queued", "id"),
        _index("message_held", "account", "id", where="hold"),
        # Those that may share a transaction.
        _index(
            "message_siblings",
            "base_id",
            "destination",
            "next_attempt",
            where=f"base_id <> 0 AND {MESSAGE_READY}",
        ),
        _index("message_content", "content_id", where="content_id IS NOT NULL"),
        # FromIDs are unique over queued and retired messages.
        _index("message_from_id", "from_id", where="from_id <> ''", unique=True),
        _index("message_env_id", "env_id", where="env_id <> ''"),
        sa.Index("message_message_id", "message_id"),
        # The rule of three: an account's latest retired messages to an address.
        _index(
            "message_history",
            "account",
            "recipient_domain",
            "recipient_localpart",
            "last_activity",
            where="state = 'retired'",
        ),
        _index("message_keep", "keep_until", where="keep_until IS NOT NULL"),
        _index("message_waiting", "waits_for", "id", where=MESSAGE_WAITING),
    )
    id: int = _id()
    base_id: int = _ref()
    submission_id: str
    state: str = "queued"  # queued, retired
    account: str
    queued: datetime = _time()
    hold: bool = False
    sender_localpart: str = ""  # both empty: the null sender
    sender_domain: str = ""
    recipient_localpart: str
    recipient_domain: str
    base_address: str = ""  # of the recipient, for the suppression list
    destination: str  # what concurrency is limited by: the recipient domain, or a transport's coarser key
    from_id: str = ""
    env_id: str = ""
    # Whether the gateway made it, with 128 random bits, for this recipient alone.
    env_id_origin: str = "submitter"  # model.EnvIdOrigin
    message_id_secret: bool = False
    message_id: str
    subject: str = ""
    size: int
    has_8bit: bool = False
    smtputf8: bool = False
    require_tls: bool | None = None
    transport: str = ""
    future_release: str = ""  # as requested: "for;3600" or "until;2030-01-01T00:00:00Z" (RFC 4865)
    dsn_ret: str = ""
    dsn_notify: str = ""
    dsn_orcpt: str = ""
    is_report: str = ""  # dmarc, tls
    extra: dict[str, str] = _json()
    content_id: int | None = _ref(null=True)
    attempts: int = 0
    max_attempts: int = 0
    dialed_ips: dict[str, list[str]] = _json()
    next_attempt: datetime = _time()
    last_attempt: datetime | None = _time(null=True)
    # The lease of an attempt under way. `lease_token` only grows: it fences off a late owner's result.
    lease_owner: str | None = None
    lease_token: int = 0
    lease_expires: datetime | None = _time(null=True)
    # Once retired:
    retired_as: str = ""  # the event with which it left: delivered, failed, suppressed, canceled
    success: bool | None = None
    last_activity: datetime | None = _time(null=True)
    keep_until: datetime | None = _time(null=True)
    # The mailing list that it belongs to: its recipient may be suppressed for that alone. Empty: none.
    list_name: str = Field(default="", sa_column_kwargs={"server_default": ""})
    # As message_id_secret: not where the submitter chose the FromID.
    from_id_secret: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    # The plugin whose failure ended the last attempt, and since when plugins have kept it waiting.
    waits_for: str = Field(default="", sa_column_kwargs={"server_default": ""})
    waits_since: datetime | None = _time(null=True)


class AttemptRow(SQLModel, table=True):
    """One attempt at a message, written when it is claimed and finished when it is settled."""

    __tablename__ = "attempt"
    __table_args__ = _options(sa.Index("attempt_message", "message_id", "id"))
    id: int = _id()
    message_id: int = _ref()
    number: int  # from 1; 0 for what was no attempt of ours (a report that came back, an operator's act)
    state: str  # delivering, done, interrupted, late (its lease was lost; it changed nothing)
    lease_token: int
    start: datetime = _time()
    duration: float = 0.0  # seconds
    success: bool | None = None
    code: int = 0
    enhanced: str = ""
    error: str = ""
    transport: str = ""
    remote_mta: str = ""
    remote_ip: str = ""
    tls: str = ""
    transcript: str = ""


class EventRow(SQLModel, table=True):
    """What became known, in commit order. `queue_msg_id` is 0 and `received_id` set for incoming mail."""

    __tablename__ = "event"
    __table_args__ = _options(
        sa.Index("event_account", "account", "id"),
        sa.Index("event_message", "queue_msg_id", "id"),
        sa.Index("event_keep", "keep_until"),
    )
    id: int = _id()
    time: datetime = _time()
    account: str
    name: str  # an outgoing event's name, or "incoming"
    queue_msg_id: int = _ref()
    received_id: int = _ref()
    data: dict[str, Any] = _json()  # the further fields of model.Event
    keep_until: datetime = _time()


class WebhookCallRow(SQLModel, table=True):
    """One event on its way to one URL."""

    __tablename__ = "webhook_call"
    __table_args__ = _options(
        _index("webhook_call_due", "next_attempt", "id", "url", where=CALL_READY),
        _index("webhook_call_ready", "url", "next_attempt", "id", where=CALL_READY),
        _index("webhook_call_leased", "lease_expires", where="lease_owner IS NOT NULL"),
        # Superseding, and order: what still waits for one message and URL.
        _index("webhook_call_waiting", "queue_msg_id", "url", "id", where="state = 'queued'"),
        # An event stays as long as a call needs it.
        _index("webhook_call_event", "event_id", where="state = 'queued'"),
        sa.Index("webhook_call_next", "state", "next_attempt", "id"),
        sa.Index("webhook_call_submitted", "state", "submitted", "id"),
        sa.Index("webhook_call_account", "account", "state", "submitted", "id"),
        _index("webhook_call_keep", "keep_until", where="keep_until IS NOT NULL"),
    )
    id: int = _id()
    account: str
    event_id: int = _ref()
    event_name: str
    queue_msg_id: int = _ref()
    url: str
    authorization: str = ""
    state: str = "queued"  # queued, retired
    submitted: datetime = _time()
    content_type: str = ""
    payload: bytes | None = None  # kept from the first call on
    attempts: int = 0
    next_attempt: datetime = _time()
    lease_owner: str | None = None
    lease_token: int = 0
    lease_expires: datetime | None = _time(null=True)
    success: bool | None = None
    superseded_by: int = _ref()
    error: str = ""
    last_activity: datetime | None = _time(null=True)  # the latest claim, or when it was retired
    keep_until: datetime | None = _time(null=True)
    format: str = Field(default="mox", sa_column_kwargs={"server_default": "mox"})


class WebhookAttemptRow(SQLModel, table=True):
    """One HTTP request of a webhook call."""

    __tablename__ = "webhook_attempt"
    __table_args__ = _options(sa.Index("webhook_attempt_call", "call_id", "id"))
    id: int = _id()
    call_id: int = _ref()
    start: datetime = _time()
    duration: float = 0.0  # seconds
    url: str
    success: bool = False
    code: int = 0
    error: str = ""
    response: str = ""  # at most 512 bytes of it


class WebhookUrlRow(SQLModel, table=True):
    """A URL of an account that failed when it was last called. See store.webhook_urls.UrlState."""

    __tablename__ = "webhook_url"
    url: str = Field(primary_key=True)
    account: str = Field(primary_key=True)
    failing_since: datetime = _time()
    last_failure: datetime = _time()
    error: str
    disabled: datetime | None = _time(null=True)


class HoldRuleRow(SQLModel, table=True):
    """See model.HoldRule. `applied` turns true when the messages already queued have been held as well."""

    __tablename__ = "hold_rule"
    __table_args__ = _options()
    id: int = _id()
    account: str = ""
    sender_domain: str = ""
    recipient_domain: str = ""
    created: datetime = _time()
    applied: bool = False


class SuppressionRow(SQLModel, table=True):
    """An address that an account does not send to. `list_name` empty: for all lists."""

    __tablename__ = "suppression"
    __table_args__ = _options(
        sa.UniqueConstraint("account", "base_address", "list_name"),
        _index("suppression_expires", "expires", where="expires IS NOT NULL"),
    )
    id: int = _id()
    created: datetime = _time()
    account: str
    base_address: str
    original_address: str
    list_name: str = ""
    manual: bool = False
    reason: str = ""
    expires: datetime | None = _time(null=True)


class MailboxRow(SQLModel, table=True):
    __tablename__ = "mailbox"
    __table_args__ = _options(sa.UniqueConstraint("account", "name"))
    id: int = _id()
    account: str
    name: str


class ReceivedRow(SQLModel, table=True):
    """A message in a mailbox."""

    __tablename__ = "received"
    __table_args__ = _options(
        # Lists of an account's mailbox, or of all of its mailboxes, by time.
        sa.Index("received_mailbox", "account", "mailbox_id", "received", "id"),
        sa.Index("received_account", "account", "received", "id"),
        sa.Index("received_content", "content_id"),
        sa.Index("received_message_id", "account", "message_id"),
    )
    id: int = _id()
    account: str
    mailbox_id: int = _ref()
    content_id: int = _ref()
    received: datetime = _time()
    size: int
    flags: list[str] = _json()
    mail_from: str = ""
    mail_from_validated: bool = False
    rcpt_to: str = ""
    msg_from: str = ""
    msg_from_validated: bool = False
    dkim_verified_domains: list[str] = _json()
    remote_ip: str = ""
    dsn: bool = False
    automated: bool = False
    message_id: str = ""
    subject: str = ""


class MailboxUsageRow(SQLModel, table=True):
    """What is in an account's mailboxes, summed: a quota is looked at for each message that comes in."""

    __tablename__ = "mailbox_usage"
    account: str = Field(primary_key=True)
    messages: int = _big()
    bytes: int = _big()


class CredentialRow(SQLModel, table=True):
    """An account's password, as what each mechanism needs to check it. The password itself is nowhere."""

    __tablename__ = "credential"
    __table_args__ = _options(sa.UniqueConstraint("account"))
    id: int = _id()
    account: str
    created: datetime = _time()
    argon2: str  # PHC string, for PLAIN and LOGIN
    scram_salt: bytes  # SCRAM-SHA-256 (RFC 5802, RFC 7677)
    scram_iterations: int
    scram_stored_key: bytes
    scram_server_key: bytes


class ApiKeyRow(SQLModel, table=True):
    """A key with which a program acts for an account. The key itself is nowhere."""

    __tablename__ = "api_key"
    __table_args__ = _options(sa.UniqueConstraint("digest"), sa.UniqueConstraint("account", "name"))
    id: int = _id()
    account: str
    name: str
    digest: bytes  # SHA-256 of the key
    scopes: list[str] = _json()  # gateway.model.Scope
    created: datetime = _time()
    expires: datetime | None = _time(null=True)
    last_used: datetime | None = _time(null=True)  # to a minute


class TemplateRow(SQLModel, table=True):
    """See model.Template."""

    __tablename__ = "template"
    account: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    engine: str
    subject: str
    text: str
    html: str
    updated: datetime = _time()


class SentHourRow(SQLModel, table=True):
    """Recipients that an account sent to in one hour: 24-hour limits are sums over 25 rows."""

    __tablename__ = "sent_hour"
    account: str = Field(primary_key=True)
    hour: int = Field(primary_key=True)  # hours since 1970
    recipients: int = 0
    first_time: int = 0


class KnownRecipientRow(SQLModel, table=True):
    """Addresses that an account has sent to before, for the limit on first-time recipients."""

    __tablename__ = "known_recipient"
    account: str = Field(primary_key=True)
    address: str = Field(primary_key=True)
    first: datetime = _time()


class IdempotencyRow(SQLModel, table=True):
    """What a Send with an Idempotency-Key was answered, for 24 hours."""

    __tablename__ = "idempotency"
    __table_args__ = (sa.Index("idempotency_created", "created"),)
    account: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    created: datetime = _time()
    digest: bytes  # of the request as parsed
    result: dict[str, Any] = _json()


class MtaStsPolicyRow(SQLModel, table=True):
    """A domain's MTA-STS policy, for as long as it holds."""

    __tablename__ = "mta_sts_policy"
    __table_args__ = (
        sa.Index("mta_sts_policy_expires", "expires"),
        sa.Index("mta_sts_policy_fetched", "fetched"),
    )
    domain: str = Field(primary_key=True)  # a recipient's
    record_id: str  # of the TXT record that led to it
    text: bytes
    fetched: datetime = _time()
    expires: datetime = _time()
    used: datetime = _time()  # when a delivery last needed it, to a day


class TlsResultRow(SQLModel, table=True):
    """How connections of a day stood against the policies of a recipient domain, counted: what TLS reports
    (RFC 8460) are made of. See net.tls_results.TlsResult."""

    __tablename__ = "tls_result"
    day: int = Field(primary_key=True)  # days since 1970, in UTC
    recipient_domain: str = Field(primary_key=True)
    policy_type: str = Field(primary_key=True)
    policy_domain: str = Field(primary_key=True)
    mx_host: str = Field(primary_key=True)
    remote_ip: str = Field(primary_key=True)
    local_ip: str = Field(primary_key=True)
    result: str = Field(primary_key=True)  # empty: success
    sessions: int
    detail: str = ""  # of the last of them, as the next
    policy: dict[str, list[str]] = _json()  # strings, mx


class FactRow(SQLModel, table=True):
    """Small things that the gateway learns or counts, by name: hold_generation, cursor:<plugin>, ..."""

    __tablename__ = "fact"
    name: str = Field(primary_key=True)
    value: str


AnyRow: TypeAlias = "sa.Row[*tuple[Any, ...]]"


def table(row: type[SQLModel]) -> sa.Table:
    """The Core table of a row class, typed."""
    return cast(sa.Table, cast(Any, row).__table__)


content = table(ContentRow)
message = table(MessageRow)
attempt = table(AttemptRow)
event = table(EventRow)
webhook_call = table(WebhookCallRow)
webhook_attempt = table(WebhookAttemptRow)
webhook_url = table(WebhookUrlRow)
hold_rule = table(HoldRuleRow)
suppression = table(SuppressionRow)
mailbox = table(MailboxRow)
received = table(ReceivedRow)
mailbox_usage = table(MailboxUsageRow)
credential = table(CredentialRow)
api_key = table(ApiKeyRow)
template = table(TemplateRow)
sent_hour = table(SentHourRow)
known_recipient = table(KnownRecipientRow)
idempotency = table(IdempotencyRow)
mta_sts_policy = table(MtaStsPolicyRow)
tls_result = table(TlsResultRow)
fact = table(FactRow)
metadata = SQLModel.metadata
