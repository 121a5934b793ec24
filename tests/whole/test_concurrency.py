"""How many deliveries a gateway makes at a time: in all, and to each destination; seen by the server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.outbound import places
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from tests.commands import PATIENCE
from tests.plugins.smtp_servers import Server, serving, smtp_transport
from tests.running import Receiver, Running, running

DOMAINS = ("a.example", "b.example", "c.example")
EACH = 5  # messages to each of them
MOST, MOST_OF_ONE = 5, 2


class Crowd(Server):
    """Keeps each transaction at RCPT until the test lets one go; knows how many it has, by domain."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.turns = trio.Semaphore(0)

    async def rcpt(self, session: Any, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        domain = recipient.domain
        assert domain is not None
        self.now[domain] += 1
        self.most[domain] = max(self.most[domain], self.now[domain])
        self.most_in_all = max(self.most_in_all, self.now.total())
        try:
            await self.turns.acquire()
        finally:
            self.now[domain] -= 1
        return None

    async def until(self, taken: int, waiting: range) -> None:
        """Until so many transactions are done, and so many wait."""
        with trio.fail_after(PATIENCE):
            while len(self.transactions) != taken or self.now.total() not in waiting:  # noqa: ASYNC110
                await trio.sleep(0.01)


@pytest.fixture
def nobody_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine: an attempt that takes long would give up its place."""
    monkeypatch.setattr(places, "SLOW_AFTER", 1000.0)


@pytest.mark.usefixtures("nobody_is_slow")
async def test_the_limits_hold_and_all_of_them_is_used(tmp_path: Path, webhooks: Receiver) -> None:
    crowd = Crowd()
    async with serving(crowd) as server:

        def change(raw: dict[str, Any]) -> None:
            raw["transports"]["crowd"] = smtp_transport(server)
            raw["routes"] = [{"transport": "crowd"}]
            raw["queue"] = {"max_deliveries": MOST, "max_deliveries_per_destination": MOST_OF_ONE}

        async with running(tmp_path, webhooks, change=change) as gateway:
            await send(gateway, each=1)  # a part of the places is kept for those that took something
            for _ in DOMAINS:
                crowd.turns.release()
            await crowd.until(len(DOMAINS), range(1))
            crowd.transactions.clear()
            await send(gateway, each=EACH)
            messages = EACH * len(DOMAINS)
            await crowd.until(0, range(MOST, MOST + 1))
            await trio.sleep(0.3)  # enough for more, were there no limit
            assert crowd.now.total() == MOST
            for taken in range(1, messages + 1):
                crowd.turns.release()
                # Towards the end there are only those for one destination.
                least = min(messages - taken, MOST_OF_ONE)
                await crowd.until(taken, range(least, MOST + 1))
            await webhooks.wait_for(lambda p: p.get("Event") == "delivered", messages + len(DOMAINS))
    assert crowd.most_in_all == MOST
    assert max(crowd.most.values()) == MOST_OF_ONE
    # No more connections than deliveries at a time: they are used again.
    assert len(crowd.sessions) <= MOST + len(DOMAINS)


async def send(gateway: Running, each: int) -> None:
    """So many to each domain, one domain after the other."""
    for domain in DOMAINS:
        for _ in range(each):
            await gateway.send(f"user@{domain}")
