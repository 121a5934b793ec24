"""For how long a connection is kept: its messages, its age, and the time that it has been idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gateway import NextHop
from gateway.net.shaping import Place, Shaper
from gateway.net.smtp_client import connect_smtp
from gateway.net.smtp_client_settings import ClientSettings
from gateway.smtp.addresses import Mailbox
from gateway.smtp.transaction import Transaction
from gateway_smtp.connections import Connections, KeepSettings, Kept
from tests.plugins.mx_hosts import smtp

MESSAGE = Transaction(Mailbox("a", "example.org"), (Mailbox("b", "example.net"),))


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Servers:
    """One for each connection, in memory; how many there are, and how many were taken leave of."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.opened = self.left = 0

    async def open(self, place: Place) -> Kept:
        async def dial(host: str, port: int) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            self._nursery.start_soon(self._serve, theirs)
            return ours

        connection = await connect_smtp("mx", 25, ClientSettings("client.example"), dial=dial)
        return Kept(connection, "mx", trio.current_time(), place)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.opened += 1
        await smtp(stream)  # until QUIT
        self.left += 1


async def chunks() -> AsyncIterator[bytes]:
    yield b"Subject: hi\r\n\r\nhello\r\n"


@pytest.mark.parametrize(
    ("settings", "pauses", "used"),
    [
        ({}, [0, 0, 0], [1, 1, 1, 1]),
        ({"messages": 1}, [0, 0], [1, 2, 3]),
        ({"messages": 2}, [0, 0, 0, 0], [1, 1, 2, 2, 3]),
        ({"idle": 10}, [9, 9, 11, 9], [1, 1, 1, 2, 2]),
        ({"age": 20, "idle": 10}, [9, 9, 9, 9], [1, 1, 1, 2, 2]),
        ({"idle": 0}, [0, 0], [1, 2, 3]),
        ({"age": 0}, [0, 0], [1, 2, 3]),
        ({"connections": 0}, [0, 0], [1, 2, 3]),
    ],
)
async def test_a_connection_is_kept_for_so_long(
    autojump_clock: MockClock, settings: dict[str, Any], pauses: list[float], used: list[int]
) -> None:
    """`used` has the number of the connection that each message takes, `pauses` the seconds between them."""
    keep = KeepSettings(**settings)
    connections = Connections(keep)
    share = await Shaper().share(NextHop("example.net", "mx", "", 25, "relay"))
    async with trio.open_nursery() as nursery:
        servers = Servers(nursery)
        nursery.start_soon(connections.serve)
        taken = []
        for pause in [*pauses, 0]:
            kept = await connections.get("mx", share, servers.open)
            [result] = await kept.connection.deliver(MESSAGE, chunks())
            assert result.accepted
            connections.give_back(kept)
            taken.append(servers.opened)
            await trio.sleep(pause)
        assert taken == used
        await trio.sleep(2 * keep.idle + 1)
        assert servers.left == servers.opened  # also when no further message comes
        assert not share.busy
        nursery.cancel_scope.cancel()
