"""The registry of methods: what each takes and answers, who does it, and examples for people.

Whatever lists methods (the dispatcher, the pages, the OpenAPI document) reads it from here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.model import Scope
from gateway.web.api import examples, messages, models, queue, send, suppression, templates, webhooks
from gateway.web.api.calls import Call, Stream
from gateway.web.api.jsontypes import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of the API.

    `handler` gets the call and the parsed request. It raises what `gateway.web.api.errors` turns into an
    answer. `response` is None where the answer is no JSON; then `example_response` is a text.
    """

    name: str
    summary: str  # one sentence, for people
    scope: Scope  # what an API key needs to call it
    request: type[Request]
    response: type[Response] | None
    handler: Callable[[Call, Any], Awaitable[Response | Stream]]
    example_request: Mapping[str, Any]  # as JSON, so that it shows what people would write
    example_response: Response | str
    takes_files: bool = False  # in parts of a multipart request
    keeps_answer: bool = False  # for a call that is repeated with its Idempotency-Key


_BUILT_IN = (
    Method(
        name="Send",
        summary="Compose a message and queue it for each recipient. Once this has answered, nothing is lost.",
        scope="send",
        request=models.SendRequest,
        response=models.SendResult,
        handler=send.send,
        takes_files=True,
        keeps_answer=True,
        example_request={
            "To": [{"Name": "Ada", "Address": "ada@example.com"}],
            "Subject": "Your order 1001",
            "Text": "Hi Ada,\n\nyour order is on its way.\n",
            "HTML": "<p>Hi Ada,</p><p>your order is on its way.</p>",
            "Extra": {"order": "1001"},
        },
        example_response=models.SendResult(
            MessageID="<b3JkZXIgMTAwMQ@localhost>",
            Submissions=[models.Submission(Address="ada@example.com", QueueMsgID=10, FromID="q2ZkXw3vT8")],
        ),
    ),
    Method(
        name="SendBatch",
        summary="Send up to 500 messages in one call and one commit. Each is queued or refused by itself.",
        scope="send",
        request=models.SendBatchRequest,
        response=models.SendBatchResult,
        handler=send.send_batch,
        keeps_answer=True,
        example_request={
            "Messages": [
                {
                    "To": [{"Name": "Ada", "Address": "ada@example.com"}],
                    "Subject": "Your order 1001",
                    "Text": "Hi Ada,\n\nyour order is on its way.\n",
                },
                {"To": [{"Name": "Bob", "Address": "bob"}], "Subject": "Your order 1002", "Text": "Hi Bob\n"},
            ]
        },
        example_response=models.SendBatchResult(
            Results=[
                models.SendResult(
                    MessageID="<b3JkZXIgMTAwMQ@localhost>",
                    Submissions=[
                        models.Submission(Address="ada@example.com", QueueMsgID=10, FromID="q2ZkXw3vT8")
                    ],
                ),
                models.Refused(Code="badAddress", Message="To[0].Address: address 'bob' has no @"),
            ]
        ),
    ),
    Method(
        name="SuppressionList",
        summary="The addresses that the account sends nothing to, by base address.",
        scope="suppressions",
        request=models.Empty,
        response=models.SuppressionListResult,
        handler=suppression.suppression_list,
        example_request={},
        example_response=models.SuppressionListResult(
            Suppressions=[
                models.Suppression(
                    ID=1,
                    Created=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
                    Account="mox",
                    BaseAddress="ada@example.com",
                    OriginalAddress="ada+orders@example.com",
                    Manual=False,
                    Reason="failure reported by the queue: 550 5.1.1",
                    List="",
                )
            ]
        ),
    ),
    Method(
        name="SuppressionAdd",
        summary="Send nothing to an address from now on, nor to others with the same base address.",
        scope="suppressions",
        request=models.SuppressionAddRequest,
        response=models.EmptyResult,
        handler=suppression.suppression_add,
        example_request={"EmailAddress": "ada+orders@example.com", "Manual": True, "Reason": "asked for it"},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="SuppressionRemove",
        summary="Send to an address again, from the next attempt on.",
        scope="suppressions",
        request=models.SuppressionRequest,
        response=models.EmptyResult,
        handler=suppression.suppression_remove,
        example_request={"EmailAddress": "ada@example.com"},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="SuppressionPresent",
        summary="Whether an address is suppressed, itself or by its base address.",
        scope="suppressions",
        request=models.SuppressionRequest,
        response=models.SuppressionPresentResult,
        handler=suppression.suppression_present,
        example_request={"EmailAddress": "ada@example.com"},
        example_response=models.SuppressionPresentResult(Present=True),
    ),
    Method(
        name="TemplateSet",
        summary="Keep a template: a message with gaps, which Send fills for each recipient.",
        scope="send",
        request=models.TemplateSetRequest,
        response=models.EmptyResult,
        handler=templates.template_set,
        example_request={
            "Name": "shipped",
            "Subject": "Your order {{ order }}",
            "Text": "Hi {{ name }},\n\nyour order {{ order }} is on its way.\n",
            "HTML": "<p>Hi {{ name }},</p><p>your order {{ order }} is on its way.</p>",
        },
        example_response=models.EmptyResult(),
    ),
    Method(
        name="TemplateList",
        summary="The templates of the account, by name, page by page.",
        scope="send",
        request=models.TemplateListRequest,
        response=models.TemplateListResult,
        handler=templates.template_list,
        example_request={"Max": 10},
        example_response=models.TemplateListResult(
            Templates=[
                models.Template(
                    Name="shipped",
                    Engine="jinja",
                    Subject="Your order {{ order }}",
                    Text="Hi {{ name }},\n\nyour order {{ order }} is on its way.\n",
                    HTML="<p>Hi {{ name }},</p><p>your order {{ order }} is on its way.</p>",
                    Updated=datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC),
                )
            ],
            NextCursor="",
        ),
    ),
    Method(
        name="TemplateDelete",
        summary="Remove a template.",
        scope="send",
        request=models.TemplateDeleteRequest,
        response=models.EmptyResult,
        handler=templates.template_delete,
        example_request={"Name": "shipped"},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="MessageGet",
        summary="A received message as parsed: header, readable text, structure, and what is known about it.",
        scope="read",
        request=models.MessageRequest,
        response=models.MessageGetResult,
        handler=messages.message_get,
        example_request={"MsgID": 1},
        example_response=models.MessageGetResult(
            Message=examples.MESSAGE, Structure=examples.STRUCTURE, Meta=examples.META
        ),
    ),
    Method(
        name="MessageRawGet",
        summary="A received message as it came, byte for byte.",
        scope="read",
        request=models.MessageRequest,
        response=None,
        handler=messages.message_raw_get,
        example_request={"MsgID": 1},
        example_response=(
            "From: Ada <ada@example.com>\nTo: mox@localhost\nSubject: Order 1001\n"
            "Message-ID: <a2f1c0@mail.example.com>\nDate: Sat, 31 Jan 2026 08:00:00 +0000\n\n"
            "Where is my order?\n"
        ),
    ),
    Method(
        name="MessagePartGet",
        summary="The decoded bytes of a MIME part, such as an attached file.",
        scope="read",
        request=models.MessagePartRequest,
        response=None,
        handler=messages.message_part_get,
        example_request={"MsgID": 1, "PartPath": []},
        example_response="Where is my order?\n",
    ),
    Method(
        name="MessageDelete",
        summary="Remove a message from its mailbox, for good.",
        scope="read",
        request=models.MessageRequest,
        response=models.EmptyResult,
        handler=messages.message_delete,
        example_request={"MsgID": 2},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="MessageFlagsAdd",
        summary="Set flags of a message: that it was read, what it is about.",
        scope="read",
        request=models.MessageFlagsRequest,
        response=models.EmptyResult,
        handler=messages.message_flags_add,
        example_request={"MsgID": 1, "Flags": ["\\seen", "orders"]},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="MessageFlagsRemove",
        summary="Take flags of a message away.",
        scope="read",
        request=models.MessageFlagsRequest,
        response=models.EmptyResult,
        handler=messages.message_flags_remove,
        example_request={"MsgID": 1, "Flags": ["\\seen", "orders"]},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="MessageMove",
        summary="Put a message into another mailbox of the account.",
        scope="read",
        request=models.MessageMoveRequest,
        response=models.EmptyResult,
        handler=messages.message_move,
        example_request={"MsgID": 1, "DestMailboxName": "Archive"},
        example_response=models.EmptyResult(),
    ),
    Method(
        name="MessageList",
        summary="The messages of the account that match, the newest first, page by page.",
        scope="read",
        request=models.MessageListRequest,
        response=models.MessageListResult,
        handler=messages.message_list,
        example_request={"MailboxName": "Inbox", "NotFlags": ["\\seen"], "Max": 10},
        example_response=models.MessageListResult(
            Messages=[
                models.ListedMessage(
                    MsgID=1,
                    Received=datetime(2026, 1, 31, 8, 0, 1, 500_000, tzinfo=UTC),
                    MessageID="<a2f1c0@mail.example.com>",
                    Subject="Order 1001",
                    Meta=examples.META,
                )
            ],
            NextCursor="",
        ),
    ),
    Method(
        name="WebhookReplay",
        summary="Make webhook calls of the account again that are over, with the same IDs and payloads.",
        scope="events",
        request=models.WebhookReplayRequest,
        response=models.WebhookReplayResult,
        handler=webhooks.webhook_replay,
        example_request={"After": "2026-01-31T08:00:00Z", "OnlyFailed": True},
        example_response=models.WebhookReplayResult(Count=3),
    ),
    Method(
        name="WebhookList",
        summary="The account's URLs for webhooks: how each fares, and whether it is disabled.",
        scope="events",
        request=models.Empty,
        response=models.WebhookListResult,
        handler=webhooks.webhook_list,
        example_request={},
        example_response=models.WebhookListResult(Webhooks=[examples.WEBHOOK_URL]),
    ),
    Method(
        name="WebhookEnable",
        summary="Have a URL called again that was disabled, or all of the account's.",
        scope="events",
        request=models.WebhookEnableRequest,
        response=models.WebhookEnableResult,
        handler=webhooks.webhook_enable,
        example_request={"URL": ""},
        example_response=models.WebhookEnableResult(Affected=1),
    ),
    Method(
        name="WebhookTest",
        summary="Call a URL of the account with an example of an event, and see what it answers.",
        scope="events",
        request=models.WebhookTestRequest,
        response=models.WebhookTestResult,
        handler=webhooks.webhook_test,
        example_request={"Event": "delivered"},
        example_response=models.WebhookTestResult(
            URL="https://shop.example.org/mail",
            Event="delivered",
            Success=False,
            Code=410,
            Error="status 410, success is 2xx",
            Response="gone",
            Duration=0.031,
            Payload='{"Version":0,"Event":"delivered"}',
        ),
    ),
    Method(
        name="QueueList",
        summary="The account's messages in the queue, and those that left it and are kept, page by page.",
        scope="queue",
        request=models.QueueListRequest,
        response=models.QueueListResult,
        handler=queue.queue_list,
        example_request={"Filter": {"To": "@example.com", "State": "queued"}, "Sort": "Queued", "Max": 10},
        example_response=models.QueueListResult(Messages=[examples.QUEUED], NextCursor=""),
    ),
    Method(
        name="QueueGet",
        summary="A message in the queue or its history, with every attempt and event.",
        scope="queue",
        request=models.QueueGetRequest,
        response=models.QueueGetResult,
        handler=queue.queue_get,
        example_request={"QueueMsgID": 1},
        example_response=models.QueueGetResult(
            Message=examples.QUEUED,
            Attempts=[
                models.Attempt(
                    Start=datetime(2026, 1, 31, 8, 0, 0, 20_000, tzinfo=UTC),
                    Duration=0.71,
                    Success=False,
                    Code=451,
                    EnhancedCode="4.7.1",
                    Error="remote answered 451 4.7.1 Try again later",
                    Transport="direct",
                    RemoteMTA="mail.example.com",
                    RemoteIP="192.0.2.25",
                    TLS="TLSv1.3",
                    Transcript="",
                )
            ],
            Events=[examples.EVENT],
        ),
    ),
    Method(
        name="QueueCancel",
        summary="Take messages out of the queue. The event is canceled; their senders get no notification.",
        scope="queue",
        request=models.QueueActionRequest,
        response=models.QueueActionResult,
        handler=queue.queue_cancel,
        example_request={"Filter": {"IDs": [10]}},
        example_response=models.QueueActionResult(Affected=1),
    ),
    Method(
        name="QueueHold",
        summary="Put messages in the queue on hold: no attempt is made before they are released.",
        scope="queue",
        request=models.QueueActionRequest,
        response=models.QueueActionResult,
        handler=queue.queue_hold,
        example_request={"Filter": {"To": "@example.com", "Submitted": ">-1h"}},
        example_response=models.QueueActionResult(Affected=1),
    ),
    Method(
        name="QueueRelease",
        summary="Let messages that are on hold go on.",
        scope="queue",
        request=models.QueueActionRequest,
        response=models.QueueActionResult,
        handler=queue.queue_release,
        example_request={"Filter": {"Hold": True}},
        example_response=models.QueueActionResult(Affected=1),
    ),
    Method(
        name="EventList",
        summary="What happened, as webhooks tell it, in the order in which it did: to catch up.",
        scope="events",
        request=models.EventListRequest,
        response=models.EventListResult,
        handler=queue.event_list,
        example_request={"Cursor": "", "Max": 100, "Events": ["delivered", "failed", "delayed"]},
        example_response=models.EventListResult(Events=[examples.EVENT], NextCursor="ZTE"),
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _BUILT_IN}
