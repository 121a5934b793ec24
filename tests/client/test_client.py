"""`gateway.client`: both clients against a gateway, what they try again, and webhooks."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
import standardwebhooks
import trio

from gateway.client import (
    ApiError,
    Client,
    File,
    IncomingMessage,
    NotReached,
    NotSigned,
    OutgoingEvent,
    Recipient,
    SendRequest,
    TrioClient,
    endpoints,
    parse_webhook,
    verify_webhook,
)
from gateway.client.endpoints import Endpoint
from gateway.client.exchange import next_wait, prepare
from gateway.web.api import models
from gateway.web.api.methods import METHODS
from tests.mail.test_limits import nested
from tests.running import AUTH, Running, receiving, running

TO = (Recipient(Address="user@example.org"),)
MESSAGE = SendRequest(To=TO, Subject="hi", Text="hello", AttachedFiles=(File(Name="a.txt", Data="aGk="),))
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_every_method_is_there() -> None:
    known = {e.name: e for _, e in inspect.getmembers(endpoints) if isinstance(e, Endpoint)}
    assert known.keys() == METHODS.keys()
    for name, method in METHODS.items():
        found = known[name]
        assert (found.request, found.keyed) == (method.request, method.keeps_answer), name
        if method.response is None:
            assert found.answer is bytes
        elif name != "SuppressionList":
            assert found.answer is method.response, name


# --- Against a gateway ------------------------------------------------------------------------------


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        yield gateway


async def test_the_deepest_message_is_read(gateway: Running) -> None:
    """No application loses sight of its events because somebody sends it a message."""
    await gateway.mail(nested(1000))
    await gateway.webhooks.incoming()
    arrived = parse_webhook(gateway.webhooks.bodies[0])
    assert isinstance(arrived, IncomingMessage)

    def read() -> None:
        with Client(str(gateway.api.base_url), AUTH[1], AUTH[0]) as client:
            found = client.call(endpoints.MESSAGE_GET, models.MessageRequest(MsgID=arrived.Meta.MsgID))
            assert found.Structure == arrived.Structure
            [told] = client.call(endpoints.EVENT_LIST, models.EventListRequest()).Events
            assert parse_webhook(json.dumps(told).encode()) == arrived

    await trio.to_thread.run_sync(read)


async def test_both_clients(gateway: Running) -> None:
    url = str(gateway.api.base_url)
    key = await gateway.gateway.authenticator.keys.add("mox", "app", ["send", "read", "events"])

    def blocking() -> Any:
        with Client(url, AUTH[1], AUTH[0]) as client:
            sent = client.send(MESSAGE, idempotency_key="one")
            assert client.send(MESSAGE, idempotency_key="one") == sent
            with pytest.raises(ApiError) as refused:
                client.call(endpoints.TEMPLATE_DELETE, models.TemplateDeleteRequest(Name="no"))
            assert (refused.value.status, refused.value.code) == (400, "notFound")
            return sent

    sent = await trio.to_thread.run_sync(blocking)
    await gateway.webhooks.event("delivered", QueueMsgID=sent.Submissions[0].QueueMsgID)
    incoming = parse_webhook(json.dumps((await gateway.webhooks.incoming())[0]).encode())
    assert isinstance(incoming, IncomingMessage)
    async with TrioClient(url, key) as client:
        raw = await client.call(endpoints.MESSAGE_RAW_GET, models.MessageRequest(MsgID=incoming.Meta.MsgID))
        assert b"aGk=" in raw
        got = await client.call(endpoints.MESSAGE_GET, models.MessageRequest(MsgID=incoming.Meta.MsgID))
        assert (got.Message.Subject, got.Message.Text) == ("hi", "hello\n")
        page = await client.call(endpoints.EVENT_LIST, models.EventListRequest())
        told = [parse_webhook(json.dumps(event).encode()) for event in page.Events]
        assert {type(one) for one in told} == {OutgoingEvent, IncomingMessage}
        with pytest.raises(ApiError) as refused:
            await client.call(endpoints.SUPPRESSION_LIST, models.Empty())
        assert refused.value.status == 403
        await client.send(SendRequest(To=TO, Text="again"))
    assert len(await gateway.messages()) == 2


# --- What is tried again ----------------------------------------------------------------------------


def transport(client: Client, answers: list[Any]) -> list[httpx.Request]:
    """Stands in for the network; the requests that came."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = answers[len(asked) - 1]
        if isinstance(given, Exception):
            raise given
        status, body, headers = given
        return httpx.Response(status, json=body, headers=headers)

    client._http = httpx.Client(
        base_url="http://gateway.example/webapi/v0/",
        transport=httpx.MockTransport(answer),
        auth=client._http.auth,
    )
    return asked


