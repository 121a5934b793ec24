"""The HTTP server on real loopback sockets: what well-behaved clients get, and what the others do not do."""

import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import trio
from quart_trio import QuartTrio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gateway.web.connection import RECEIVE_SIZE, WRITE_SIZE, blame
from gateway.web.server import ASGIApp, ClientGone, HttpSettings, LifespanError, lifespan, serve_http
from tests.commands import PATIENCE

BIG = 50 * 1024 * 1024
QUICK = HttpSettings(
    header_timeout=0.3,
    body_timeout=0.3,
    keep_alive_timeout=PATIENCE,  # also from a connection's beginning to its first request
    write_timeout=5,
    grace=0.3,
    websocket_ping=5,
)
IMPATIENT = replace(QUICK, keep_alive_timeout=2.0)


@dataclass
class Probe:
    """An application for the tests, and what it has seen."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    entered: trio.Event = field(default_factory=trio.Event)
    release: trio.Event = field(default_factory=trio.Event)
    outcome: list[BaseException] = field(default_factory=list)
    left: trio.Event = field(default_factory=trio.Event)  # set with the outcome

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await self.websocket(receive, send)
            return
        assert scope["type"] == "http"
        await getattr(self, scope["path"].strip("/") or "hello")(receive, send)

    async def body(self, receive: Any) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "http.disconnect":
                self.left.set()
                raise ClientGone
            body += message["body"]
            if not message["more_body"]:
                return bytes(body)

    async def answer(self, send: Any, body: bytes, length: bool = True) -> None:
        headers = [(b"content-length", b"%d" % len(body))] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def hello(self, receive: Any, send: Any) -> None:
        await self.answer(send, b"hello")

    async def echo(self, receive: Any, send: Any) -> None:
        await self.answer(send, await self.body(receive))

    async def chunked(self, receive: Any, send: Any) -> None:
        await self.answer(send, await self.body(receive), length=False)

    async def unread(self, receive: Any, send: Any) -> None:
        """Answers without having read a word of the body."""
        await trio.testing.wait_all_tasks_blocked(0.02)  # let the body fill the inbox
        await self.answer(send, b"unread")

    async def big(self, receive: Any, send: Any) -> None:
        self.entered.set()
        try:
            await self.answer(send, b"x" * BIG)
        except BaseException as error:
            self.outcome.append(error)
            self.left.set()
            raise

    async def wait(self, receive: Any, send: Any) -> None:
        """Answers when released; hears of a disconnect."""
        self.entered.set()
        await self.release.wait()
        await self.answer(send, b"waited")

    async def forever(self, receive: Any, send: Any) -> None:
        self.entered.set()
        await trio.sleep_forever()

    async def listen(self, receive: Any, send: Any) -> None:
        """Waits for the disconnect, then sends none the less."""
        await self.body(receive)
        self.entered.set()
        self.messages.append(await receive())
        self.messages.append(await receive())
        try:
            await self.answer(send, b"too late")
        except OSError as error:
            self.outcome.append(error)
            self.left.set()
            raise

    async def fail(self, receive: Any, send: Any) -> None:
        raise RuntimeError("secret of the house")

    async def fail_late(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("secret of the house")

    async def fail_group(self, receive: Any, send: Any) -> None:
        raise BaseExceptionGroup("several", [RuntimeError("secret of the house"), SystemExit(3)])

    async def fail_stray(self, receive: Any, send: Any) -> None:
        """A Cancelled that belongs to no scope still open, in a group with an error of its own."""
        stray: BaseException | None = None
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                stray = error
                raise
        assert stray is not None
        raise BaseExceptionGroup("several", [stray, ValueError("secret of the house")])

    async def silent(self, receive: Any, send: Any) -> None:
        return

    async def lies(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"longer than that"})

    async def websocket(self, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        self.entered.set()
        if self.scopes[-1]["path"] == "/forbidden":
            await send({"type": "websocket.close"})
            return
        if self.scopes[-1]["path"] == "/undecided":
            self.messages.append(await receive())
            return
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.messages.append(message)
            if message["type"] == "websocket.disconnect":
                return
            if message["text"] == "fail":
                raise RuntimeError("secret of the house")
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


@dataclass
class Server:
    port: int
    probe: Probe
    stopping: trio.Event
    ended: trio.Event
    nursery: trio.Nursery

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    @asynccontextmanager
    async def websocket(self, path: str = "/") -> AsyncGenerator[WebSocketConnection]:
        async with await self.connect() as stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(nursery, stream, "localhost", path)
            yield connection
            await connection.aclose()

    async def works(self) -> None:
        """A second connection is served all the while."""
        async with await self.connect() as stream:
            await stream.send_all(get("/"))
            assert await response(stream) == (200, b"hello")


@asynccontextmanager
async def serving(
    settings: HttpSettings = QUICK, app: ASGIApp | None = None, listeners: Any = None
) -> AsyncGenerator[Server]:
    """A server that has to end cleanly, soon after it is told to."""
    with trio.fail_after(PATIENCE):
        if listeners is None:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        name = listeners[0].socket.getsockname()
        probe, stopping, ended = Probe(), trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                await serve_http(
                    listeners, app or probe, settings, stopping=stopping, task_status=task_status
                )
                ended.set()

            await nursery.start(run)
            port = name[1] if isinstance(name, tuple) else 0
            yield Server(port, probe, stopping, ended, nursery)
            stopping.set()
            with trio.fail_after(settings.grace + 1):
                await ended.wait()


def get(path: str, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"GET %s HTTP/%s" % (path.encode(), version), b"Host: localhost", *headers, b"", b""]
    return b"\r\n".join(lines)


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(),
        length,
        body,
    )


async def response(stream: trio.SocketStream) -> tuple[int, bytes]:
    """Read one whole answer to a GET from a connection that may stay open."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await stream.receive_some(4096))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert client.trailing_data[0] == b""
            return status, body


