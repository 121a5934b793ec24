import base64
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import h11
import pytest
import trio
from gateway_http_bridge import BridgeSettings, HttpBridge
from gateway_http_bridge.answers import MAX_OPERATIONS, BridgeError, changed_submission, patch, read
from gateway_http_bridge.describe import of_submission, split
from pydantic import ValidationError

from gateway.testing import submission, temporary

LETTER = b"From: <somebody@example.com>\r\nSubject: hello\r\n\r\nhi\r\n"


class Service:
    """What somebody writes in any language: `answer` takes a description and says (status, body)."""

    def __init__(self):
        self.port = 0
        self.asked = []
        self.requests = []
        self.connections = 0
        self.answer = lambda _: (204, b"")

    def settings(self, *stages, **more):
        url = f"http://127.0.0.1:{self.port}/hook"
        return {"httpbridge": {"url": url, "token": "secret", "stages": stages, **more}}

    @asynccontextmanager
    async def up(self):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(
                partial(trio.serve_tcp, self._serve, self.port, host="127.0.0.1")
            )
            self.port = listener.socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream):
        self.connections += 1
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):  # who asked has heard enough
            await self._converse(stream)

    async def _converse(self, stream):
        http = h11.Connection(h11.SERVER)
        while True:
            request, body = None, b""
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            self.requests.append(dict(request.headers))
            self.asked.append(json.loads(body))
            status, answer = self.answer(self.asked[-1])
            if status == 0:
                await trio.sleep_forever()
            head = h11.Response(status_code=status, headers=[("Content-Length", str(len(answer)))])
            await stream.send_all(b"".join(map(http.send, (head, h11.Data(answer), h11.EndOfMessage()))))
            http.start_next_cycle()


def says(*operations):
    return 200, json.dumps(operations).encode()


def put(path, value):
    return {"op": "replace", "path": path, "value": value}


@pytest.fixture
async def service():
    async with Service().up() as service:
        yield service


async def test_a_submission_is_refused_changed_or_held(mail_gateway, service):
    def policy(described):
        subject = described["message"]["subject"]
        if subject == "lottery":
            response = {"code": 554, "enhancedCode": "5.7.0", "message": "no lotteries"}
            return says(put("/action", "reject"), {"op": "add", "path": "/response", "value": response})
        if subject == "suspicious":
            return says(put("/action", "quarantine"))
        if subject == "news":
            archive = {"address": "archive@example.net"}
            checked = {"name": "X-Checked", "value": "yes"}
            return says(
                {"op": "add", "path": "/envelope/to/-", "value": archive},
                {"op": "add", "path": "/message/headers/0", "value": checked},
            )
        return 204, b""

    service.answer = policy
    async with mail_gateway(HttpBridge(), settings=service.settings("submission")) as gateway:
        assert "no lotteries" in (await gateway.deliver(subject="lottery")).refused
        [held] = (await gateway.deliver(subject="suspicious")).messages
        assert held.state == "held"
        happened = await gateway.deliver(to="ada@example.com", subject="news")
        assert set(happened.recipients) == {"ada@example.com", "archive@example.net"}
        data = happened.handed_over[0].data
        assert b"X-Checked: yes\r\n" in data
        untouched = base64.b64decode(service.asked[-1]["rawMessage"])
        assert data.endswith(untouched)  # signed since then, and a field more
        assert (await gateway.deliver(to="ada@example.com")).recipients == ["ada@example.com"]
    assert [one["stage"] for one in service.asked] == ["data"] * 4
    assert service.asked[0]["gateway"]["account"] == "app"
    assert {one[b"authorization"] for one in service.requests} == {b"Bearer secret"}
    assert len({one[b"x-mta-hooks-request-id"] for one in service.requests}) == 4
    assert service.connections == 1  # it is kept


async def test_mail_that_comes_in(mail_gateway, service):
    def policy(described):
        if described["stage"] == "rcpt" and described["envelope"]["from"]["address"] == "x@spam.example":
            return says(put("/action", "reject"))
        if described["stage"] == "data" and b"lottery" in base64.b64decode(described["rawMessage"]):
            return says(put("/action", "quarantine"))
        return 200, b"[]"

    service.answer = policy
    settings = service.settings("mail", "rcpt", "data", quarantine="Rejects")
    async with mail_gateway(HttpBridge(), settings=settings) as gateway:
        refused = await gateway.receive(LETTER, mail_from="x@spam.example")
        assert refused.refused == "550 5.7.1 refused by policy"
        for letter, mailbox in ((LETTER, "Inbox"), (LETTER + b"lottery\r\n", "Rejects")):
            [event] = (await gateway.receive(letter)).incoming
            assert event.message.mailbox == mailbox
    assert [one["stage"] for one in service.asked[:3]] == ["mail", "rcpt", "mail"]
    assert service.asked[0]["client"]["ip"] == "127.0.0.1"


async def test_routes_and_events(mail_gateway, service):
    def policy(described):
        if described["stage"] == "route" and described["gateway"]["attempt"] > 1:
            return says(put("/gateway/transport", "backup"))
        return 204, b""

    service.answer = policy
    more = service.settings("route", "event")
    async with mail_gateway(HttpBridge(), settings=more, transports=["usual", "backup"]) as gateway:
        gateway.transport("usual").answer(temporary(451))
        await gateway.deliver(to="ada@example.com")
        happened = await gateway.advance(3600)
        assert [one.transport for one in happened.handed_over] == ["backup"]
        assert happened["ada@example.com"].state == "delivered"
    told = [one for one in service.asked if one["gateway"]["hook"] == "event"]
    assert [(one["stage"], one["gateway"]["event"]) for one in told] == [
        ("defer", "delayed"),
        ("delivery", "delivered"),
    ]
    assert told[0]["response"]["code"] == 451


