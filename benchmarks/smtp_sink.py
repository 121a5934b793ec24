"""Takes every message and keeps none: where `deliver` delivers to. `python -m benchmarks.smtp_sink PORT`

Beside SMTP it knows XRESET, and XTAKEN: how many messages it took since (one for each recipient), and the
seconds from the first RCPT to the last reply.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass

from benchmarks.progress import counted

_END = b"\r\n.\r\n"
_HELLO = (
    b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"
    b"250-CHUNKING\r\n250 SIZE\r\n"
)
_OK = b"250 2.0.0 ok\r\n"


@dataclass(slots=True)
class Taken:
    count: int = 0
    first: float = 0.0
    last: float = 0.0

    def begin(self) -> None:
        self.first = self.first or time.perf_counter()

    def add(self, recipients: int) -> None:
        self.last = time.perf_counter()
        self.count += recipients


class Session(asyncio.Protocol):
    """A connection. Replies to all that came in one packet go out in one."""

    def __init__(self, taken: Taken) -> None:
        self._all, self._recipients = taken, 0
        self._buffer, self._in_content, self._searched = bytearray(), False, 0
        self._chunk: int | None = None  # octets of the message, by BDAT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = bytearray()
        while (reply := self._content() if self._in_content else self._command()) is not None:
            replies += reply
        if replies:
            self._transport.write(bytes(replies))

    def _content(self) -> bytes | None:
        end = self._buffer.find(_END, self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(_END))
            return None
        self._in_content, self._searched = False, 0
        return self._take(end + len(_END))

    def _take(self, octets: int) -> bytes:
        del self._buffer[:octets]
        self._all.add(self._recipients)
        self._recipients = 0
        return _OK

    def _command(self) -> bytes | None:
        if self._chunk is not None:
            if len(self._buffer) < self._chunk:
                return None
            chunk, self._chunk = self._chunk, None
            return self._take(chunk)
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).upper()
        del self._buffer[: end + 2]
        if line.startswith(b"BDAT"):  # a message is always one chunk here
            self._chunk = int(line.split()[1])
            return b""
        return self.reply_to(line)

    def reply_to(self, line: bytes) -> bytes | None:
        """To a command, in upper case; None where there is none."""
        if line.startswith(b"RCPT"):
            self._recipients += 1
            self._all.begin()
        elif line == b"DATA":
            self._in_content = True
            return b"354 go on\r\n"
        elif line.startswith(b"EHLO"):
            return _HELLO
        elif line == b"RSET":
            self._recipients = 0
        elif line == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
            return None
        elif line == b"XRESET":
            self._all.count, self._all.first = 0, 0.0
        elif line == b"XTAKEN":
            return f"250 {self._all.count} {self._all.last - self._all.first:.6f}\r\n".encode()
        return _OK


class SinkStatistics:
    """Asks a sink what it took."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=60)
        self._replies = self._socket.makefile("rb")
        self._replies.readline()

    def reset(self) -> None:
        self._ask(b"XRESET")

    def wait(self, count: int, timeout: float = 120.0) -> float:
        """Seconds that it took `count` messages in, once it has them."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            _code, taken, seconds = self._ask(b"XTAKEN").split()
            if int(taken) >= count:
                return float(seconds)
            counted(int(taken), count)
            time.sleep(0.02)
        raise RuntimeError(f"only {int(taken)} of {count} messages were delivered")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def _ask(self, command: bytes) -> bytes:
        self._socket.sendall(command + b"\r\n")
        return self._replies.readline()


async def _serve(port: int) -> None:
    taken = Taken()
    server = await asyncio.get_running_loop().create_server(
        lambda: Session(taken), "127.0.0.1", port, backlog=1000
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