DONE: Any = (200, {"MessageID": "<m@x>", "Submissions": []}, {})
BUSY: Any = (503, {"Code": "server", "Message": "busy"}, {"Retry-After": "7"})


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_one_key_in_all_tries(slept: list[float]) -> None:
    client = Client("http://gateway.example/webapi/v0/", "mgk_key")
    asked = transport(client, [httpx.ReadError("reset"), (502, {}, {}), BUSY, DONE])
    assert client.send(SendRequest(To=TO, Text="x")).MessageID == "<m@x>"
    keys = {request.headers["Idempotency-Key"] for request in asked}
    assert (len(asked), len(keys)) == (4, 1)
    assert len({request.content for request in asked}) == 1
    assert asked[0].headers["Authorization"] == "Bearer mgk_key"
    assert slept[0] == 0
    assert 0.4 <= slept[1] <= 0.6
    assert slept[3] == 7.0


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        ([(400, {"Code": "user", "Message": "no"}, {})], 1),
        ([(401, {"Code": "error", "Message": "no"}, {})], 1),
        ([BUSY, BUSY, BUSY], 3),
        ([httpx.ReadError("reset")], 1),  # it may have arrived, and has no key
        ([httpx.ConnectError("refused")] * 3, 3),
    ],
)
def test_without_a_key(slept: list[float], answers: list[Any], tries: int) -> None:
    client = Client("http://gateway.example/webapi/v0/", "secret", "a@b.example", tries=3)
    asked = transport(client, answers)
    with pytest.raises((ApiError, NotReached)):
        client.call(endpoints.QUEUE_CANCEL, models.QueueActionRequest(Filter=models.Filter(IDs=(1,))))
    assert len(asked) == tries
    assert "Idempotency-Key" not in asked[0].headers
    assert asked[0].headers["Authorization"].startswith("Basic ")


def test_times_are_datetimes_with_a_zone() -> None:
    at = datetime(2026, 2, 1, 9, 0, 0, 500000, tzinfo=timezone(timedelta(hours=1)))
    request = SendRequest(To=TO, Text="hello", Date=at, FutureRelease=at)
    read = SendRequest.model_validate_json(prepare(endpoints.SEND, request, "").body)
    assert (read.Date, read.FutureRelease) == (at, at)
    with pytest.raises(ValueError, match="a datetime without a zone"):
        SendRequest(To=TO, Text="hello", Date=datetime(2026, 2, 1))


def test_waits_are_bounded() -> None:
    call = prepare(endpoints.SEND, MESSAGE, "")
    assert json.loads(call.body)["AttachedFiles"] == [{"Name": "a.txt", "Data": "aGk="}]
    for tries in range(1, 40):
        wait = next_wait(call, tries, 503, "99999", sent=True)
        assert wait is not None
        assert 0 < wait <= 60


# --- Webhooks ---------------------------------------------------------------------------------------


def signed(body: bytes, at: float, secret: str = SECRET) -> dict[str, str]:
    time = datetime.fromtimestamp(at, UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at)),
        "Webhook-Signature": standardwebhooks.Webhook(secret).sign("msg_1", time, body.decode()),
    }


def test_signatures() -> None:
    body, now = b'{"a": 1}', 1_800_000_000.0
    assert verify_webhook(signed(body, now), body, [SECRET], now=now) == "msg_1"
    other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    both = signed(body, now) | {"Webhook-Signature": "v2,x v1,y " + signed(body, now)["Webhook-Signature"]}
    assert verify_webhook(both, body, [other, SECRET], now=now) == "msg_1"
    wrong: list[tuple[dict[str, str], bytes, list[str], float]] = [
        ({}, body, [SECRET], now),
        (signed(body, now), b'{"a": 2}', [SECRET], now),
        (signed(body, now), body, [other], now),
        (signed(body, now), body, [], now),
        (signed(body, now), body, [SECRET], now + 301),
        (signed(body, now), body, [SECRET], now - 301),
        (signed(body, now) | {"Webhook-Timestamp": "soon"}, body, [SECRET], now),
        (signed(body, now) | {"Webhook-Id": "msg_2"}, body, [SECRET], now),
    ]
    for headers, data, secrets, at in wrong:
        with pytest.raises(NotSigned):
            verify_webhook(headers, data, secrets, now=at)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b'{"Event": "exploded"}', b"[" * 100_000, b'{"a":' * 100_000]
)
def test_what_is_no_payload(body: bytes) -> None:
    parse: Callable[[bytes], object] = parse_webhook
    with pytest.raises(ValueError):
        parse(body)
