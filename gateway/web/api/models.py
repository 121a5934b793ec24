"""The requests and answers of the methods: names, types and order are those that clients see."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.errors import ApiCode
from gateway.web.api.jsontypes import (
    AnyMap,
    Bool,
    FileData,
    Int64,
    ListOf,
    NullIsZero,
    Request,
    Response,
    String,
    StringMap,
    Time,
    TimeOrNull,
)

# --- Send ----------------------------------------------------------------------------------------


class NameAddress(Request):
    Name: String = ""
    Address: String = ""


class Recipient(NameAddress):
    """`Variables` fill the template for this recipient, over those of the message."""

    Variables: AnyMap = Field(default_factory=dict)


class File(Request):
    """A file of a message. `Data` is base64 (RFC 4648, section 4, padded)."""

    Name: String = ""
    ContentType: String = ""
    ContentID: String = ""
    Data: FileData = Field("", json_schema_extra={"contentEncoding": "base64"})


class SendRequest(Request):
    From: ListOf[NameAddress] = ()
    To: ListOf[Recipient] = ()
    CC: ListOf[Recipient] = ()
    BCC: ListOf[Recipient] = ()
    ReplyTo: ListOf[NameAddress] = ()
    MessageID: String = ""
    References: ListOf[String] = ()
    Date: TimeOrNull = None
    Subject: String = ""
    Text: String = ""
    HTML: String = ""
    Extra: StringMap = Field(default_factory=dict)
    Headers: ListOf[tuple[String, String]] = ()
    AlternativeFiles: ListOf[File] = ()
    InlineFiles: ListOf[File] = ()
    AttachedFiles: ListOf[File] = ()
    RequireTLS: bool | None = None
    FutureRelease: TimeOrNull = None
    SaveSent: Bool = False
    EnvID: String = ""
    DSNNotify: ListOf[String] = ()
    DSNReturn: String = ""
    Template: String = ""
    Variables: AnyMap = Field(default_factory=dict)
    List: String = ""
    Unsubscribe: Bool = False


class Submission(Response):
    """One recipient's message in the queue."""

    Address: str
    QueueMsgID: int
    FromID: str


class SendResult(Response):
    MessageID: str
    Submissions: list[Submission]


class Refused(Response):
    """Why one message of a batch was not sent, as an error's answer has it."""

    Code: ApiCode
    Message: str


class SendBatchRequest(Request):
    Messages: ListOf[SendRequest] = ()


class SendBatchResult(Response):
    Results: list[SendResult | Refused]


# --- Suppression ---------------------------------------------------------------------------------


class Empty(Request):
    """No fields."""


class EmptyResult(Response):
    """No fields."""


class Suppression(Response):
    """An address that the account sends nothing to, nor to others with the same base address."""

    ID: int
    Created: Time
    Account: str
    BaseAddress: str
    OriginalAddress: str
    Manual: bool
    Reason: str
    List: str


class SuppressionListResult(Response):
    Suppressions: list[Suppression]


class SuppressionAddRequest(Request):
    EmailAddress: String = ""
    Manual: Bool = False
    Reason: String = ""
    List: String = ""


class SuppressionRequest(Request):
    EmailAddress: String = ""
    List: String = ""


class SuppressionPresentResult(Response):
    Present: bool


# --- Templates -----------------------------------------------------------------------------------


class TemplateSetRequest(Request):
    Name: String = ""
    Engine: String = ""
    Subject: String = ""
    Text: String = ""
    HTML: String = ""


class TemplateListRequest(Request):
    Cursor: String = ""
    Max: Int64 = 0


class TemplateDeleteRequest(Request):
    Name: String = ""


class Template(Response):
    """A message with gaps, which Send fills for each recipient."""

    Name: str
    Engine: str
    Subject: str
    Text: str
    HTML: str
    Updated: Time


class TemplateListResult(Response):
    Templates: list[Template]
    NextCursor: str


# --- Messages ------------------------------------------------------------------------------------


class MessageRequest(Request):
    MsgID: Int64 = 0


class MessagePartRequest(Request):
    MsgID: Int64 = 0
    PartPath: ListOf[Int64] = ()


class MessageFlagsRequest(Request):
    MsgID: Int64 = 0
    Flags: ListOf[String] = ()


class MessageMoveRequest(Request):
    MsgID: Int64 = 0
    DestMailboxName: String = ""


class MessageListRequest(Request):
    MailboxName: String = ""
    Flags: ListOf[String] = ()
    NotFlags: ListOf[String] = ()
    From: String = ""
    To: String = ""
    Subject: String = ""
    Since: TimeOrNull = None
    Before: TimeOrNull = None
    Cursor: String = ""
    Max: Int64 = 0


class ParsedAddress(Response):
    Name: str
    Address: str


