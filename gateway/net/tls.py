"""TLS over any trio stream, by OpenSSL with memory BIOs.

Not Python's ssl module: that has neither the exporter that channel binding needs under TLS 1.3 (RFC 9266)
nor the chain that a peer sent. What a connection may be is in `tls_contexts`.

Three rules hold throughout:

1. What OpenSSL wants to say goes out before anything more is read, so that no more than one block waits.
2. The end of the peer's data is its close_notify and nothing else: a connection that just ends was cut.
3. A cancellation while a record goes out leaves half of it sent; the stream then refuses to send more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Self

import trio
from cryptography import x509
from OpenSSL import SSL

from gateway.net.certificates import UNREADABLE, names_of
from gateway.net.tls_contexts import ClientContext, Verification
from gateway.net.tls_results import UNREADABLE_CERTIFICATE, FailureType, TlsFault

_BLOCK = 65536  # octets moved at once
_RECORD = 16384  # octets of plain text that a TLS record holds at most
_CLOSING = 5.0  # seconds for the peer to take our close_notify

# RFC 9266, section 4.2
_BINDING_LABEL = b"EXPORTER-Channel-Binding"
_BINDING_SIZE = 32


class TlsError(trio.BrokenResourceError):
    """No TLS, or no more of it. The text is one line that says why, `failure` the same for TLS reports."""

    def __init__(self, text: str, failure: FailureType = "validation-failure") -> None:
        super().__init__(text)
        self.failure: FailureType = failure


class TlsStream(trio.abc.Stream):
    """One side of a TLS connection, from `accept` or `connect`.

    One task may send while another receives. All that goes wrong is a TlsError, or what the stream below
    raises.
    """

    def __init__(self, transport_stream: trio.abc.Stream, connection: SSL.Connection) -> None:
        self.transport_stream = transport_stream
        self._tls = connection
        self._sending = trio.Lock()
        self._outgoing = bytearray()  # records that OpenSSL has made
        self._version = ""
        self._hungry = False  # it has decrypted all that came: asking for more costs time
        self._cut = False  # in the middle of a record
        self._closed = False
        self._failure: Exception | None = None  # of receiving, for the next call
        self._ended: Callable[[], None] = lambda: None

    @classmethod
    async def accept(cls, stream: trio.abc.Stream, context: SSL.Context, *, timeout: float) -> Self:
        """The server's side. Raises TlsError; the stream is then the caller's to close."""
        connection = SSL.Connection(context)
        connection.set_accept_state()
        return await cls(stream, connection)._shake_hands(timeout)

    @classmethod
    async def connect(
        cls, stream: trio.abc.Stream, context: ClientContext, host: str, *, timeout: float
    ) -> Self:
        """The client's side; `host` is a name or an IP address. Raises TlsError, also when the context is for
        verified connections and the certificate is for another host."""
        connection, resuming = context.connection(host)
        connection.set_connect_state()
        if not _is_ip(host):
            connection.set_tlsext_host_name(host.encode("idna" if not host.isascii() else "ascii"))
        try:
            self = await cls(stream, connection)._shake_hands(timeout, refuses=context.refuses)
        except trio.BrokenResourceError:
            if resuming:  # the session may be what the server cannot go on with
                context.give_none(host)
            raise
        if context.refuses and (fault := self.certificate_fault(host)) is not None:
            raise TlsError(fault.text, fault.type)
        if not resuming:
            self._ended = partial(context.remember, host, connection)
        return self

    # --- What was agreed ---

    @property
    def version(self) -> str:
        """Such as "TLSv1.3"."""
        if not self._version:
            self._version = self._tls.get_protocol_version_name()
        return self._version

    @property
    def cipher(self) -> str:
        return self._tls.get_cipher_name() or ""

    @property
    def peer_chain(self) -> list[x509.Certificate]:
        """What the peer sent, its own certificate first; empty for a client without one. Raises one of
        UNREADABLE: OpenSSL reads some that `cryptography` does not."""
        return self._tls.get_peer_cert_chain(as_cryptography=True) or []

    def certificate_fault(self, host: str) -> TlsFault | None:
        """Why the peer's certificate does not prove that it is `host`: no authority vouches for it, or only
        for others. None if it does. Of a client with a context that looks."""
        verification: Verification = self._tls.get_app_data()
        if verification.fault is not None:
            return verification.fault
        try:
            own = self.peer_chain[0]
        except UNREADABLE:
            return UNREADABLE_CERTIFICATE
        if not names_of(own).match(host):
            return TlsFault("certificate-host-mismatch", f"the certificate is not for {host}")
        return None

    @property
    def channel_binding(self) -> bytes | None:
        """`tls-exporter` (RFC 9266). None under TLS 1.2, where it would need an extension (RFC 7627) that
        OpenSSL does not tell of."""
        if self._tls.get_protocol_version() < SSL.TLS1_3_VERSION:
            return None
        return self._tls.export_keying_material(_BINDING_LABEL, _BINDING_SIZE, b"")

    # --- trio.abc.Stream ---

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        rest = memoryview(data)
        if not rest:
            await trio.lowlevel.checkpoint()
        while rest:
            block, rest = rest[:_BLOCK], rest[_BLOCK:]
            try:
                while block:  # a record at a time
                    block = block[self._tls.send(block) :]
            except SSL.Error as exc:
                raise TlsError(f"TLS failed: {_why(exc)}") from None
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        max_bytes = max_bytes or _BLOCK
        waited = False
        while True:
            data = None if self._hungry else self._decrypted(max_bytes)
            if data is not None:
                if not waited:
                    await trio.lowlevel.checkpoint()
                return data
            await self._flush()  # an answer to a change of keys
            await self._feed()
            waited = True

    async def aclose(self) -> None:
        """Says close_notify, if the peer takes it within five seconds, and closes the stream below."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        self._ended()
        try:
            with trio.move_on_after(_CLOSING):
                try:
                    self._tls.shutdown()
                    await self._flush()
                except (SSL.Error, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        finally:
            await self.transport_stream.aclose()

    # --- Between OpenSSL and the stream below ---

    async def _shake_hands(self, timeout: float, *, refuses: bool = False) -> Self:
        """`refuses`: what is wrong with the peer's certificate makes the handshake fail."""
        with trio.move_on_after(timeout) as scope:
            while True:
                try:
                    self._tls.do_handshake()
                except SSL.WantReadError:
                    await self._flush()
                    await self._feed()
                except SSL.Error as exc:
                    await self._flush()  # the alert
                    fault = self._tls.get_app_data().fault if refuses else None
                    if fault is not None:
                        raise TlsError(f"no TLS: {fault.text}", fault.type) from None
                    raise TlsError(f"no TLS: {_why(exc)}") from None
                else:
                    await self._flush()
                    return self
        assert scope.cancelled_caught
        raise TlsError(f"no TLS handshake within {timeout:g} seconds")

    def _decrypted(self, max_bytes: int) -> bytes | None:
        """What has come in already; None when nothing did, b"" after close_notify."""
        if self._failure is not None:
            raise self._failure
        pieces: list[bytes] = []
        room = max_bytes
        try:
            while room:
                piece = self._tls.recv(min(room, _RECORD))
                pieces.append(piece)
                room -= len(piece)
        except SSL.WantReadError:
            self._hungry = True
        except SSL.ZeroReturnError:
            if not pieces:
                return b""
        except SSL.Error as exc:
            self._failure = TlsError(f"TLS failed: {_why(exc)}")
            if not pieces:
                raise self._failure from None
        return b"".join(pieces) if pieces else None

    async def _feed(self) -> None:
        data = await self.transport_stream.receive_some(_BLOCK)
        self._hungry = False
        if data:
            self._tls.bio_write(data)
        else:
            self._tls.bio_shutdown()  # from now on OpenSSL meets the end where it reads on

    async def _flush(self) -> None:
        with suppress(SSL.WantReadError):
            while len(block := self._tls.bio_read(_BLOCK)) == _BLOCK:
                self._outgoing += block
            self._outgoing += block
        if not self._outgoing:
            return
        async with self._sending:
            while self._outgoing:  # else whoever held the lock has sent ours too
                if self._cut:
                    raise TlsError("a record was sent in part when its sender was cancelled")
                data, self._outgoing = self._outgoing, bytearray()
                self._cut = True
                await self.transport_stream.send_all(data)
                self._cut = False


def _why(exc: SSL.Error) -> str:
    """OpenSSL's reason in one line."""
    if isinstance(exc, SSL.SysCallError):
        return "the connection was closed without close_notify"
    reasons = [str(entry[2]) for entry in exc.args[0]] if exc.args and isinstance(exc.args[0], list) else []
    if "wrong version number" in reasons:
        # Of the first bytes, which were no TLS record at all: mostly another port was meant.
        return "the other side does not speak TLS here (wrong version number)"
    return ", ".join(dict.fromkeys(reason for reason in reasons if reason)) or "protocol error"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
