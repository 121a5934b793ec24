from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from gateway.webhooks.client import Answer, Headers, WebhookClient
from tests.commands import PATIENCE
from tests.webhooks.receivers import (
    LOOPBACK,
    Conversation,
    answering,
    listening,
    once,
    read_request,
    resolve_by,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADERS: Headers = [(b"Content-Type", b"application/json; charset=utf-8"), (b"X-Mox-Webhook-ID", b"7")]


async def call(conversation: Conversation, *, timeout: float = 5.0, url: str = "") -> Answer:
    async with (
        listening(conversation) as here,
        WebhookClient(timeout=timeout, allow_networks=LOOPBACK) as client,
    ):
        with trio.fail_after(timeout + 5):
            return await client.post(url or here, b'{"a":1}', HEADERS)


async def test_a_request_is_exactly_what_was_asked_for() -> None:
    requests = []

    async def conversation(stream: trio.SocketStream) -> None:
        requests.append(await read_request(stream))
        await stream.send_all(OK)

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        answer = await client.post(url, b'{"a":1}', HEADERS)
    assert (answer.success, answer.code, answer.error, answer.response) == (True, 200, "", "ok")
    assert 0 < answer.duration < 5
    authority = url.removeprefix("http://").partition("/")[0]
    assert requests == [
        (
            b"POST /hook?a=b HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json; charset=utf-8\r\n"
            b"X-Mox-Webhook-ID: 7\r\nContent-Length: 7" % authority.encode(),
            b'{"a":1}',
        )
    ]


async def test_user_and_password_in_the_url_are_basic_authentication_unless_there_is_another() -> None:
    heads = []

    async def conversation(stream: trio.SocketStream) -> None:
        request = await read_request(stream)
        assert request is not None
        heads.append(
            [line for line in request[0].split(b"\r\n") if line.lower().startswith(b"authorization")]
        )
        await stream.send_all(OK + b"")

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        url = url.replace("http://", "http://user:p%20w@")
        await client.post(url, b"", HEADERS)
        await client.post(url, b"", [*HEADERS, (b"authorization", b"Bearer x")])
    assert heads == [[b"Authorization: Basic dXNlcjpwIHc="], [b"authorization: Bearer x"]]


async def test_a_connection_is_used_again() -> None:
    connections = 0

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await answering(OK)(stream)

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for _ in range(3):
            assert (await client.post(url, b"x", HEADERS)).success
    assert connections == 1


@pytest.mark.parametrize(
    ("response", "success", "code", "error"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, 204, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True, 200, ""),
        (b"HTTP/1.0 201 Created\r\n\r\nuntil the end", True, 201, ""),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", False, 500, "HTTP status 500"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            False,
            302,
            "HTTP status 302: redirects are not followed",
        ),
        (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", False, 0, "the answer is no proper HTTP"),
        (b"", False, 0, "the receiver closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: a", False, 0, "closed the connection before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, False, 0, "longer than any good answer"),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            False,
            0,
            "no proper HTTP: it switches to another protocol",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", False, 0, "no proper HTTP"),
        # The status decides; a body that breaks off does not.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok", True, 200, ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", True, 200, ""),
    ],
)
async def test_any_2xx_is_success_and_all_else_is_not(
    response: bytes, success: bool, code: int, error: str
) -> None:
    answer = await call(once(response))
    assert (answer.success, answer.code) == (success, code)
    assert error in answer.error
    assert bool(answer.error) is not success


async def test_a_receiver_that_never_answers_is_given_up_in_time() -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await trio.sleep_forever()

    answer = await call(hang, timeout=0.1)
    assert (answer.success, answer.code, answer.error) == (False, 0, "no answer within 0.1 s")
    assert 0.1 <= answer.duration < 1


async def test_a_byte_now_and_then_does_not_stretch_the_time() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await read_request(stream)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.01)

    answer = await call(drip, timeout=0.2)
    assert answer.error == "no answer within 0.2 s"
    assert answer.duration < 1


async def test_a_status_is_taken_though_its_body_never_ends() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthanks")
        await trio.sleep_forever()

    async with listening(drip) as url, WebhookClient(timeout=0.2, allow_networks=LOOPBACK) as client:
        answer = await client.post(url, b"", HEADERS)
    assert (answer.success, answer.code, answer.response, answer.error) == (True, 200, "thanks", "")
    assert answer.duration < 1


async def test_the_rest_of_a_body_has_5_seconds_of_the_60(mock_clock: MockClock) -> None:
    mock_clock.rate = 100

    async def hang(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthanks")
        await trio.sleep_forever()

    answer = await call(hang, timeout=60)
    assert (answer.success, answer.response) == (True, "thanks")
    assert 5 <= answer.duration < 50


async def test_a_huge_answer_is_neither_kept_nor_read() -> None:
    sent = 0

    async def flood(stream: trio.SocketStream) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    tracemalloc.start()
    try:
        answer = await call(flood)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.success, answer.response) == (True, "x" * 512)
    assert peak < 5_000_000
    assert sent < 20_000_000  # what the kernel's buffers took


async def test_endless_1xx_answers_end() -> None:
    async def flood(stream: trio.SocketStream) -> None:
        await read_request(stream)
        while True:
            await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)

    answer = await call(flood)
    assert answer.code == 0
    assert "longer than any good answer" in answer.error


async def test_a_reset_is_an_error_for_people() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await read_request(stream)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()

    answer = await call(reset)
    assert answer.error == "the connection broke before the answer was complete: Connection reset by peer"