async def test_a_service_that_is_away(mail_gateway):
    """Each stage does what its policy says: nothing is taken, and nothing is lost."""
    async with Service().up() as service:
        stages = service.settings("submission", "route", "mail", "event")
    async with mail_gateway(HttpBridge(), settings=stages) as gateway:
        assert "httpbridge" in (await gateway.deliver()).refused
        assert (await gateway.receive(LETTER)).refused.startswith("451")
    own = stages["httpbridge"]
    own["on_error"] = {"submission": "skip"}
    async with mail_gateway(HttpBridge(), settings=stages) as gateway:
        [waiting] = (await gateway.deliver()).messages  # unseen; but without a route it is not sent
        assert waiting.state == "waiting"
        async with service.up():
            [delivered] = (await gateway.advance(3600)).messages
            assert delivered.state == "delivered"


async def test_a_service_that_says_nothing(mail_gateway, service):
    service.answer = lambda _: (0, b"")
    settings = service.settings("submission", limits={"submission": 0.1})
    async with mail_gateway(HttpBridge(), settings=settings) as gateway:
        assert "httpbridge" in (await gateway.deliver()).refused


@pytest.mark.parametrize(
    ("status", "answer"), [(500, b"[]"), (302, b"[]"), (200, b"[" * 100_000), (200, b" " * 2_000_000)]
)
async def test_answers_that_are_none(mail_gateway, service, status, answer):
    service.answer = lambda _: (status, answer)
    async with mail_gateway(HttpBridge(), settings=service.settings("submission")) as gateway:
        assert "httpbridge" in (await gateway.deliver()).refused


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        "null",
        "[1]",
        '[{"op": "replace"}]',
        '[{"op": "replace", "path": 1, "value": 1}]',
        '[{"op": "replace", "path": "", "value": {}}]',
        '[{"op": "replace", "path": "/nowhere/at/all", "value": 1}]',
        '[{"op": "replace", "path": "action", "value": 1}]',
        '[{"op": "copy", "from": "/message", "path": "/message/again"}]',
        '[{"op": "test", "path": "/action", "value": "reject"}]',
        '[{"op": "remove", "path": "/action"}]',
        '[{"op": "remove", "path": "/message/headers/99"}]',
        json.dumps([put("/action", "explode")]),
        json.dumps([put("/action", None)]),
        json.dumps([put("/envelope", [])]),
        json.dumps([put("/envelope/to", [{}])]),
        json.dumps([put("/envelope/to", [{"address": "no address"}])]),
        json.dumps([put("/envelope/from/address", None)]),
        json.dumps([put("/message/headers", "X: y")]),
        json.dumps([put("/message/headers/0/name", "X: y\r\nZ")]),
        json.dumps([put("/message/headers/0/value", "a\r\n\r\nb")]),
        json.dumps([put("/message/headers/0/value", "a\nBcc: x@example.org")]),
        json.dumps([put("/message/headers/0/value", "ä")]),
        json.dumps([put("/message/headers/0/value", "\ud800")]),
        json.dumps([put("/rawMessage", 7)]),
        json.dumps([put("/rawMessage", "%%%")]),
        json.dumps([put("/rawMessage", base64.b64encode(b"no header").decode())]),
        json.dumps([put("/action", "accept")] * (MAX_OPERATIONS + 1)),
        json.dumps([{"op": "add", "path": "/response", "value": {"code": 250}}]),
        json.dumps([{"op": "add", "path": "/response", "value": {"enhancedCode": "5.7.1\r\n"}}]),
    ],
)
def test_patches_that_cannot_be_acted_on(answer):
    with pytest.raises(BridgeError):
        act(submission(), answer.encode())


def act(given, answer):
    parts = split(given.data)
    described = {**of_submission(given, parts), "rawMessage": None}
    patch(described, answer)
    read(described)
    return changed_submission(given, parts, described)


def test_what_is_not_changed_keeps_its_bytes():
    given = submission(b"From:  A\r\n  <a@example.org>\r\nSubject:hi\r\nX-Old: 1\r\n\r\nb\xe4dy\r\n")
    assert act(given, b"[]") is None
    changed = act(given, json.dumps([{"op": "remove", "path": "/message/headers/2"}]).encode())
    assert changed == replace(
        given, data=b"From:  A\r\n  <a@example.org>\r\nSubject:hi\r\n\r\nb\xe4dy\r\n", has_8bit=True
    )
    whole = base64.b64encode(b"Subject: new\r\n\r\nnew\r\n").decode()
    assert act(given, json.dumps([put("/rawMessage", whole)]).encode()).data == b"Subject: new\r\n\r\nnew\r\n"


@pytest.mark.parametrize(
    "data", [b"no colon\r\n\r\n", b"A: 1\n\n", b"A: 1\r\n", b"A: 1\r\n" * 9999 + b"\r\n"]
)
def test_a_header_that_cannot_be_read(data):
    assert split(data) is None
    given = submission(data)
    assert act(given, b"[]") is None
    with pytest.raises(BridgeError):
        act(given, json.dumps([put("/message/headers", [])]).encode())


def test_wrong_settings():
    for wrong in ({"url": "ftp://x"}, {"stages": ["connect"]}, {"max_answer": 0}):
        with pytest.raises(ValidationError):
            BridgeSettings(**{"url": "http://127.0.0.1/", **wrong})