async def rest(stream: trio.SocketStream) -> bytes:
    """Everything up to the end of the connection, which has to come in good order (no reset)."""
    return b"".join([data async for data in stream])


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    return int(answer[9:12])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Well-behaved clients -----------------------------------------------------------------------------------


async def test_get_post_and_keep_alive() -> None:
    async with serving() as server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        hello = await client.get("/?a=b%20c")
        assert (hello.status_code, hello.text) == (200, "hello")
        assert "date" in hello.headers
        assert "server" not in hello.headers
        assert (await client.post("/echo", content=b"y" * 300_000)).content == b"y" * 300_000
        assert (await client.get("/chunked")).headers["transfer-encoding"] == "chunked"
        scopes = server.probe.scopes
        assert scopes[0]["query_string"] == b"a=b%20c"
        assert scopes[0]["server"] == ("127.0.0.1", server.port)
        assert len({scope["client"] for scope in scopes}) == 1  # one connection for all three


async def test_head_and_body_leave_in_one_write() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get("/"))
        first = await stream.receive_some(4096)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b"\r\n\r\nhello")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get("/") + post("/echo", b"two") + get("/", b"Connection: close"))
        answer = await rest(stream)
        assert answer.count(b"HTTP/1.1 200 ") == 3
        assert answer.index(b"hello") < answer.index(b"two") < answer.rindex(b"hello")
        assert answer.endswith(b"hello")


async def test_a_client_that_has_said_all_gets_its_answer() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get("/") + get("/wait"))
        await stream.send_eof()
        await server.probe.entered.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        server.probe.release.set()
        assert (await rest(stream)).endswith(b"waited")


async def test_chunked_body() -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for number in range(30):
            yield b"%d," % number

    async with serving() as server, httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{server.port}/chunked", content=pieces())
        assert answer.content == b"".join(b"%d," % number for number in range(30))


async def test_expect_100_continue() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"ok")
        assert await response(stream) == (200, b"ok")


async def test_a_body_that_nobody_wants_is_not_asked_for() -> None:
    head = b"POST /hello HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(head)
        answer = await rest(stream)
        assert status_of(answer) == 200
        assert b" 100 " not in answer


async def test_answer_before_the_body_is_read() -> None:
    async with serving() as server, await server.connect() as stream:
        body = b"z" * (4 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, post("/unread", body))
            answer = await rest(stream)
        assert status_of(answer) == 200
        await server.works()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://example.com/echo?q", "/echo"),
        ("http://example.com", "/"),
        ("HTTPS://x?q", "/"),
        ("/a%2Fb", "/a/b"),
    ],
)
async def test_target_forms(target: str, path: str) -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await Probe().answer(send, b"")

    async with serving(app=app) as server, await server.connect() as stream:
        await stream.send_all(get(target))
        assert (await response(stream))[0] == 200
        assert scopes[0]["path"] == path
        assert (b"host", b"localhost") in scopes[0]["headers"]