class ParsedMessage(Response):
    """A message's header and readable parts."""

    From: list[ParsedAddress]
    To: list[ParsedAddress]
    CC: list[ParsedAddress]
    BCC: list[ParsedAddress]
    ReplyTo: list[ParsedAddress]
    MessageID: str
    References: list[str]
    Date: Time | None
    Subject: str
    Text: str
    HTML: str


class Part(Response):
    """A MIME part of a message, and those in it."""

    ContentType: str
    ContentTypeParams: dict[str, str]
    ContentID: str
    ContentDisposition: str
    Filename: str
    DecodedSize: int
    Parts: list[Part]
    BeyondLimits: bool = Field(default=False, exclude_if=operator.not_)


class MessageMeta(Response):
    """What the gateway knows of a stored message beside its content."""

    Size: int
    DSN: bool
    Flags: list[str]
    MailFrom: str
    MailFromValidated: bool
    RcptTo: str
    MsgFrom: str
    MsgFromValidated: bool
    DKIMVerifiedDomains: list[str]
    RemoteIP: str
    MailboxName: str


class MessageGetResult(Response):
    Message: ParsedMessage
    Structure: Part
    Meta: MessageMeta


class ListedMessage(Response):
    """A stored message in a list."""

    MsgID: int
    Received: Time
    MessageID: str
    Subject: str
    Meta: MessageMeta


class MessageListResult(Response):
    Messages: list[ListedMessage]
    NextCursor: str


# --- Webhooks ------------------------------------------------------------------------------------


class WebhookReplayRequest(Request):
    WebhookIDs: ListOf[Int64] = ()
    URL: String = ""
    Event: String = ""
    After: TimeOrNull = None
    Before: TimeOrNull = None
    OnlyFailed: Bool = False


class WebhookReplayResult(Response):
    Count: int


class WebhookURL(Response):
    """A URL as it is configured, and how it fares."""

    URL: str
    Events: list[str]
    Format: str
    Signed: bool
    Disabled: Time | None
    FailingSince: Time | None
    Error: str


class WebhookListResult(Response):
    Webhooks: list[WebhookURL]


class WebhookEnableRequest(Request):
    URL: String = ""


class WebhookEnableResult(Response):
    Affected: int


class WebhookTestRequest(Request):
    URL: String = ""
    Event: String = ""


class WebhookTestResult(Response):
    URL: str
    Event: str
    Success: bool
    Code: int
    Error: str
    Response: str
    Duration: float
    Payload: str


# --- Queue and events ----------------------------------------------------------------------------


class Filter(Request):
    """Which messages: all that is given must match. Times: "<" before, ">" after, a duration from now."""

    IDs: ListOf[Int64] = ()
    From: String = ""
    To: String = ""
    Hold: bool | None = None
    Submitted: String = ""
    NextAttempt: String = ""
    MessageID: String = ""
    FromID: String = ""
    State: String = ""
    Success: bool | None = None


FilterOrNone = Annotated[Filter, NullIsZero(Filter())]


class QueueListRequest(Request):
    Filter: FilterOrNone = Filter()
    Sort: String = ""
    Asc: Bool = False
    Cursor: String = ""
    Max: Int64 = 0


class QueueGetRequest(Request):
    QueueMsgID: Int64 = 0


class QueueActionRequest(Request):
    Filter: FilterOrNone = Filter()


class EventListRequest(Request):
    Cursor: String = ""
    Max: Int64 = 0
    Events: ListOf[String] = ()


class QueueMessage(Response):
    """A message in the queue, or one that left it and is kept."""

    ID: int
    BaseID: int
    State: Literal["queued", "retired"]
    Queued: Time
    Hold: bool
    SenderAccount: str
    SenderLocalpart: str
    SenderDomain: str
    FromID: str
    EnvID: str
    RecipientLocalpart: str
    RecipientDomain: str
    Attempts: int
    MaxAttempts: int
    DialedIPs: dict[str, list[str]]
    NextAttempt: Time
    LastAttempt: Time | None
    Has8bit: bool
    SMTPUTF8: bool
    Size: int
    MessageID: str
    Subject: str
    Transport: str
    RequireTLS: bool | None
    FutureReleaseRequest: str
    Extra: dict[str, str]
    RET: str
    NOTIFY: str
    ORCPT: str
    IsReport: str
    RetiredAs: str
    Success: bool | None
    LastActivity: Time | None
    KeepUntil: Time | None


class Attempt(Response):
    """One attempt at a message, or what a report or an operator added to its history."""

    Start: Time
    Duration: float
    Success: bool | None
    Code: int
    EnhancedCode: str
    Error: str
    Transport: str
    RemoteMTA: str
    RemoteIP: str
    TLS: str
    Transcript: str


Event = dict[str, Any]  # the payload of a webhook


class QueueListResult(Response):
    Messages: list[QueueMessage]
    NextCursor: str


class QueueGetResult(Response):
    Message: QueueMessage
    Attempts: list[Attempt]
    Events: list[Event]


class QueueActionResult(Response):
    Affected: int


class EventListResult(Response):
    Events: list[Event]
    NextCursor: str
