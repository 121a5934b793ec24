"""The methods of the API as the client knows them: a request's type, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.web.api import models
from gateway.web.api.jsontypes import Request

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, A]):
    """A method. `answer` is a model, or bytes. `keyed`: it takes an Idempotency-Key."""

    name: str
    request: type[Q]
    answer: type[A]
    keyed: bool = False


SEND = Endpoint("Send", models.SendRequest, models.SendResult, keyed=True)
SEND_BATCH = Endpoint("SendBatch", models.SendBatchRequest, models.SendBatchResult, keyed=True)
SUPPRESSION_LIST = Endpoint("SuppressionList", models.Empty, models.SuppressionListResult)
SUPPRESSION_ADD = Endpoint("SuppressionAdd", models.SuppressionAddRequest, models.EmptyResult)
SUPPRESSION_REMOVE = Endpoint("SuppressionRemove", models.SuppressionRequest, models.EmptyResult)
SUPPRESSION_PRESENT = Endpoint(
    "SuppressionPresent", models.SuppressionRequest, models.SuppressionPresentResult
)
TEMPLATE_SET = Endpoint("TemplateSet", models.TemplateSetRequest, models.EmptyResult)
TEMPLATE_LIST = Endpoint("TemplateList", models.TemplateListRequest, models.TemplateListResult)
TEMPLATE_DELETE = Endpoint("TemplateDelete", models.TemplateDeleteRequest, models.EmptyResult)
MESSAGE_GET = Endpoint("MessageGet", models.MessageRequest, models.MessageGetResult)
MESSAGE_RAW_GET = Endpoint("MessageRawGet", models.MessageRequest, bytes)
MESSAGE_PART_GET = Endpoint("MessagePartGet", models.MessagePartRequest, bytes)
MESSAGE_DELETE = Endpoint("MessageDelete", models.MessageRequest, models.EmptyResult)
MESSAGE_FLAGS_ADD = Endpoint("MessageFlagsAdd", models.MessageFlagsRequest, models.EmptyResult)
MESSAGE_FLAGS_REMOVE = Endpoint("MessageFlagsRemove", models.MessageFlagsRequest, models.EmptyResult)
MESSAGE_MOVE = Endpoint("MessageMove", models.MessageMoveRequest, models.EmptyResult)
MESSAGE_LIST = Endpoint("MessageList", models.MessageListRequest, models.MessageListResult)
WEBHOOK_REPLAY = Endpoint("WebhookReplay", models.WebhookReplayRequest, models.WebhookReplayResult)
WEBHOOK_LIST = Endpoint("WebhookList", models.Empty, models.WebhookListResult)
WEBHOOK_ENABLE = Endpoint("WebhookEnable", models.WebhookEnableRequest, models.WebhookEnableResult)
WEBHOOK_TEST = Endpoint("WebhookTest", models.WebhookTestRequest, models.WebhookTestResult)
QUEUE_LIST = Endpoint("QueueList", models.QueueListRequest, models.QueueListResult)
QUEUE_GET = Endpoint("QueueGet", models.QueueGetRequest, models.QueueGetResult)
QUEUE_CANCEL = Endpoint("QueueCancel", models.QueueActionRequest, models.QueueActionResult)
QUEUE_HOLD = Endpoint("QueueHold", models.QueueActionRequest, models.QueueActionResult)
QUEUE_RELEASE = Endpoint("QueueRelease", models.QueueActionRequest, models.QueueActionResult)
EVENT_LIST = Endpoint("EventList", models.EventListRequest, models.EventListResult)