async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "control"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(os.fspath(path))
    sock.listen()
    async with serving(listeners=[trio.SocketListener(sock)]) as server:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(post("/echo", b"control"))
            assert await response(stream) == (200, b"control")
        assert server.probe.scopes[0]["client"] is None
        assert server.probe.scopes[0]["server"] == (str(path), None)


# WebSocket ----------------------------------------------------------------------------------------------


async def test_websocket_echo() -> None:
    async with serving() as server:
        async with server.websocket() as websocket:
            for message in ("text", b"bytes", "x" * 200_000):
                await websocket.send_message(message)
                assert await websocket.get_message() == message
        await server.works()
    assert server.probe.messages[-1]["type"] == "websocket.disconnect"


def upgrade(path: str = "/", *headers: bytes) -> bytes:
    return get(
        path,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )


@pytest.mark.parametrize("path", ["/", "/undecided"])
@pytest.mark.parametrize("stray", [b"x", b"\xff", b"\x81", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 5000])
async def test_websocket_upgrade_and_a_stray_byte(
    path: str, stray: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server, await server.connect() as bystander:
        await bystander.send_all(get("/wait"))
        async with await server.connect() as stream:
            await stream.send_all(upgrade(path) + stray)
            assert status_of(await rest(stream)) in (101, 400)
        async with await server.connect() as stream:
            await stream.send_all(upgrade(path))
            await server.probe.entered.wait()
            if path == "/":
                assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")
            await stream.send_all(stray)
            await stream.send_eof()
            await rest(stream)
        await server.works()
        server.probe.release.set()
        assert await response(bystander) == (200, b"waited")
    assert errors(caplog) == []


async def test_websocket_refused() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(upgrade("/forbidden"))
        assert status_of(await rest(stream)) == 403


async def test_websocket_extension_is_not_negotiated() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(upgrade("/", b"Sec-WebSocket-Extensions: permessage-deflate"))
        answer = await stream.receive_some(4096)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in answer.lower()


async def test_websocket_message_too_big() -> None:
    settings = HttpSettings(websocket_max_message=1000, grace=0.3)
    async with serving(settings) as server:
        async with server.websocket() as websocket:
            await websocket.send_message("x" * 2000)
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1009
        await server.works()
    assert [message["type"] for message in server.probe.messages] == ["websocket.disconnect"]


async def test_websocket_message_without_end() -> None:
    settings = HttpSettings(websocket_max_message=1000)
    async with serving(settings) as server, await server.connect() as stream:
        await stream.send_all(upgrade())
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 101 ")
        fragment = b"\x80\xfe\x02\x00" + bytes(4) + bytes(512)  # masked with zeros, 512 bytes
        await stream.send_all(b"\x02" + fragment[1:] + (b"\x00" + fragment[1:]) * 3)
        assert (await rest(stream)).endswith(b"\x88\x02\x03\xf1")  # close, 1009, and then the end unasked


async def test_websocket_peer_that_answers_no_ping_is_dropped() -> None:
    settings = HttpSettings(websocket_ping=0.1)
    async with serving(settings) as server, await server.connect() as stream:
        await stream.send_all(upgrade())
        assert b"\x89\x00" in await rest(stream)  # at least one ping, then the end
    assert server.probe.messages == [{"type": "websocket.disconnect", "code": 1006}]


async def test_websocket_application_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        async with server.websocket() as websocket:
            await websocket.send_message("fail")
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1011
        await server.works()
    assert len(errors(caplog)) == 1


async def test_websocket_is_told_when_the_server_stops() -> None:
    settings = HttpSettings(grace=10 * PATIENCE)
    async with serving(settings) as server:
        async with server.websocket() as websocket:
            await websocket.send_message("here")
            assert await websocket.get_message() == "here"
            server.stopping.set()
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1001
        await server.ended.wait()


# Hostile clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
        (get("/", version=b"3.0"), 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"CONNECT // HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (get("?no-path"), 400),
        (get("/" + "x" * 70_000), 431),
        (get("/", *[b"X-%d: y" % number for number in range(10_000)]), 431),
        (get("/", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Protocol: \xff"), 400),
        (get("/", b"Connection: Upgrade", b"Upgrade: websocket"), 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_refused(request_: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, await server.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_what_goes, stream, request_)
            assert status_of(await rest(stream)) == status
        await server.works()
    assert all(record.levelno < logging.ERROR for record in caplog.records)
    assert all(record.exc_info is None for record in caplog.records)


async def send_what_goes(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_h2c_upgrade_is_not_taken_up() -> None:
    headers = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    async with serving() as server, await server.connect() as stream:
        for _ in range(2):  # and the connection stays a good HTTP/1.1 connection
            await stream.send_all(get("/", *headers))
            assert await response(stream) == (200, b"hello")
        await server.works()


async def test_silent_client_is_closed() -> None:
    settings = HttpSettings(header_timeout=0.3, body_timeout=10 * PATIENCE, keep_alive_timeout=10 * PATIENCE)
    async with serving(settings) as server, await server.connect() as stream:
        assert await rest(stream) == b""


async def test_idle_client_is_closed() -> None:
    async with serving(IMPATIENT) as server, await server.connect() as stream:
        await stream.send_all(get("/"))
        assert await response(stream) == (200, b"hello")
        await trio.sleep(QUICK.header_timeout + 0.05)  # longer than a head may take, shorter than idle
        await stream.send_all(get("/"))
        assert await response(stream) == (200, b"hello")
        assert await rest(stream) == b""


@pytest.mark.parametrize("before", [b"", get("/")])
async def test_head_byte_by_byte(before: bytes) -> None:
    async with serving() as server, await server.connect() as stream:
        if before:
            await stream.send_all(before)
            assert await response(stream) == (200, b"hello")
        answer = await answer_to_drips(stream, get("/", b"X: " + b"y" * 1000))
        assert status_of(answer) == 408
        await server.works()


async def answer_to_drips(stream: trio.SocketStream, data: bytes) -> bytes:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drip() -> None:
            with suppress(trio.BrokenResourceError):  # it has answered
                for byte in data:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

        answer = await rest(stream)
        nursery.cancel_scope.cancel()
    return answer


async def test_body_that_stalls() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(post("/echo", b"only this", length=100))
        assert status_of(await rest(stream)) == 408
        await server.probe.left.wait()
        assert server.probe.messages[-1] == {"type": "http.disconnect"}
        await server.works()


async def test_body_byte_by_byte() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(post("/echo", b"", length=1000))
        assert status_of(await answer_to_drips(stream, b"z" * 1000)) == 408
        await server.works()


async def test_a_body_may_take_long_if_it_is_long() -> None:
    piece, number = b"z" * RECEIVE_SIZE, 8
    async with serving(HttpSettings(body_timeout=2.0)) as server, await server.connect() as stream:
        await stream.send_all(post("/echo", b"", length=number * len(piece)))
        for _ in range(number):
            await trio.sleep(0.3)
            await stream.send_all(piece)
        status, body = await response(stream)
        assert (status, len(body)) == (200, number * len(piece))


async def test_slow_application_does_not_count_against_the_client() -> None:
    async with serving(IMPATIENT) as server, await server.connect() as stream:
        await stream.send_all(get("/wait"))
        await trio.sleep(IMPATIENT.keep_alive_timeout + 0.1)
        server.probe.release.set()
        assert await response(stream) == (200, b"waited")


async def test_disconnect_reaches_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        stream = await server.connect()
        await stream.send_all(get("/listen"))
        await server.probe.entered.wait()
        await stream.aclose()
        await server.probe.left.wait()
        assert server.probe.messages[1:] == [{"type": "http.disconnect"}] * 2
        await server.works()
    assert errors(caplog) == []


async def test_client_that_never_reads_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    settings = HttpSettings(write_timeout=0.3, grace=30)
    async with serving(settings) as server, await server.connect() as stream:
        await stream.send_all(get("/big"))
        await server.probe.left.wait()
        assert isinstance(server.probe.outcome[0], OSError)
        await server.works()
    assert errors(caplog) == []


async def test_slow_but_steady_client_gets_all_of_it() -> None:
    settings = HttpSettings(write_timeout=0.3)
    async with serving(settings) as server, await server.connect() as stream:
        await stream.send_all(get("/big", b"Connection: close"))
        received, started = 0, trio.current_time()
        while data := await stream.receive_some(40 * WRITE_SIZE):
            received += len(data)
            if trio.current_time() - started < 2 * settings.write_timeout:
                await trio.sleep(0.05)
        assert received > BIG


# Stopping -----------------------------------------------------------------------------------------------


async def test_stop_with_a_client_that_never_reads() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get("/big"))
        await server.probe.entered.wait()
        await server.works()
        server.stopping.set()
        started = trio.current_time()
        await server.ended.wait()
        assert trio.current_time() - started > QUICK.grace - 0.05
        assert isinstance(server.probe.outcome[0], trio.Cancelled)


async def test_stop_lets_requests_finish_and_closes_idle_connections_at_once() -> None:
    settings = HttpSettings(grace=10 * PATIENCE)
    async with serving(settings) as server, await server.connect() as idle, await server.connect() as busy:
        await idle.send_all(get("/"))
        assert await response(idle) == (200, b"hello")
        await busy.send_all(get("/wait") + get("/"))
        await server.probe.entered.wait()
        server.stopping.set()
        assert await rest(idle) == b""
        with pytest.raises(OSError, match="all attempts to connect"):
            await server.connect()
        assert not server.ended.is_set()
        server.probe.release.set()
        answer = await rest(busy)  # the first request only: the second was not begun
        assert status_of(answer) == 200
        assert b"connection: close" in answer
        assert answer.endswith(b"waited")
        await busy.aclose()
        await server.ended.wait()


async def test_stop_ends_an_application_that_does_not() -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get("/forever"))
        await server.probe.entered.wait()
        server.stopping.set()
        await server.ended.wait()
        assert await rest(stream) == b""


async def test_cancellation_ends_everything() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    probe = Probe()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, listeners, probe, HttpSettings(), stopping=trio.Event()))
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(get("/big"))
                await probe.entered.wait()
                nursery.cancel_scope.cancel()


# Failing applications -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/fail", "/fail_group", "/fail_stray", "/silent"])
async def test_application_fails_before_the_answer(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, await server.connect() as bystander:
        await bystander.send_all(get("/wait"))
        async with await server.connect() as stream:
            await stream.send_all(get(path))
            answer = await rest(stream)
        assert status_of(answer) == 500
        assert b"secret" not in answer
        server.probe.release.set()
        assert await response(bystander) == (200, b"waited")
        await server.works()
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == (0 if path == "/silent" else 1)
    assert all(record.exc_info for record in logged)
    assert path == "/silent" or f"GET '{path}' from 127.0.0.1 failed" in caplog.text


@pytest.mark.parametrize("path", ["/fail_late", "/lies"])
async def test_application_fails_in_the_answer(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(get(path))
        answer = await rest(stream)
        assert b"secret" not in answer
        assert answer == b"" or answer.endswith(b"\r\n\r\nhalf")
        await server.works()
    assert len(errors(caplog)) == 1


def test_keyboard_interrupt_is_not_kept() -> None:
    for error in (KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()])):
        with pytest.raises(type(error)):
            blame(error)


# Limits -------------------------------------------------------------------------------------------------


async def test_connection_limit() -> None:
    settings = HttpSettings(max_connections=2, retry_after=7, grace=0.3)
    async with serving(settings) as server, await server.connect() as first, await server.connect() as second:
        for stream in (first, second):
            await stream.send_all(get("/"))
            assert await response(stream) == (200, b"hello")
        async with await server.connect() as third:
            await third.send_all(get("/"))
            answer = await rest(third)
            assert status_of(answer) == 503
            assert b"retry-after: 7\r\n" in answer
        await first.send_all(get("/"))
        assert await response(first) == (200, b"hello")
        await second.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await server.works()


# Lifespan -----------------------------------------------------------------------------------------------


async def test_quart_application() -> None:
    app, steps = QuartTrio(__name__), []

    def step(name: str) -> Callable[[], Any]:
        async def note() -> None:
            steps.append(name)

        return note

    app.before_serving(step("start"))
    app.after_serving(step("stop"))

    @app.get("/")
    async def hello() -> str:
        app.add_background_task(step("background"))
        return "hello"

    @app.websocket("/echo")
    async def echo() -> None:
        from quart import websocket

        while True:
            await websocket.send(await websocket.receive())

    async with lifespan(app), serving(app=app) as server:
        await server.works()
        async with server.websocket("/echo") as client:
            await client.send_message("quart")
            assert await client.get_message() == "quart"
    assert steps == ["start", "background", "stop"]


async def test_lifespan_failure_to_start() -> None:
    app = QuartTrio(__name__)

    @app.before_serving
    async def fail() -> None:
        raise RuntimeError("no database")

    with pytest.raises(LifespanError, match="no database"):
        async with lifespan(app):
            pytest.fail("the block ran")


async def test_lifespan_not_supported_or_not_answered() -> None:
    entered = []
    async with lifespan(Probe()):  # it refuses the scope
        entered.append(True)
    assert entered

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    with pytest.raises(LifespanError, match=r"no answer within 0\.05 s"):
        async with lifespan(deaf, timeout=0.05):
            pytest.fail("the block ran")
