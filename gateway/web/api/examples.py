"""What the examples of several methods answer with."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.web.api import models

MESSAGE = models.ParsedMessage(
    From=[models.ParsedAddress(Name="Ada", Address="ada@example.com")],
    To=[models.ParsedAddress(Name="", Address="mox@localhost")],
    CC=[],
    BCC=[],
    ReplyTo=[],
    MessageID="<a2f1c0@mail.example.com>",
    References=[],
    Date=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
    Subject="Order 1001",
    Text="Where is my order?\n",
    HTML="",
)
STRUCTURE = models.Part(
    ContentType="text/plain",
    ContentTypeParams={"charset": "utf-8"},
    ContentID="",
    ContentDisposition="",
    Filename="",
    DecodedSize=20,
    Parts=[],
)
META = models.MessageMeta(
    Size=2140,
    DSN=False,
    Flags=[],
    MailFrom="ada@example.com",
    MailFromValidated=False,
    RcptTo="mox@localhost",
    MsgFrom="ada@example.com",
    MsgFromValidated=False,
    DKIMVerifiedDomains=[],
    RemoteIP="192.0.2.7",
    MailboxName="Inbox",
)

QUEUED = models.QueueMessage(
    ID=10,
    BaseID=0,
    State="queued",
    Queued=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
    Hold=False,
    SenderAccount="mox",
    SenderLocalpart="mox",
    SenderDomain="localhost",
    FromID="",
    EnvID="0pTJAx7ac5i7tHcLG3FfVA",
    RecipientLocalpart="ada",
    RecipientDomain="example.com",
    Attempts=1,
    MaxAttempts=0,
    DialedIPs={"mail.example.com": ["192.0.2.25"]},
    NextAttempt=datetime(2026, 1, 31, 8, 7, 30, tzinfo=UTC),
    LastAttempt=datetime(2026, 1, 31, 8, 0, 0, 20_000, tzinfo=UTC),
    Has8bit=False,
    SMTPUTF8=False,
    Size=1310,
    MessageID="<b3JkZXIgMTAwMQ@localhost>",
    Subject="Your order 1001",
    Transport="",
    RequireTLS=None,
    FutureReleaseRequest="",
    Extra={"order": "1001"},
    RET="",
    NOTIFY="",
    ORCPT="",
    IsReport="",
    RetiredAs="",
    Success=None,
    LastActivity=None,
    KeepUntil=None,
)
EVENT = {
    "Version": 0,
    "Event": "delayed",
    "DSN": False,
    "Suppressing": False,
    "QueueMsgID": 10,
    "FromID": "",
    "MessageID": "<b3JkZXIgMTAwMQ@localhost>",
    "Subject": "Your order 1001",
    "WebhookQueued": "2026-01-31T08:00:00.73Z",
    "SMTPCode": 451,
    "SMTPEnhancedCode": "4.7.1",
    "Error": "remote answered 451 4.7.1 Try again later",
    "Extra": {"order": "1001"},
    "Recipient": "ada@example.com",
    "Attempt": 1,
    "RemoteMTA": "mail.example.com",
    "MatchedBy": "",
}

WEBHOOK_URL = models.WebhookURL(
    URL="https://shop.example.org/mail",
    Events=["delivered", "failed"],
    Format="mox",
    Signed=True,
    Disabled=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
    FailingSince=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
    Error="its receiver wants no more (status 410, success is 2xx)",
)
