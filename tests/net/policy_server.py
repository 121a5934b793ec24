"""A web server with the MTA-STS policy of a domain: HTTPS on a real socket, as wrong as it is told to be."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from tests.net.authority import Issued, root

TEXT = b"version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n"
HOST = "mta-sts.example.org"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n"


@dataclass(kw_only=True)
class PolicyServer:
    """Serves `page` until it is changed, each request on a connection of its own."""

    port: int = 0
    page: bytes = TEXT
    answer: bytes | None = None  # instead of a proper one with `page`
    silent: bool = False
    certificate: Issued = field(default_factory=lambda: root().issue(HOST))
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def listen(self, nursery: trio.Nursery, address: str = "127.0.0.1") -> None:
        """Begin, on a port that the system gives."""
        [listener] = await trio.open_tcp_listeners(0, host=address)
        self.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        tls = trio.SSLStream(
            stream, self.certificate.server_context(), server_side=True, https_compatible=True
        )
        try:
            request = b""
            while b"\r\n\r\n" not in request:
                request += bytes(await tls.receive_some())
            self.requests.append(request)
            if self.silent:
                await trio.sleep_forever()
            await tls.send_all(_HEAD % len(self.page) + self.page if self.answer is None else self.answer)
            await tls.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)
