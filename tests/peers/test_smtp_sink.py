"""What becomes of a message when the server refuses, hangs up or dawdles, at each command."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway import Outcome
from gateway.net.smtp_client_settings import ClientSettings
from tests.commands import PATIENCE
from tests.peers.smtp_sink import smtp_sink
from tests.plugins.smtp_servers import delivery, transport

COMMANDS = ("connect", "ehlo", "mail", "rcpt", "data", ".")


async def deliver(directory: Path, port: int, *recipients: str) -> list[Outcome]:
    settings = {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none"}
    with trio.fail_after(PATIENCE):
        async with transport(directory, **settings) as relay:
            return list(await relay.deliver(delivery(*recipients)))


async def test_taken(tmp_path: Path) -> None:
    async with smtp_sink() as port:
        outcomes = await deliver(tmp_path, port, "b@example.net", "c@example.net")
    assert [(one.result.value, one.code) for one in outcomes] == [("delivered", 250)] * 2


@pytest.mark.parametrize("command", COMMANDS)
async def test_refused_for_now(tmp_path: Path, command: str) -> None:
    async with smtp_sink("-r", command) as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("temporary", 450, "4.3.0")
    assert outcome.error == "remote answered 450 4.3.0 Error: command failed"
    assert "< 450 4.3.0 Error: command failed" in outcome.transcript


@pytest.mark.parametrize("command", COMMANDS)
async def test_refused_for_good(tmp_path: Path, command: str) -> None:
    """EHLO is followed by HELO, which is taken."""
    async with smtp_sink("-f", command) as port:
        [outcome] = await deliver(tmp_path, port)
    if command == "ehlo":
        assert (outcome.result.value, outcome.code) == ("delivered", 250)
        return
    assert (outcome.result.value, outcome.code, outcome.enhanced) == ("permanent", 500, "5.3.0")
    assert outcome.error == "remote answered 500 5.3.0 Error: command failed"


@pytest.mark.parametrize("command", COMMANDS)
async def test_421(tmp_path: Path, command: str) -> None:
    async with smtp_sink("-Q", command) as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code) == ("temporary", 421)
    assert outcome.error.startswith("remote answered 421 ")


@pytest.mark.parametrize("command", COMMANDS)
async def test_hangs_up(tmp_path: Path, command: str) -> None:
    async with smtp_sink("-q", command) as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    assert outcome.enhanced == ("4.4.1" if command == "connect" else "4.4.2")
    if command == ".":
        assert outcome.error.startswith("outcome unknown, the message may have been delivered: connection ")
    else:
        assert outcome.error.startswith("connection ")


@pytest.mark.parametrize("command", ["connect", "data", "."])
async def test_slow(tmp_path: Path, command: str) -> None:
    """Within our patience a slow server is like any other. (`-p`: delays would mix up pipelined replies.)"""
    async with smtp_sink("-p", "-W", f"{command}:1") as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code) == ("delivered", 250)


@pytest.mark.parametrize("command", ["connect", "rcpt", "."])
async def test_too_slow(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientSettings, "reply_timeout", lambda self, stage: 1.0)
    async with smtp_sink("-p", "-W", f"{command}:5") as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code) == ("temporary", 0)
    unknown = "outcome unknown, the message may have been delivered: " if command == "." else ""
    assert outcome.error == f"{unknown}no reply within 1 seconds"
    assert outcome.enhanced == ("4.4.1" if command == "connect" else "4.4.2")


async def test_gives_up_while_the_message_is_sent(tmp_path: Path) -> None:
    async with smtp_sink("-A", "0") as port:
        [outcome] = await deliver(tmp_path, port)
    assert (outcome.result.value, outcome.code) == ("permanent", 550)


async def test_old_servers(tmp_path: Path) -> None:
    for options in (["-e"], ["-p"], ["-8"], ["-E"], ["-N"], ["-P"]):
        async with smtp_sink(*options) as port:
            [outcome] = await deliver(tmp_path, port)
        assert (outcome.result.value, outcome.code) == ("delivered", 250), options
