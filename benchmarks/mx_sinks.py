"""Twenty MX hosts with STARTTLS that keep nothing: where `direct` delivers to.

`python -m benchmarks.mx_sinks PORT`. They listen on 127.0.1.1 to 127.0.1.20; 127.0.0.1 is a sink as
`benchmarks.smtp_sink`, which counts for all.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.smtp_sink import Session, Taken
from gateway.net.certificates import self_signed

HOSTS = 20
_HELLO = (
    b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n"
    b"250-CHUNKING\r\n"
)


class TlsSession(Session):
    """Takes mail within TLS, and without."""

    def __init__(self, taken: Taken, context: ssl.SSLContext) -> None:
        super().__init__(taken)
        self._context, self._in_tls = context, False
        self._early = b""  # came within TLS before the handshake was seen to be over
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._in_tls:
            super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._upgrade is not None and not self._upgrade.done():
            self._early += data
        else:
            super().data_received(data)

    def reply_to(self, line: bytes) -> bytes | None:
        if line.startswith(b"EHLO"):
            return _HELLO + (b"250 SIZE\r\n" if self._in_tls else b"250 STARTTLS\r\n")
        if line == b"STARTTLS":
            self._transport.pause_reading()  # what comes now is the handshake's
            self._transport.write(b"220 go on\r\n")
            self._upgrade = asyncio.get_running_loop().create_task(self._start_tls())
            return None
        return super().reply_to(line)

    async def _start_tls(self) -> None:
        self._in_tls = True
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, self._context, server_side=True
            )
        except OSError:
            return  # the client went away
        assert transport is not None
        self._transport = transport
        early, self._early = self._early, b""
        super().data_received(early)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = self_signed(datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "both.pem")
        path.write_bytes(certificate + key)
        context.load_cert_chain(path)
    return context


async def _serve(port: int) -> None:
    taken, context, loop = Taken(), _context(), asyncio.get_running_loop()
    for number in range(1, HOSTS + 1):
        await loop.create_server(lambda: TlsSession(taken, context), f"127.0.1.{number}", port, backlog=1000)
    server = await loop.create_server(lambda: Session(taken), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
