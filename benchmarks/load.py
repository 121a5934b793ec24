"""Drives HTTP requests over keep-alive connections as fast as they are answered, from one process.

A selector loop on plain sockets: a load generator that costs a tenth of what it measures.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.progress import counted


@dataclass(frozen=True, slots=True)
class Load:
    """What a run came to."""

    requests: int
    seconds: float
    latencies: tuple[float, ...]  # seconds, sorted

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def p50(self) -> float:
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * 0.99))]


class Connection:
    """One that is kept, of a client that waits for each answer."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        if isinstance(address, str):  # a path
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def ask(self, request: bytes) -> float:
        """The time until it is answered, in seconds."""
        self.send(request)
        while not self.answered():
            pass
        return time.perf_counter() - self.sent_at

    def close(self) -> None:
        self.socket.close()

    def answered(self) -> bool:
        """Read what there is; whether the answer is complete. A status other than 200 is an error."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError(f"the server closed the connection after {self.received[:200]!r}")
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return False
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) < length:
            return False
        if not self.received.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {self.received[:500]!r}")
        return True


def drive(address: tuple[str, int] | str, requests: Iterator[bytes], connections: int, count: int) -> Load:
    """Send `count` requests over that many connections, each as soon as its connection is free."""
    latencies: list[float] = []
    opened = [Connection(address) for _ in range(connections)]
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        unsent = count
        for connection in opened[:count]:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(next(requests))
            unsent -= 1
        while len(latencies) < count:
            for key, _ in selector.select(timeout=60):
                connection = key.data
                if connection.answered():
                    latencies.append(time.perf_counter() - connection.sent_at)
                    counted(len(latencies), count)
                    if unsent:
                        connection.send(next(requests))
                        unsent -= 1
        seconds = time.perf_counter() - started
    for connection in opened:
        connection.close()
    return Load(count, seconds, tuple(sorted(latencies)))


def post(path: str, body: bytes, content_type: str, authorization: str = "") -> bytes:
    """A request's bytes."""
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
    if authorization:
        head.append(f"Authorization: {authorization}")
    head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def repeat(make: Callable[[int], bytes]) -> Iterator[bytes]:
    """make(0), make(1), ..."""
    number = 0
    while True:
        yield make(number)
        number += 1
