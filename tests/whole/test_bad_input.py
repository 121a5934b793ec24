"""Bad input over real sockets: the right code, the field is named, nothing is queued, nothing dies."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.commands import PATIENCE, Localserve, localserve
from tests.running import Running, receiving, running

MEGABYTE = 1024 * 1024
BASIC = "Basic " + base64.b64encode(b"mox@localhost:moxmoxmox").decode()
TO = [{"Address": "user@example.org"}]
INJECTED = "x\r\nBcc: victim@example.org"


def sent(**fields: Any) -> str:
    return json.dumps({"To": TO, "Subject": "hi", "Text": "hello"} | fields)


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        ("{", "protocol", "request: not valid JSON"),
        ("[]", "protocol", "request"),
        ("", "protocol", "request"),
        ('{"To": NaN}', "protocol", ""),
        ("[" * 100_000, "protocol", "request"),
        (sent(Txet="typo"), "protocol", "Txet"),
        (sent(To=[{"Adress": "user@example.org"}]), "protocol", "To[0]: unknown key 'Adress'"),
        (sent(Subject=5), "protocol", "Subject"),
        (sent(To={"Address": "user@example.org"}), "protocol", "To"),
        (sent(SaveSent="yes"), "protocol", "SaveSent"),
        (sent(FutureRelease=1700000000), "protocol", "FutureRelease"),
        (sent(FutureRelease="tomorrow"), "protocol", "FutureRelease"),
        (sent(FutureRelease="2999-01-01T00:00:00Z"), "user", "FutureRelease"),
        (sent(AttachedFiles=[{"Data": "%%%"}]), "protocol", "AttachedFiles[0].Data"),
        (sent(To=[{"Address": "nobody"}]), "badAddress", "To[0].Address"),
        (sent(To=[{"Address": "a@b\r\nRCPT TO:<c@d>"}]), "badAddress", "To[0].Address"),
        (sent(To=[]), "noRecipients", ""),
        (sent(Text=""), "missingBody", "Text"),
        (sent(From=[{"Address": "a@b.example"}]), "badFrom", "From[0].Address"),
        (sent(From=[{"Address": "mox@localhost"}] * 2), "multipleFrom", "From"),
        (sent(To=[{"Address": f"u{i}@example.org"} for i in range(10_000)]), "user", "10000 recipients"),
        (sent(BCC=[{"Address": f"u{i}@example.org"} for i in range(1000)]), "user", "1001 recipients"),
        (sent(MessageID="no brackets"), "malformedMessageID", "MessageID"),
        (sent(MessageID="<x@y>\r\nBcc: v@example.org"), "malformedMessageID", "MessageID"),
        (sent(References=["<x@y>\r\nBcc: v@example.org"]), "malformedMessageID", "References[0]"),
        (sent(Subject=INJECTED), "user", "Subject"),
        (sent(To=[{"Name": INJECTED, "Address": "user@example.org"}]), "user", "To[0].Name"),
        (sent(Headers=[["X-A\r\nBcc: v@example.org", "x"]]), "user", "Headers[0]"),
        (sent(Headers=[["X-A", INJECTED]]), "user", "Headers[0]"),
        (sent(Headers=[["Bcc", "victim@example.org"]]), "user", "Headers[0]"),
        (sent(AttachedFiles=[{"Name": INJECTED, "Data": ""}]), "user", "AttachedFiles[0].Name"),
        (sent(AttachedFiles=[{"ContentType": "a/b\r\nX: y"}]), "user", "AttachedFiles[0].ContentType"),
        (sent(InlineFiles=[{"ContentID": "<a>\r\nX: y"}]), "user", "InlineFiles[0].ContentID"),
    ],
)
def test_errors(answers: dict[str, tuple[int, Any]], request_: str, code: str, says: str) -> None:
    status, answer = answers[request_]
    assert (status, answer["Code"]) == (400, code), answer
    assert says in answer["Message"]
    assert len(answer["Message"]) <= 1000


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Any]]:
    """The answer to each of the requests, in both forms, of one gateway in which nothing is queued after."""
    [mark] = [m for m in test_errors.pytestmark if m.name == "parametrize"]
    found: dict[str, tuple[int, Any]] = {}

    async def ask() -> None:
        async with receiving() as webhooks, running(tmp_path_factory.mktemp("gw"), webhooks) as gateway:
            for text, _, _ in mark.args[1]:
                form = await gateway.api.post("Send", data={"request": text})
                body = await gateway.api.post(
                    "Send", content=text, headers={"Content-Type": "application/json"}
                )
                assert (form.status_code, form.json()["Code"]) == (body.status_code, body.json()["Code"]), (
                    text
                )
                found[text] = (form.status_code, form.json())
            assert await gateway.messages() == ()
            await gateway.send()
            await webhooks.event("delivered")
            assert len(await gateway.messages()) == 1

    trio.run(ask)
    return found


@pytest.mark.parametrize(
    ("content_type", "body", "status", "says"),
    [
        ("application/x-www-form-urlencoded", b"request=%zz", 400, "%"),
        ("application/x-www-form-urlencoded", b"reqest={}", 400, "request"),
        ("application/x-www-form-urlencoded", b"request={}&request={}", 400, "request"),
        ("application/x-www-form-urlencoded", b"request=%ff", 400, "not valid JSON"),
        ("multipart/form-data", b"", 400, "boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nfoo\r\n\r\n", 400, ""),
        ("multipart/form-data; boundary=x", b"--x--", 400, "request"),
        ("text/plain", b"{}", 400, "text/plain"),
        ("application/json", b"\xff\xfe{", 400, "not valid JSON"),
    ],
)
async def test_malformed_bodies(
    gateway: Running, content_type: str, body: bytes, status: int, says: str
) -> None:
    response = await gateway.api.post("Send", content=body, headers={"Content-Type": content_type})
    assert response.status_code == status
    assert response.json()["Code"] == "protocol"
    assert says in response.json()["Message"]
    assert await gateway.messages() == ()


# --- Clients that do not behave, against a gateway in a process of its own ---------------------------------


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Localserve]:
    with localserve(tmp_path_factory.mktemp("whole") / "gw") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        yield sock


def head(content_type: str, *fields: str) -> bytes:
    lines = (
        "POST /webapi/v0/Send HTTP/1.1",
        "Host: localhost",
        f"Authorization: {BASIC}",
        f"Content-Type: {content_type}",
        *fields,
    )
    return "\r\n".join((*lines, "", "")).encode()


def answer(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def send(running: Localserve, **fields: Any) -> bytes:
    body = sent(**fields).encode()
    with connected(running.web_port) as sock:
        request = head("application/json", f"Content-Length: {len(body)}", "Connection: close")
        sock.sendall(request + body)
        return answer(sock)


def memory(running: Localserve) -> int:
    """Bytes, of the gateway and its workers."""
    process = psutil.Process(running.process.pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


def still_serves(running: Localserve) -> None:
    assert running.process.poll() is None
    assert send(running).startswith(b"HTTP/1.1 200 ")
    with connected(running.smtp_port) as smtp:
        assert smtp.recv(100).startswith(b"220 ")
        smtp.sendall(b"QUIT\r\n")
        assert b"221 " in answer(smtp)


class Peak(threading.Thread):
    """Looks at the memory while the body runs."""

    def __init__(self, running: Localserve) -> None:
        super().__init__(daemon=True)
        self.running, self.before, self.most, self.over = running, memory(running), 0, False

    def run(self) -> None:
        while not self.over:
            self.most = max(self.most, memory(self.running))
            time.sleep(0.01)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over = True
        self.join()

    @property
    def growth(self) -> int:
        return self.most - self.before


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_megabytes(process: Localserve, content_type: str, chunked: bool) -> None:
    still_serves(process)
    piece = b"request=" + b"x" * (MEGABYTE - 8)
    with Peak(process) as peak, connected(process.web_port) as sock:
        try:
            if chunked:
                sock.sendall(head(content_type, "Transfer-Encoding: chunked"))
                for _ in range(100):
                    sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                sock.sendall(b"0\r\n\r\n")
            else:
                sock.sendall(head(content_type, f"Content-Length: {100 * MEGABYTE}"))
                for _ in range(100):
                    sock.sendall(piece)
        except ConnectionError:
            pass  # it has heard enough
        received = answer(sock)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'"messageTooLarge"' in received
    assert b"connection: close" in received.lower()
    # Where the length is not said, as much is read as a request may have.
    assert peak.growth < (80 if chunked else 8) * MEGABYTE, peak.growth
    still_serves(process)
    assert '"Messages": []' in process.command("queue", "list", "--to", "nobody", "--json").stdout


def test_many_large_bodies_at_a_time(process: Localserve) -> None:
    """The memory for bodies is one for all connections."""
    still_serves(process)
    with Peak(process) as peak:
        socks = []
        for _ in range(40):
            sock = socket.create_connection(("127.0.0.1", process.web_port), timeout=0.5)
            sock.sendall(head("application/json", f"Content-Length: {20 * MEGABYTE}"))
            try:
                for _ in range(16):
                    sock.sendall(b" " * MEGABYTE)
            except OSError:
                pass  # it does not read on: there is no memory for this one
            socks.append(sock)
        still_serves(process)  # a small request has its place
        for sock in socks:
            sock.close()
    assert peak.growth < 300 * MEGABYTE, peak.growth
    still_serves(process)


UPGRADE = (
    b"%s %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n%s"
)


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        UPGRADE % (b"GET", b"/webapi/v0/", b"X"),
        UPGRADE % (b"POST", b"/webapi/v0/Send", b"\xff"),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000,
        b"A" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /webapi/v0/Send HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /webapi/v0/Send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"EHLO x\r\nMAIL FROM:<>\r\n",
        b"\0" * 1000,
    ],
)
def test_what_is_no_http(process: Localserve, data: bytes) -> None:
    for port in (process.web_port, process.smtp_port):
        with connected(port) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed before it had all
            received = answer(sock)
        assert b" 200 " not in received
        assert b" 101 " not in received
    still_serves(process)


def test_an_upgrade_to_http_2_is_not_taken_up(process: Localserve) -> None:
    with connected(process.web_port) as sock:
        sock.sendall(
            b"GET /webapi/v0/ HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock).startswith(b"HTTP/1.1 200 ")
    still_serves(process)


def test_one_byte_a_second(process: Localserve) -> None:
    request = head("application/json", "Content-Length: 10000")
    with connected(process.web_port) as slow_head, connected(process.web_port) as slow_body:
        slow_body.sendall(request)
        for byte in request[:3]:
            slow_head.sendall(bytes([byte]))
            slow_body.sendall(b" ")
            still_serves(process)
            time.sleep(0.3)


def test_a_client_that_never_reads_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with localserve(tmp_path / "gw") as running:
        config = tmp_path / "gw" / "gateway.toml"
        running.stop()
        config.write_text("grace = 1\n" + config.read_text())
    with localserve(tmp_path / "gw") as running:
        assert send(running, Text="line of a large message\n" * 300_000).startswith(b"HTTP/1.1 200 ")
        give_up = time.monotonic() + PATIENCE
        while "received session=" not in running.log.read_text():
            assert time.monotonic() < give_up
            time.sleep(0.02)
        body = b'{"MsgID": 1}'
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", running.web_port))
            request = head("application/json", f"Content-Length: {len(body)}").replace(
                b"Send", b"MessageRawGet"
            )
            sock.sendall(request + body)
            time.sleep(0.5)  # the answer is under way
            still_serves(running)
            assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()
