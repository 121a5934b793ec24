"""Routes of an account, a domain and the gateway: which of them a message takes, attempt by attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.smtp.replies import Reply
from gateway.store.listing import Filter
from tests.plugins.smtp_servers import Server, serving, smtp_transport
from tests.running import Receiver, Running, running


class Refusing(Server):
    """Refuses each recipient for now, and counts them."""

    def __init__(self) -> None:
        super().__init__(self.refuse)
        self.asked = 0

    def refuse(self, step: str, localpart: str) -> Reply | None:
        if step != "rcpt":
            return None
        self.asked += 1
        return Reply(450, "4.2.0", ("Not now",))


async def test_the_route_changes_with_the_attempts(tmp_path: Path, webhooks: Receiver) -> None:
    """Account before domain before gateway, as soon as the earlier attempts suffice; and only where the
    recipient's domain is theirs. Each is seen by a server of its own."""
    first, second = Refusing(), Refusing()
    async with (
        serving(first),
        serving(second),
        serving(Server()) as third,
        serving(Server()) as special,
    ):

        def change(raw: dict[str, Any]) -> None:
            for name, server in {
                "first": first,
                "second": second,
                "third": third,
                "special": special,
            }.items():
                raw["transports"][name] = smtp_transport(server)
            raw["accounts"]["mox"]["routes"] = [
                {"transport": "third", "minimum_attempts": 3},
                {"transport": "special", "to_domains": [".special.example"], "minimum_attempts": 1},
            ]
            raw["domains"]["localhost"]["routes"] = [
                {"transport": "special", "to_domains": ["elsewhere.example"]},
                {"transport": "second", "minimum_attempts": 1},
            ]
            raw["routes"] = [{"transport": "first"}]

        async with running(tmp_path, webhooks, change=change) as gateway:
            taken = await attempts(gateway, "user@example.org", until="delivered")
            assert taken == ["first", "second", "second", "third"]
            assert (first.asked, second.asked, len(third.transactions)) == (1, 2, 1)

            assert await attempts(gateway, "user@sub.special.example", until="delivered") == [
                "first", "special",
            ]  # fmt: skip
            assert await attempts(gateway, "user@elsewhere.example", until="delivered") == ["special"]
            assert special.recipients == [["user"], ["user"]]


async def attempts(gateway: Running, to: str, *, until: str) -> list[str]:
    """Send, and have each further attempt be due at once; the transports of all of them."""
    [submission] = (await gateway.send(to))["Submissions"]
    message, number = submission["QueueMsgID"], 0
    while True:
        number += 1
        [told] = await gateway.webhooks.wait_for(
            lambda p: p.get("QueueMsgID") == message and p.get("Attempt") == number  # noqa: B023
        )
        if told["Event"] == until:
            break
        assert told["Event"] == "delayed"
        await gateway.gateway.operations.schedule(Filter(ids=(message,)), gateway.gateway.clock.now())
    _, made = await gateway.message(message)
    return [one.transport for one in made]