async def test_text_of_the_receiver_is_made_safe() -> None:
    answer = await call(once(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n\x00\x1b[31m\xff\nr\xc3\xb6t"))
    assert answer.response == "��[31m�\nröt"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (
            "http://127.0.0.1:9/",
            "127.0.0.1 is at 127.0.0.1: not a public address, and not in an allowed network",
        ),
        ("http://localhost:9/", "not a public address"),
        ("http://[::1]:9/", "::1 is at ::1: not a public address"),
        ("http://[::ffff:127.0.0.1]/", "not a public address"),
        ("http://0x7f.1/", "not a public address"),
        ("http://169.254.169.254/latest/meta-data/", "not a public address"),
        ("ftp://example.org/", "the URL is wrong: it must start with http:// or https:// and a host name"),
        ("http://", "the URL is wrong"),
        ("http://exa mple.org/", "the URL is wrong"),
        ("http://example.org:99999/", "the URL is wrong"),
        ("http://" + "a" * 300 + ".example/", "the "),
        ("http://does-not-exist.invalid/", "the host name does-not-exist.invalid cannot be resolved"),
    ],
)
async def test_what_cannot_or_may_not_be_called_is_an_error_and_no_exception(url: str, error: str) -> None:
    async with WebhookClient(timeout=5) as client:
        answer = await client.post(url, b"", HEADERS)
    assert (answer.success, answer.code) == (False, 0)
    assert error in answer.error


async def test_the_address_is_judged_even_if_the_name_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(lambda _name: ["127.0.0.1"], monkeypatch)
    async with WebhookClient(timeout=5) as client:
        answer = await client.post("http://example.org/", b"", HEADERS)
    assert answer.error == "example.org is at 127.0.0.1: not a public address, and not in an allowed network"


async def test_a_closed_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with WebhookClient(allow_networks=LOOPBACK) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/", b"", HEADERS)
    assert answer.error == f"cannot connect to 127.0.0.1, port {port}: Connection refused"


async def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(lambda _name: ["127.0.0.9", "127.0.0.1"], monkeypatch)
    async with listening(once(OK)) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        assert (await client.post(url.replace("127.0.0.1", "shop.example"), b"", HEADERS)).success


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Authorization", b"x\r\nEvil: 1"),
        (b"Authorization", b"x\n"),
        (b"Authorization", b"x\rEvil: 1"),
        (b"Authorization", b"x\0"),
        (b"Authorization", b" x"),
        (b"Authorization: x\r\nEvil", b"1"),
    ],
)
async def test_a_wrong_authorization_is_an_error_that_names_it(name: bytes, value: bytes) -> None:
    connections = 0

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1

    async with listening(conversation) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        answer = await client.post(url, b"", [*HEADERS, (name, value)])
    assert not answer.success
    assert "the request cannot be sent, for a wrong Authorization" in answer.error
    assert connections == 0


async def test_a_receiver_may_refuse_before_it_has_read_the_body() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        stream.socket.close()  # with unread data: a reset, upon which our write fails

    async with listening(refuse) as url, WebhookClient(allow_networks=LOOPBACK) as client:
        for _ in range(2):
            answer = await client.post(url, b"x" * 10_000_000, HEADERS)
            assert (answer.code, answer.error, answer.response) == (413, "HTTP status 413", "big")


async def test_certificates_are_verified() -> None:
    server, trusting = _certificate()

    async def conversation(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        await tls.receive_some()
        await tls.send_all(OK)

    async with listening(conversation) as url:
        url = url.replace("http://", "https://")
        async with WebhookClient(allow_networks=LOOPBACK) as client:
            answer = await client.post(url, b"", HEADERS)
        assert "TLS with 127.0.0.1 failed: certificate: self-signed certificate" in answer.error
        async with WebhookClient(allow_networks=LOOPBACK, tls=trusting) as client:
            assert (await client.post(url, b"", HEADERS)).success
            answer = await client.post(url.replace("127.0.0.1", "localhost"), b"", HEADERS)
        assert "TLS with localhost failed: certificate: Hostname mismatch" in answer.error


async def test_a_tls_connection_is_used_again() -> None:
    server, trusting = _certificate()
    connections = 0

    async def conversation(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        tls = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        while await tls.receive_some():
            await tls.send_all(OK)

    async with (
        listening(conversation) as url,
        WebhookClient(allow_networks=LOOPBACK, tls=trusting) as client,
    ):
        for _ in range(3):
            assert (await client.post(url.replace("http://", "https://"), b"", HEADERS)).success
    assert connections == 1


def _certificate() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pem")
        path.write_bytes(pem + private)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_names_whose_servers_say_nothing_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    waiting: list[str] = []

    def ask(name: str) -> list[str]:
        if name == "shop.example":
            return ["127.0.0.1"]
        waiting.append(name)
        answers.wait(2 * PATIENCE)
        raise socket.gaierror("no answer")

    resolve_by(ask, monkeypatch)
    async with (
        listening(once(OK)) as url,
        WebhookClient(allow_networks=LOOPBACK) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(100):  # more than the threads that trio gives to all
            nursery.start_soon(client.post, f"http://silent{number}.example/", b"", HEADERS)
        try:
            with trio.fail_after(PATIENCE):
                while len(waiting) < 100:  # noqa: ASYNC110 - threads count them
                    await trio.sleep(0.01)
                answer = await client.post(url.replace("127.0.0.1", "shop.example"), b"", HEADERS)
        finally:
            answers.set()
    assert answer.success, answer.error
