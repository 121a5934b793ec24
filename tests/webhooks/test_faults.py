"""Receivers that do everything wrong at once: the other URLs' calls are not delayed, nothing is lost, and
memory stays as it was."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from gateway.outbound import places
from tests.commands import PATIENCE
from tests.webhooks.gateways import Bench, Receiver, bench, receiving
from tests.webhooks.receivers import Conversation, all_listening, answering, once, read_request

CALLS = 3  # to each bad URL
GOOD = 100


async def hangs(stream: trio.SocketStream) -> None:
    await read_request(stream)
    await trio.sleep_forever()


async def dribbles(stream: trio.SocketStream) -> None:
    """A byte a second: it would take an hour."""
    await read_request(stream)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 4000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1)


async def resets(stream: trio.SocketStream) -> None:
    await read_request(stream)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def floods(stream: trio.SocketStream) -> None:
    """A gigabyte, with a status that is no success, so that it is an error that is looked at."""
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 500 Sorry\r\nContent-Length: 1073741824\r\n\r\n")
    for _ in range(16_384):
        await stream.send_all(b"x" * 65_536)


async def floods_headers(stream: trio.SocketStream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    for _ in range(16_384):
        await stream.send_all(b"X-More: " + b"x" * 65_000 + b"\r\n")


async def no_tls(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"this is no TLS\r\n")


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
HANGING: dict[str, Conversation] = {"hangs": hangs, "dribbles": dribbles}
BAD: dict[str, tuple[Conversation, str]] = {
    "500": (answering(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "HTTP status 500"),
    "302": (answering(REDIRECT), "HTTP status 302: redirects are not followed"),
    "resets": (resets, "the connection broke before the answer was complete"),
    "floods": (floods, "HTTP status 500"),
    "floods headers": (floods_headers, "the answer is longer than any good answer"),
    "too short": (once(b"HTTP/1.1 503 No\r\nContent-Length: 500\r\n\r\nshort"), "HTTP status 503"),
    "wrong length": (
        once(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nno"),
        "the answer is no proper HTTP",
    ),
    "bad TLS": (no_tls, "TLS with 127.0.0.1 failed"),
}


async def good_calls(b: Bench, receiver: Receiver) -> None:
    """Makes calls to a receiver that works, one after the other."""
    for number in range(GOOD):
        before = len(receiver.requests)
        await b.event(receiver.url, message=10_000 + number)
        await receiver.has(before + 1)


async def test_bad_receivers_are_in_nobodys_way(tmp_path: Path) -> None:
    """Those that hang have their time-out only when all is over: whoever waits for them waits too long."""
    good = Receiver()
    bad = HANGING | {name: conversation for name, (conversation, _) in BAD.items()}
    async with (
        bench(tmp_path, timeout=10 * PATIENCE) as b,
        receiving(good),
        all_listening(bad.values()) as found,
        sending_to_the_end(b),
    ):
        urls = dict(zip(bad, found, strict=True))
        urls["bad TLS"] = urls["bad TLS"].replace("http:", "https:")
        await good_calls(b, good)
        memory = psutil.Process().memory_info().rss
        calls = {
            name: [await b.event(url, message=100 * place + n) for n in range(CALLS)]
            for place, (name, url) in enumerate(urls.items(), 1)
        }
        await good_calls(b, good)
        for name in HANGING:
            assert (await b.call(calls.pop(name)[0])).error == ""
        for name, (first, *waiting) in calls.items():
            call = await b.until(first, lambda c: c.error != "")
            [attempt] = await b.history(first)
            assert (attempt.success, call.state) == (False, "queued"), name
            assert attempt.error.startswith(BAD[name][1]), (name, attempt.error)
            assert call.next_attempt > b.clock.now()
            for call_id in waiting:  # they have their turn, or wait for it
                assert (await b.call(call_id)).state == "queued", name
        grown = psutil.Process().memory_info().rss - memory
    assert grown < 50 * 1024 * 1024


async def test_those_that_hang_are_given_up(tmp_path: Path) -> None:
    async with (
        bench(tmp_path, timeout=0.3) as b,
        all_listening(HANGING.values()) as urls,
        b.sending(),
    ):
        for url in urls:
            call_id = await b.event(url, message=1)
            call = await b.until(call_id, lambda c: c.error != "")
            assert (call.state, call.error) == ("queued", "no answer within 0.3 s")
            assert call.next_attempt > b.clock.now()


@asynccontextmanager
async def sending_to_the_end(b: Bench) -> AsyncIterator[None]:
    """Runs a sender; leaving ends it with what is under way."""
    with trio.CancelScope() as scope:
        async with b.sending():
            yield
            scope.cancel()


async def test_more_that_hang_than_there_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give up their places once they have taken long: others wait for that, not for the time-out."""
    monkeypatch.setattr(places, "SLOW_AFTER", 0.1)
    good = Receiver()
    async with (
        bench(tmp_path, timeout=10 * PATIENCE, max_calls=5) as b,
        receiving(good),
        all_listening([hangs] * 20) as hanging,
    ):
        for number, url in enumerate(hanging):
            await b.event(url, message=number + 1)
        last = await b.event(good.url, message=100)
        async with sending_to_the_end(b):
            await b.until(last, lambda c: c.state == "retired")
            await b.event(good.url, message=101)
            await good.has(2)
