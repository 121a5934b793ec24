"""TLS against itself, against Python's ssl, and against peers that misbehave."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from gateway.net.certificates import Certificate
from gateway.net.tls import TlsError, TlsStream
from gateway.net.tls_contexts import (
    ClientContext,
    Verification,
    client_context,
    observing_context,
    server_context,
    verification_fault,
)
from gateway.net.tls_results import FailureType, TlsFault
from tests.net.authority import root
from tests.net.certificates import certificate, client_tls, pem, server_tls, verifying_tls

TIMEOUT = 5.0


async def pair(
    client: ClientContext | None = None, host: str = "localhost"
) -> tuple[TlsStream, TlsStream, Any, Any]:
    """Client and server after their handshake, and the memory streams below them."""
    below_client, below_server = trio.testing.memory_stream_pair()
    streams: dict[str, TlsStream] = {}

    async def accept() -> None:
        streams["server"] = await TlsStream.accept(below_server, server_tls(), timeout=TIMEOUT)

    async def connect() -> None:
        streams["client"] = await TlsStream.connect(
            below_client, client or client_tls(), host, timeout=TIMEOUT
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(connect)
    return streams["client"], streams["server"], below_client, below_server


async def received(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        assert piece
        data += bytes(piece)
    return data


async def test_both_ways_at_once() -> None:
    client, server, _, _ = await pair()
    question, answer = b"q" * 300_000, b"a" * 200_000

    async def talk(stream: TlsStream, says: bytes, hears: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, says)
            assert await received(stream, len(hears)) == hears

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk, client, question, answer)
        nursery.start_soon(talk, server, answer, question)
    assert (client.version, client.cipher) == (server.version, server.cipher)
    assert client.version == "TLSv1.3"


class Dripping(trio.abc.ReceiveStream):
    """A stream that gives one byte at a time."""

    def __init__(self, inner: trio.abc.ReceiveStream) -> None:
        self.inner = inner

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(1)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_bytes_arrive_one_by_one() -> None:
    below_client, below_server = trio.testing.memory_stream_pair()
    dripping = trio.StapledStream(below_server.send_stream, Dripping(below_server.receive_stream))
    got: list[bytes] = []

    async def serve() -> None:
        server = await TlsStream.accept(dripping, server_tls(), timeout=TIMEOUT)
        got.append(await received(server, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await TlsStream.connect(below_client, client_tls(), "localhost", timeout=TIMEOUT)
        await client.send_all(b"hello")
    assert got == [b"hello"]


async def test_receive_some_gives_what_is_there_and_no_more_than_asked() -> None:
    client, server, _, _ = await pair()
    await client.send_all(b"x" * 40_000)
    assert len(await server.receive_some(10)) == 10
    assert len(await server.receive_some()) == 39_990
    await server.send_all(b"")
    await server.send_all(b"y")
    assert await client.receive_some() == b"y"


async def test_clean_end() -> None:
    client, server, _, _ = await pair()
    await client.send_all(b"last")
    await client.aclose()
    await client.aclose()
    assert await server.receive_some() == b"last"
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"more")
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()
    await server.aclose()


async def test_truncation_is_no_end() -> None:
    client, server, below_client, _ = await pair()
    await client.send_all(b"first")
    await below_client.aclose()
    assert await server.receive_some() == b"first"
    for _ in range(2):
        with pytest.raises(TlsError, match="closed without close_notify"):
            await server.receive_some()


async def test_forged_bytes_are_an_error_after_what_was_good() -> None:
    client, server, below_client, _ = await pair()
    await client.send_all(b"good")
    await below_client.send_all(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
    assert await server.receive_some() == b"good"
    with pytest.raises(TlsError, match="TLS failed"):
        await server.receive_some()


async def test_close_does_not_wait_for_a_peer_that_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server, below_client, _ = await pair()

    async def stuck() -> None:
        await trio.sleep_forever()

    below_client.send_stream.send_all_hook = stuck
    started = trio.current_time()
    await client.aclose()
    assert trio.current_time() - started == 5.0
    await trio.aclose_forcefully(server)


async def test_a_record_cut_in_the_middle_is_the_last() -> None:
    client, _, below_client, _ = await pair()

    async def stuck() -> None:
        await trio.sleep_forever()

    below_client.send_stream.send_all_hook = stuck
    with trio.move_on_after(0.01):
        await client.send_all(b"x")
    below_client.send_stream.send_all_hook = None
    with pytest.raises(TlsError, match="in part"):
        await client.send_all(b"y")


async def test_a_cancelled_receive_loses_nothing() -> None:
    client, server, _, _ = await pair()
    with trio.move_on_after(0.01):
        await server.receive_some()
    await client.send_all(b"later")
    assert await server.receive_some() == b"later"


async def test_handshake_takes_too_long(autojump_clock: trio.testing.MockClock) -> None:
    _, below = trio.testing.memory_stream_pair()
    with pytest.raises(TlsError, match="no TLS handshake within 5 seconds"):
        await TlsStream.accept(below, server_tls(), timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"EHLO client.example\r\n", "no TLS: "),
        (b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000, "no TLS: "),
        (b"\x16\x03\x01\x00\x05\x01", "closed without close_notify"),
        (b"", "closed without close_notify"),
    ],
)
async def test_no_handshake(said: bytes, reason: str) -> None:
    ours, below = trio.testing.memory_stream_pair()
    await ours.send_all(said)
    await ours.send_stream.aclose()
    with pytest.raises(TlsError, match=reason) as caught:
        await TlsStream.accept(below, server_tls(), timeout=TIMEOUT)
    assert "\n" not in str(caught.value)


async def test_binding_is_the_same_on_both_sides_and_new_each_time() -> None:
    client, server, _, _ = await pair()
    assert client.channel_binding == server.channel_binding
    assert client.channel_binding is not None
    assert len(client.channel_binding) == 32
    again, _, _, _ = await pair()
    assert again.channel_binding != client.channel_binding


async def test_no_binding_before_tls_13() -> None:
    old = client_context(verified=False)
    old.openssl.set_max_proto_version(SSL.TLS1_2_VERSION)
    client, server, _, _ = await pair(old)
    assert server.version == "TLSv1.2"
    assert client.channel_binding is server.channel_binding is None


async def test_peer_chain() -> None:
    client, server, _, _ = await pair()
    assert client.peer_chain == list(certificate().chain)
    assert server.peer_chain == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "mx.example.org", "127.0.0.1", "::1"])
async def test_verified(host: str) -> None:
    client, _, _, _ = await pair(verifying_tls(), host)
    assert client.version


async def test_certificate_for_another_host() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await pair(verifying_tls(), "other.example.org")
    [error] = caught.value.exceptions
    assert isinstance(error, TlsError)
    assert (error.failure, str(error)) == (
        "certificate-host-mismatch",
        "the certificate is not for other.example.org",
    )


def test_errors_of_openssl_in_the_words_of_reports() -> None:
    assert verification_fault(10) == TlsFault("certificate-expired", "the certificate has expired")
    assert verification_fault(79).type == "validation-failure"
    assert "OpenSSL error 79" in verification_fault(79).text


async def test_a_certificate_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer_chain(stream: TlsStream) -> list[x509.Certificate]:
        raise x509.InvalidVersion("no", 3)

    monkeypatch.setattr(TlsStream, "peer_chain", property(peer_chain))
    with pytest.raises(ExceptionGroup) as caught:
        await pair(verifying_tls())
    [error] = caught.value.exceptions
    assert isinstance(error, TlsError)
    assert str(error) == "the server's certificate cannot be read"


def test_long_chains_are_not_followed(tmp_path: Path) -> None:
    """With keys that are made for it each signature takes milliseconds."""
    for above, taken in ((8, True), (9, False)):
        issued = root()
        for _ in range(above):
            issued = issued.issue(ca=True)
        leaf = issued.issue("localhost")
        assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
        (tmp_path / "ca.pem").write_bytes(root().pem)
        made, _ = client_context(verified=True, ca_file=str(tmp_path / "ca.pem")).connection("localhost")
        server = SSL.Connection(server_context(Certificate(tuple(leaf.chain), leaf.key)))
        server.set_accept_state()
        made.set_connect_state()
        fault = handshake(made, server)
        too_many = TlsFault("validation-failure", "the certificate has too many authorities above it")
        assert fault == (None if taken else too_many)


def handshake(client: SSL.Connection, server: SSL.Connection) -> TlsFault | None:
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error:
                break
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    verification: Verification = client.get_app_data()
    return verification.fault


async def test_certificate_of_an_unknown_authority() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await pair(client_context(verified=True))
    assert "no TLS: the certificate is self-signed" in {str(error) for error in caught.value.exceptions}


async def test_a_server_that_speaks_no_tls() -> None:
    below_client, below_server = trio.testing.memory_stream_pair()
    await below_server.send_all(b"220 mx.example.org ESMTP\r\n")
    with pytest.raises(
        TlsError, match=r"^no TLS: the other side does not speak TLS here \(wrong version number\)$"
    ):
        await TlsStream.connect(below_client, client_tls(), "mx.example.org", timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("trusted", "host", "fault"),
    [
        (True, "mx.example.org", None),
        (True, "127.0.0.1", None),
        (
            True,
            "other.example.org",
            ("certificate-host-mismatch", "the certificate is not for other.example.org"),
        ),
        (False, "mx.example.org", ("certificate-not-trusted", "the certificate is self-signed")),
        (False, "other.example.org", ("certificate-not-trusted", "the certificate is self-signed")),
    ],
)
async def test_observed(
    trusted: bool, host: str, fault: tuple[FailureType, str] | None, tmp_path: Path
) -> None:
    """The handshake succeeds in any case."""
    ca_file = None
    if trusted:
        (tmp_path / "ca.pem").write_bytes(pem()[0])
        ca_file = str(tmp_path / "ca.pem")
    client, server, _, _ = await pair(observing_context(ca_file=ca_file), host)
    assert client.certificate_fault(host) == (fault and TlsFault(*fault))
    await client.send_all(b"x")
    assert await server.receive_some() == b"x"


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, int]]:
    """Answers each piece with itself, and closes when it hears the end."""

    async def serve(stream: trio.SocketStream) -> None:
        tls = await TlsStream.accept(stream, server_tls(), timeout=TIMEOUT)
        while data := await tls.receive_some():
            await tls.send_all(data)
        await tls.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_against_the_standard_library(version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cadata=pem()[0].decode())
    context.minimum_version = context.maximum_version = version
    async with echo_server() as address:
        stream = await trio.open_tcp_stream(*address)
        tls = trio.SSLStream(stream, context, server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.send_all, b"x" * 100_000)
            assert await received(tls, 100_000) == b"x" * 100_000
        await tls.aclose()  # waits for the other side's close_notify


async def test_tls_11_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    below_client, below_server = trio.testing.memory_stream_pair()
    client = trio.SSLStream(below_client, context)
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await client.do_handshake()

        nursery.start_soon(connect)
        with pytest.raises(TlsError, match="unsupported protocol"):
            await TlsStream.accept(below_server, server_tls(), timeout=TIMEOUT)
        await below_server.aclose()
