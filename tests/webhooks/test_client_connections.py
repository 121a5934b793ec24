"""Which connection a request goes out on, and how often it is sent."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from trio.testing import MockClock

from gateway.webhooks.client import Headers, WebhookClient
from tests.commands import PATIENCE
from tests.webhooks.receivers import LOOPBACK, listening, read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS: Headers = [(b"X-Mox-Webhook-ID", b"7")]


class Receiver:
    """Gives its answers one by one, whatever the connection; None closes it. Then OK for ever."""

    def __init__(self, *answers: bytes | None, close_after: bool = False) -> None:
        self._answers = [*answers]
        self._close_after = close_after
        self.requests: list[int] = []  # for each the number of its connection
        self.connections = 0
        self.open = 0
        self._changed = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self._count(1)
        number = self.connections
        try:
            while await read_request(stream):
                self.requests.append(number)
                answer = self._answers.pop(0) if self._answers else OK
                if answer is None:
                    break
                await stream.send_all(answer)
                if self._close_after:
                    break
        finally:
            await stream.aclose()
            self._count(-1)

    def _count(self, change: int) -> None:
        self.open += change
        self._changed.set()
        self._changed = trio.Event()

    async def until_open(self, connections: int) -> None:
        """Wait until there are exactly so many open connections."""
        with trio.fail_after(PATIENCE):
            while self.open != connections:
                await self._changed.wait()


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (OK, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", True),
        (b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 10_000, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (OK + OK, False),
        (OK + b"x", False),
        (b"garbage", False),
    ],
)
async def test_a_connection_is_used_again_if_the_answer_allows_it(answer: bytes, again: bool) -> None:
    receiver = Receiver(answer)
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        await client.post(url, b"x", HEADERS)
        assert (await client.post(url, b"x", HEADERS)).response == "ok"
    assert receiver.requests == ([1, 1] if again else [1, 2])


async def test_another_origin_has_another_connection() -> None:
    one, two = Receiver(), Receiver()
    async with (
        listening(one) as first,
        listening(two) as second,
        WebhookClient(allow_networks=LOOPBACK) as client,
    ):
        for _ in range(2):
            assert (await client.post(first, b"x", HEADERS)).success
            assert (await client.post(second + "&more", b"x", HEADERS)).success
    assert (one.requests, two.requests) == ([1, 1], [1, 1])


async def test_a_connection_that_the_receiver_closed_meanwhile_is_not_used() -> None:
    receiver = Receiver(close_after=True)
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for _ in range(3):
            assert (await client.post(url, b"x", HEADERS)).success
            await receiver.until_open(0)
    assert receiver.requests == [1, 2, 3]


async def test_a_connection_on_which_a_receiver_spoke_unasked_is_not_used() -> None:
    connections = 0
    idle, spoken = trio.Event(), trio.Event()

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await read_request(stream)
        await stream.send_all(OK)
        await idle.wait()
        await stream.send_all(b"HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")
        spoken.set()
        await stream.receive_some()

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url, b"x", HEADERS)).success
        idle.set()
        await spoken.wait()
        assert (await client.post(url, b"x", HEADERS)).success
    assert connections == 2


async def test_a_request_is_sent_again_if_a_kept_connection_is_closed_without_a_byte_of_an_answer() -> None:
    receiver = Receiver(OK, None, OK)
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for _ in range(2):
            assert (await client.post(url, b"x", HEADERS)).success
    assert receiver.requests == [1, 1, 2]


async def test_a_reset_of_a_kept_connection_is_like_its_end() -> None:
    requests = 0

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal requests
        while await read_request(stream):
            requests += 1
            if requests == 2:
                _reset(stream)
                return
            await stream.send_all(OK)

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for _ in range(2):
            assert (await client.post(url, b"x", HEADERS)).success
    assert requests == 3


async def test_a_request_is_sent_twice_at_most() -> None:
    receiver = Receiver(OK, None, None)
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url, b"x", HEADERS)).success
        answer = await client.post(url, b"x", HEADERS)
    assert answer.error == "the receiver closed the connection without an answer"
    assert receiver.requests == [1, 1, 2]


async def test_a_request_is_sent_once_on_a_new_connection() -> None:
    receiver = Receiver(None)
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        answer = await client.post(url, b"x", HEADERS)
    assert answer.error == "the receiver closed the connection without an answer"
    assert receiver.requests == [1]


@pytest.mark.parametrize("start", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_is_sent_once_if_there_is_a_byte_of_an_answer(start: bytes, reset: bool) -> None:
    seen = 0

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal seen
        for answer in (OK, start):
            await read_request(stream)
            seen += 1
            await stream.send_all(answer)
        if reset:
            _reset(stream)

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url, b"x", HEADERS)).success
        answer = await client.post(url, b"x", HEADERS)
    assert answer.error.startswith("the connection broke" if reset else "the receiver closed the connection")
    assert "before the answer was complete" in answer.error
    assert seen == 2


async def test_a_request_is_sent_once_if_no_answer_comes_in_time() -> None:
    receiver = Receiver(OK, b"")
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url, b"x", HEADERS)).success
        answer = await client.post(url, b"x", HEADERS, timeout=0.1)
        assert answer.error == "no answer within 0.1 s"
        await receiver.until_open(0)  # what may still come must not be taken for another's answer
    assert receiver.requests == [1, 1]


async def test_an_idle_connection_is_dropped_before_its_receiver_would_close_it(
    mock_clock: MockClock,
) -> None:
    receiver = Receiver()
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for seconds in (3.9, 4.1, 0.0):
            assert (await client.post(url, b"x", HEADERS)).success
            mock_clock.jump(seconds)
        assert (await client.post(url, b"x", HEADERS)).success
    assert receiver.requests == [1, 1, 2, 2]


async def test_only_so_many_idle_connections_are_kept_and_none_after_the_end() -> None:
    receiver = Receiver()
    async with listening(receiver) as url:
        async with WebhookClient(allow_networks=LOOPBACK) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(client.post, url, b"x", HEADERS)
            await receiver.until_open(20)
        await receiver.until_open(0)
    assert receiver.connections == 30
    assert len(receiver.requests) == 30


async def test_a_cancelled_call_takes_its_connection_along() -> None:
    receiver = Receiver(OK, b"")
    async with listening(receiver) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url, b"x", HEADERS)).success
        with trio.move_on_after(0.05):
            await client.post(url, b"x", HEADERS)
        assert (await client.post(url, b"x", HEADERS)).success
    assert receiver.requests == [1, 1, 2]


def _reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
