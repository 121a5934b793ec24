"""Postfix's smtp-source(1) hands mail in, as a server elsewhere does."""

from __future__ import annotations

import trio

from gateway.net.smtp_handler import Session
from tests.peers.programs import program
from tests.plugins.smtp_servers import Server, serving


async def test_many_sessions_at_a_time() -> None:
    async with serving() as server:
        await trio.run_process(
            [
                program("smtp-source"),
                *("-s", "5", "-m", "40", "-r", "3"),  # sessions at a time, messages, recipients of each
                *("-l", "70000", "-f", "a@example.org", "-t", "b@example.net"),
                f"127.0.0.1:{server.port}",
            ]
        )
    assert len(server.transactions) == 40
    for envelope, data in server.transactions:
        assert str(envelope.reverse_path) == "a@example.org"
        assert len(envelope.recipients) == 3
        assert len(data) > 70_000
        assert data.endswith(b"\r\n")


async def test_one_session_for_all() -> None:
    connected: list[str] = []

    class Counting(Server):
        async def connected(self, session: Session) -> None:
            connected.append(session.id)

    async with serving(Counting()) as server:
        command = [
            program("smtp-source"),
            "-d",
            "-m",
            "10",
            "-t",
            "b@example.net",
            f"127.0.0.1:{server.port}",
        ]
        await trio.run_process(command)
    assert len(server.transactions) == 10
    assert len(connected) == 1
