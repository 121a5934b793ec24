"""Hands in messages over SMTP connections that are kept, as fast as they are taken, from one process.

As `benchmarks.load`: a selector loop, here with MAIL, RCPT and DATA in one packet (RFC 2920).
"""

from __future__ import annotations

import base64
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.load import Load
from benchmarks.processes import TEXT
from benchmarks.progress import counted

_ENVELOPE = ("250", "250", "354")
_TAKEN = ("250",)


@dataclass(frozen=True, slots=True)
class Login:
    """TLS from the first byte, whatever the certificate, and AUTH PLAIN."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Envelope:
    sender: str
    recipient: str  # {number} is the message's

    def commands(self, number: int) -> bytes:
        recipient = self.recipient.format(number=number)
        return f"MAIL FROM:<{self.sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()


def content(number: int, sender: str = "u@example.org") -> bytes:
    """A message of 1 kB, as SMTP transmits it; no two numbers have the same."""
    return (
        f"From: {sender}\r\nTo: somebody@example.org\r\nSubject: Message {number}\r\n"
        f"Message-ID: <{number}.{time.time_ns()}@example.org>\r\n"
        "Date: Mon, 15 Jan 2024 10:00:00 +0000\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        f"{TEXT[:500]}\r\n{TEXT[500:]}\r\n"
    ).encode()


class _Session:
    """A connection on which one message after the other is handed in."""

    def __init__(self, address: tuple[str, int], login: Login | None) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._expected: tuple[str, ...] = ()
        self._content = b""
        self.sent_at = 0.0
        if login:
            self.socket = _context().wrap_socket(self.socket)
        self._ask(b"", "220")
        self._ask(b"EHLO client.example.org\r\n", "250")
        if login:
            plain = base64.b64encode(f"\0{login.name}\0{login.password}".encode()).decode()
            self._ask(f"AUTH PLAIN {plain}\r\n".encode(), "235")
        self.socket.setblocking(False)

    def begin(self, envelope: bytes, content: bytes) -> None:
        self.sent_at = time.perf_counter()
        self._content, self._expected = content, _ENVELOPE
        self.socket.sendall(envelope)

    def taken(self) -> bool:
        """Read what there is, and go on; whether the message was taken. Any other answer is an error."""
        try:
            data = self.socket.recv(65536)
        except (ssl.SSLWantReadError, BlockingIOError):  # not a whole record yet
            return False
        if not self._complete(data):
            return False
        if self._expected is _TAKEN:
            return True
        self._expected = _TAKEN
        self.socket.sendall(self._content + b".\r\n")
        return False

    def close(self) -> None:
        self.socket.close()

    def _ask(self, command: bytes, expected: str) -> None:
        self._expected = (expected,)
        self.socket.sendall(command)
        while not self._complete(self.socket.recv(65536)):
            pass

    def _complete(self, data: bytes) -> bool:
        """Whether all replies that are expected have come."""
        if not data:
            raise RuntimeError(f"the server closed the connection after {self._received!r}")
        self._received += data
        lines = self._received.decode("ascii", "replace").split("\r\n")
        codes = tuple(line[:3] for line in lines[:-1] if line[3:4] != "-")
        if codes != self._expected[: len(codes)]:
            raise RuntimeError(f"the server answered {self._received!r}")
        if len(codes) < len(self._expected):
            return False
        self._received = b""
        return True


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def hand_in(
    address: tuple[str, int],
    envelope: Envelope,
    connections: int,
    count: int,
    *,
    login: Login | None = None,
    make: Callable[[int], bytes] = content,
) -> Load:
    """Hand in `count` messages over that many connections, each as soon as its connection is free.

    The connections are open, and logged in, before the time starts. Latencies are from MAIL to the last 250.
    """
    latencies: list[float] = []
    opened = [_Session(address, login) for _ in range(connections)]
    contents = [make(number) for number in range(count)]
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        begun = 0
        for session in opened[:count]:
            selector.register(session.socket, selectors.EVENT_READ, session)
            session.begin(envelope.commands(begun), contents[begun])
            begun += 1
        while len(latencies) < count:
            ready = selector.select(timeout=60)
            if not ready:
                raise RuntimeError(
                    f"{address} does not answer any more, {len(latencies)} messages were taken"
                )
            for key, _ in ready:
                session = key.data
                if session.taken():
                    latencies.append(time.perf_counter() - session.sent_at)
                    counted(len(latencies), count)
                    if begun < count:
                        session.begin(envelope.commands(begun), contents[begun])
                        begun += 1
        seconds = time.perf_counter() - started
    for session in opened:
        session.close()
    return Load(count, seconds, tuple(sorted(latencies)))
