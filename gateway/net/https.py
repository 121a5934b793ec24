"""One GET over HTTPS, of a small page that anybody may have written: bounded in time and size.

Names are resolved by the gateway's own resolver, and only addresses that may be connected to are (see
`addresses`). The certificate is verified before anything is asked. Redirects are not followed, and no proxy
is used.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import h11
import trio

from gateway.net.addresses import Network, allowed
from gateway.net.dns import Answer, DnsTrouble, Resolver

_BLOCK = 16 * 1024
_CONNECT_TIME = 10.0  # seconds for each address but the last


class HttpsError(Exception):
    """There is no such page to be had. The text is one line; `certificate`: the server could not prove to be
    the one that was meant."""

    def __init__(self, text: str, *, certificate: bool = False) -> None:
        super().__init__(text)
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    content_type: str  # in lower case, without parameters
    body: bytes


async def get(
    resolver: Resolver,
    host: str,
    path: str,
    *,
    context: ssl.SSLContext,
    max_size: int,
    timeout: float,
    port: int = 443,
    allow_networks: Sequence[Network] = (),
) -> Page:
    """`host` is a name in A-labels, `path` ASCII; `max_size` bounds the body (bytes), `timeout` all of it
    (seconds); addresses in `allow_networks` are used though they are not public. Raises HttpsError."""
    with trio.move_on_after(timeout):
        stream = await _connect(await _addresses(resolver, host, allow_networks), port, host)
        tls = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
        try:
            await tls.do_handshake()
            return await _ask(tls, host, path, max_size)
        except trio.BrokenResourceError as exc:
            cause = exc.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise HttpsError(
                    f"the certificate of {host}: {cause.verify_message}", certificate=True
                ) from None
            raise HttpsError(f"the connection to {host} broke: {_reason(exc)}") from None
        except h11.RemoteProtocolError as exc:
            raise HttpsError(f"the answer of {host} is no proper HTTP: {exc}") from None
        finally:
            await trio.aclose_forcefully(tls)
    raise HttpsError(f"no answer of {host} within {timeout:g} seconds")


async def _addresses(
    resolver: Resolver, host: str, networks: Sequence[Network]
) -> Sequence[IPv4Address | IPv6Address]:
    found: list[IPv4Address | IPv6Address] = []
    trouble = f"{host} has no address"
    for look_up in (resolver.ipv6, resolver.ipv4):
        reply = await look_up(host)
        if isinstance(reply, Answer):
            usable = [address for address in reply.records if allowed(address, networks)]
            found += usable[:2]
            if not usable:
                trouble = f"{host} has no public address, only {', '.join(map(str, reply.records[:3]))}"
        elif isinstance(reply, DnsTrouble):
            trouble = reply.text
    if not found:
        raise HttpsError(trouble)
    return found


async def _connect(addresses: Sequence[IPv4Address | IPv6Address], port: int, host: str) -> trio.SocketStream:
    reason = ""
    for number, address in enumerate(addresses, 1):
        last = number == len(addresses)
        family = trio.socket.AF_INET if address.version == 4 else trio.socket.AF_INET6
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            with trio.fail_after(float("inf") if last else _CONNECT_TIME):
                await sock.connect((str(address), port))
            return trio.SocketStream(sock)
        except (OSError, trio.TooSlowError) as exc:
            sock.close()
            reason = f"{address}: {_reason(exc)}"
        except BaseException:
            sock.close()
            raise
    raise HttpsError(f"cannot connect to {host} port {port} at {reason}")


async def _ask(stream: trio.abc.Stream, host: str, path: str, max_size: int) -> Page:
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET",
        target=path,
        headers=[
            ("Host", host),
            ("User-Agent", "mail-gateway"),
            ("Accept", "text/plain"),
            ("Connection", "close"),
        ],
    )
    await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, content_type, body = 0, "", bytearray()
    received = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(_BLOCK))
            received += len(data)
            if received > max_size + 2 * _BLOCK:  # of header fields, chunk sizes and 1xx answers
                raise HttpsError(f"the answer of {host} is longer than {max_size} bytes")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            given = dict(event.headers).get(b"content-type", b"").decode("latin-1")
            content_type = given.partition(";")[0].strip().lower()
            if status != 200:  # its body is nobody's concern
                return Page(status, content_type, b"")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_size:
                raise HttpsError(f"the answer of {host} is longer than {max_size} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Page(status, content_type, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise HttpsError(f"{host} closed the connection without an answer")


def _reason(exc: BaseException) -> str:
    cause = exc.__cause__ or exc
    if isinstance(cause, trio.TooSlowError):
        return "timed out"
    if isinstance(cause, ssl.SSLError):
        return cause.reason or "TLS failed"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
