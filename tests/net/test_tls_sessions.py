"""Sessions that go on in the next connection, as Python's ssl sees them at the server."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway.net import tls_contexts
from gateway.net.tls import TlsError, TlsStream
from gateway.net.tls_contexts import ClientContext, client_context, observing_context
from gateway.net.tls_results import TlsFault
from tests.net.authority import Issued, new_root, root

HOST = "mx.example.org"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def server(issued: Issued, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = issued.server_context()
    context.minimum_version = context.maximum_version = version
    return context


def trusting(path: Path) -> str:
    """A file with the authority that the tests' certificates come from."""
    (path / "ca.pem").write_bytes(root().pem)
    return str(path / "ca.pem")


async def talk(context: ClientContext, peer: ssl.SSLContext, host: str = HOST) -> tuple[TlsStream, bool]:
    """A connection and its end; the client's side, and whether it went on with an earlier session."""
    below_client, below_server = trio.testing.memory_stream_pair()
    answering: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(below_server, peer, server_side=True)

    async def answer() -> None:
        await answering.send_all(b"220 hello\r\n")
        assert await answering.receive_some() == b""
        await answering.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        client = await TlsStream.connect(below_client, context, host, timeout=5)
        assert await client.receive_some() == b"220 hello\r\n"
        await client.aclose()
    return client, bool(answering._ssl_object.session_reused)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_next_connection_goes_on_with_the_session(version: ssl.TLSVersion, tmp_path: Path) -> None:
    issued = root().issue(HOST)
    peer = server(issued, version)
    context = client_context(verified=True, ca_file=trusting(tmp_path))
    assert [(await talk(context, peer))[1] for _ in range(3)] == [False, True, True]
    client, _ = await talk(context, peer)
    assert client.peer_chain == issued.chain
    assert client.certificate_fault(HOST) is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_was_found_of_the_certificate_holds_on(version: ssl.TLSVersion, tmp_path: Path) -> None:
    peer, context = server(new_root().issue(HOST), version), observing_context(ca_file=trusting(tmp_path))
    found = [await talk(context, peer) for _ in range(2)]
    assert [resumed for _, resumed in found] == [False, True]
    fault = TlsFault("certificate-not-trusted", "the certificate comes from an authority that is not trusted")
    assert [client.certificate_fault(HOST) for client, _ in found] == [fault, fault]


async def test_a_server_that_wants_a_new_session_has_its_certificate_looked_at(tmp_path: Path) -> None:
    good, bad = server(root().issue(HOST)), server(new_root().issue(HOST))
    observing = observing_context(ca_file=trusting(tmp_path))
    await talk(observing, bad)
    client, resumed = await talk(observing, good)
    assert not resumed
    assert client.certificate_fault(HOST) is None

    refusing = client_context(verified=True, ca_file=trusting(tmp_path))
    await talk(refusing, good)
    with pytest.raises(ExceptionGroup) as caught:
        await talk(refusing, bad)
    assert caught.group_contains(TlsError, match="an authority that is not trusted")


async def test_other_hosts_have_sessions_of_their_own(tmp_path: Path) -> None:
    peer, context = server(root().issue("a.example", "b.example")), client_context(verified=False)
    assert not (await talk(context, peer, "a.example"))[1]
    assert not (await talk(context, peer, "b.example"))[1]
    assert (await talk(context, peer, "a.example"))[1]


@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_that_cannot_go_on_with_a_session_is_given_none(
    version: ssl.TLSVersion, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or none of the connections to it, or only every other one, would have TLS."""
    peer, context = server(root().issue(HOST), version), client_context(verified=False)
    await talk(context, peer)
    below_client, below_server = trio.testing.memory_stream_pair()
    if not hangs:
        await below_server.aclose()
    with pytest.raises(TlsError if hangs else trio.BrokenResourceError):
        await TlsStream.connect(below_client, context, HOST, timeout=0.1)
    assert [(await talk(context, peer))[1] for _ in range(3)] == [False] * 3
    begun = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begun + tls_contexts.RESUME_FOR + 1)
    assert [(await talk(context, peer))[1] for _ in range(2)] == [False, True]


async def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, context = server(root().issue(HOST)), client_context(verified=False)
    await talk(context, peer)
    begun = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begun + tls_contexts.RESUME_FOR + 1)
    assert not (await talk(context, peer))[1]
    assert (await talk(context, peer))[1]


async def test_a_bounded_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_contexts, "MAX_SESSIONS", 2)
    peer, context = server(root().issue(HOST)), client_context(verified=False)
    for host in ("a.example", "b.example", "c.example"):
        await talk(context, peer, host)
    assert (await talk(context, peer, "c.example"))[1]
    assert not (await talk(context, peer, "a.example"))[1]
