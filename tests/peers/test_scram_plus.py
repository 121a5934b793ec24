"""A login bound to its TLS connection (RFC 9266), with nothing of ours on the other side: TLS is that of
OpenSSL's program, which tells what it exports as the binding, and SCRAM is GNU SASL's."""

from __future__ import annotations

import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.net.smtp_client import SmtpConnection, connect_smtp
from gateway.net.smtp_client_settings import ClientSettings, TlsPolicy
from gateway.smtp.client_auth import Credentials
from tests.commands import PATIENCE
from tests.net.authority import root
from tests.peers.programs import program
from tests.peers.test_gsasl import OK, PASSWORD, USER, gsasl
from tests.ports import free_port


class TlsProgram:
    """`openssl s_server`: lines to and from its client, in plain text, by its standard input and output."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = ""

    async def until(self, pattern: str) -> str:
        """What the first group matches, once it is there; all before it is forgotten."""
        assert self._process.stdout is not None
        with trio.fail_after(PATIENCE):
            while (found := re.search(pattern, self._said)) is None:
                data = await self._process.stdout.receive_some()
                assert data, self._said
                self._said += bytes(data).decode(errors="replace")
        self._said = self._said[found.end() :]
        return found[1]

    async def answer(self, *lines: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all("".join(f"{line}\r\n" for line in lines).encode())


@asynccontextmanager
async def tls_program(directory: Path, port: int) -> AsyncIterator[TlsProgram]:
    issued = root().issue("localhost")
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "server.pem").write_bytes(key + issued.pem)
    command = [
        program("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1", "-tls1_3",
        "-cert", str(directory / "server.pem"), "-key", str(directory / "server.pem"),
        "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    try:
        server = TlsProgram(process)
        await server.until("(ACCEPT)")
        yield server
    finally:
        process.kill()
        await process.wait()


async def serve(server: TlsProgram, mechanism: str, *, forged: bool) -> str:
    """One session with one login. Answers the binding that was exported."""
    material = await server.until(r"Keying material: ([0-9A-F]{64})")
    binding = b"another connection's".ljust(32) if forged else bytes.fromhex(material)
    await server.answer("220 mx.example.org")
    await server.until(r"(EHLO .*)\r\n")
    await server.answer("250-mx.example.org", f"250 AUTH PLAIN {mechanism[:-5]} {mechanism}")
    response = await server.until(rf"AUTH {mechanism} (\S+)\r\n")
    with gsasl("server", mechanism, PASSWORD, binding) as exchange:
        code, challenge = exchange.step(b64decode(response))
        await server.answer(f"334 {b64encode(challenge).decode()}")
        code, last = exchange.step(b64decode(await server.until(r"(\S+)\r\n")))
        if code != OK:
            await server.answer("535 5.7.8 no")
            return material
        await server.answer(f"334 {b64encode(last).decode()}")
    await server.until("(\r\n)")  # an empty response: we believe it
    await server.answer("235 2.7.0 yes")
    return material


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"])
async def test_our_client(tmp_path: Path, mechanism: str, forged: bool) -> None:
    (tmp_path / "ca.pem").write_bytes(root().pem)
    port = free_port()
    settings = ClientSettings(
        "client.example",
        tls=TlsPolicy.VERIFIED,
        tls_at_once=True,
        ca_file=str(tmp_path / "ca.pem"),
        credentials=Credentials(USER, PASSWORD),
    )
    made: list[SmtpConnection] = []
    async with tls_program(tmp_path, port) as server, trio.open_nursery() as nursery:

        async def connect() -> None:
            made.append(await connect_smtp("localhost", port, settings))

        nursery.start_soon(connect)
        await serve(server, mechanism, forged=forged)
    [connection] = made
    await connection.aclose()
    assert f"> AUTH {mechanism} (response)" in connection.transcript
    if forged:
        assert "failed: remote answered 535 5.7.8" in connection.transcript
    else:
        assert "235 2.7.0 yes" in connection.transcript
