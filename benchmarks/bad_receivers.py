"""Receivers of webhooks that do everything wrong, in threads."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

_SORRY = b"HTTP/1.1 500 Sorry\r\nContent-Length: %d\r\n\r\n"
_REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"


def _dribble(client: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 4000:
        client.send(bytes([byte]))
        time.sleep(1)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _flood(client: socket.socket) -> None:
    client.sendall(_SORRY % (1 << 30))
    for _ in range(1 << 14):
        client.sendall(b"x" * (1 << 16))


_BEHAVIOURS: dict[str, Callable[[socket.socket], object]] = {
    "hangs": lambda client: client.recv(1),
    "a byte a second": _dribble,
    "500": lambda client: client.sendall(_SORRY % 0),
    "302": lambda client: client.sendall(_REDIRECT),
    "resets": _reset,
    "a gigabyte": _flood,
    "wrong length": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "bad TLS": lambda client: client.sendall(b"no TLS\r\n"),
}


@contextmanager
def bad_receivers() -> Iterator[list[str]]:
    """Their URLs."""
    with ExitStack() as stack:
        urls = []
        for name, behaviour in _BEHAVIOURS.items():
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
            threading.Thread(target=_serve, args=(listener, behaviour), daemon=True).start()
            scheme = "https" if name == "bad TLS" else "http"
            urls.append(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")
        yield urls


def _serve(listener: socket.socket, behaviour: Callable[[socket.socket], object]) -> None:
    with suppress(OSError):  # it was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_answer, args=(client, behaviour), daemon=True).start()


def _answer(client: socket.socket, behaviour: Callable[[socket.socket], object]) -> None:
    with client, suppress(OSError):
        client.recv(65_536)
        behaviour(client)
