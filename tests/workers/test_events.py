"""An account's events where several processes make them: told in order, each once, whoever is asked."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from gateway.client import Streamed, follow
from tests.commands import PATIENCE, Localserve, localserve
from tests.running import AUTH
from tests.under_load import Webhooks, configured, processes, wait_for, wait_for_workers

MESSAGES = 12
NAMES = ("delivered", "failed")


@contextmanager
def following(running: Localserve, cursor: str, names: Sequence[str]) -> Iterator[list[Any]]:
    """What the stream tells after a cursor, in a thread of its own."""
    told: list[Any] = []
    leave = threading.Event()

    async def tell(streamed: Streamed) -> None:
        if streamed.payload is not None:
            told.append(streamed.payload)

    async def run() -> None:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                await follow(running.api, AUTH[1], AUTH[0], tell=tell, cursor=cursor, events=names)

            while not leave.is_set():  # noqa: ASYNC110 - another thread's
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(run,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        leave.set()
        thread.join(PATIENCE)


def listed(api: httpx.Client, cursor: str = "") -> tuple[list[Any], str]:
    """All events after a cursor, and the cursor after them."""
    found: list[Any] = []
    while True:
        page = api.post("EventList", json={"Cursor": cursor, "Max": 7}).json()
        if not page["Events"]:
            return found, cursor
        found, cursor = found + page["Events"], page["NextCursor"]


def by_message(events: Sequence[Any]) -> dict[int, list[str]]:
    """The names of each message's events, in order; of equal ones behind each other only the first.

    A call that was cut off is made again; and a message whose delivery was not recorded yet is delivered
    again, and comes back twice.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if "Event" in event and found[event["QueueMsgID"]][-1:] != [event["Event"]]:
            found[event["QueueMsgID"]].append(event["Event"])
    return found


def test_events_are_told_in_order_by_all(tmp_path: Path, webhooks: Webhooks) -> None:
    directory = configured(tmp_path / "gw", webhooks.url)
    config = directory / "gateway.toml"
    text = config.read_text().replace("[webhooks]\n", "[webhooks]\nmax_calls_per_url = 4\n")
    out = "[accounts.mox.webhook_outgoing]\n"
    assert out in text
    config.write_text(text.replace(out, f"{out}supersede = false\n"))
    with (
        localserve(directory) as running,
        # A connection for each call: the one before may have been to who is killed.
        httpx.Client(
            base_url=running.api,
            auth=AUTH,
            timeout=PATIENCE,
            limits=httpx.Limits(max_keepalive_connections=0),
        ) as api,
    ):
        wait_for_workers(running)

        def send(number: int) -> set[int]:
            """Messages that are delivered, and then come back; their IDs."""
            recipients = [{"Address": f"u{number}n{n}bounce@d{n}.example"} for n in range(MESSAGES)]
            batch = [{"To": [one], "Text": "x"} for one in recipients]
            results = api.post("SendBatch", json={"Messages": batch}).json()["Results"]
            return {one["QueueMsgID"] for result in results for one in result["Submissions"]}

        def have_failed(messages: set[int]) -> bool:
            hurry()
            return messages <= webhooks.events("failed").keys()

        def all_is_told() -> bool:
            hurry()
            return by_message(webhooks.got) == by_message(listed(api)[0])

        def hurry() -> None:
            """What was cut off would wait for 30 s."""
            running.command("queue", "schedule", "--all")
            running.command("webhook", "schedule", "--all")

        first = send(1)
        wait_for(lambda: have_failed(first), lambda: webhooks.got)
        _, cursor = listed(api)
        with following(running, cursor, NAMES) as told, following(running, "", ("failed",)) as failures:
            send(2)  # what the killed one was to send back is lost: it simulates that in memory
            processes(running)[0].kill()
            wait_for_workers(running)
            last = send(3)
            wait_for(lambda: have_failed(last), lambda: webhooks.got)
            wait_for(all_is_told, lambda: webhooks.got)
            everything, _ = listed(api)
            since, _ = listed(api, cursor)
            wanted = [event for event in since if event.get("Event") in NAMES]
            failed = [event for event in everything if event.get("Event") == "failed"]
            wait_for(lambda: len(told) >= len(wanted), lambda: told)
            wait_for(lambda: len(failures) >= len(failed), lambda: failures)
        assert told[: len(wanted)] == wanted
        assert failures[: len(failed)] == failed
        assert running.stop() == 0
