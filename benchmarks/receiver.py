"""Receives webhooks in a thread, counting what comes in and remembering when."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.progress import counted

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Receiver:
    """`url` ends in a slash; what comes after it tells the kinds of webhooks apart."""

    url: str
    counts: dict[str, int] = field(default_factory=dict)  # by path
    delivered_at: dict[int, float] = field(default_factory=dict)  # QueueMsgID -> time.perf_counter()
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, counts: dict[str, int], timeout: float = 120.0) -> None:
        """Until at least so many came for each path."""

        def all_came() -> bool:
            counted(sum(self.counts.get(path, 0) for path in counts), sum(counts.values()))
            return all(self.counts.get(path, 0) >= count for path, count in counts.items())

        with self.changed:
            if not self.changed.wait_for(all_came, timeout):
                raise RuntimeError(f"webhooks are missing: {self.counts} of {counts}")

    def wait_delivered(self, queue_msg_id: int, timeout: float = 30.0) -> float:
        """When the message's `delivered` came."""
        with self.changed:
            if not self.changed.wait_for(lambda: queue_msg_id in self.delivered_at, timeout):
                raise RuntimeError(f"no webhook for message {queue_msg_id}")
            return self.delivered_at[queue_msg_id]

    def take(self, path: str, body: bytes) -> None:
        now = time.perf_counter()
        with self.changed:
            self.counts[path] = self.counts.get(path, 0) + 1
            if path == "/out":
                self.delivered_at[json.loads(body)["QueueMsgID"]] = now
            self.changed.notify_all()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    receiver = Receiver(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    done = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, receiver, done), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        done.set()
        thread.join()
        listener.close()


def _serve(listener: socket.socket, receiver: Receiver, done: threading.Event) -> None:
    buffers: dict[socket.socket, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not done.is_set():
            for key, _ in selector.select(timeout=0.2):
                if key.fileobj is listener:
                    client, _address = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    buffers[client] = bytearray()
                    selector.register(client, selectors.EVENT_READ)
                    continue
                client = key.fileobj  # type: ignore[assignment]
                try:
                    data = client.recv(65536)
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(client)
                    client.close()
                    del buffers[client]
                    continue
                buffers[client] += data
                _answer(client, buffers[client], receiver)


def _answer(client: socket.socket, buffer: bytearray, receiver: Receiver) -> None:
    while (end := buffer.find(b"\r\n\r\n")) >= 0:
        head = bytes(buffer[:end])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(buffer) < end + 4 + length:
            return
        body = bytes(buffer[end + 4 : end + 4 + length])
        del buffer[: end + 4 + length]
        client.sendall(_ANSWER)
        receiver.take(head.split(b" ", 2)[1].decode(), body)
