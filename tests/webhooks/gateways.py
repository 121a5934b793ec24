"""A sender with a real store, receivers on loopback, and a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway import EventName, GiveUp, RetryAt, Route, TransportType, hookimpl
from gateway.clock import ManualClock
from gateway.config.accounts import AccountSettings
from gateway.config.settings import Settings
from gateway.offload import Offload
from gateway.outbound.settle import outgoing_calls
from gateway.plugins.loading import load_plugins
from gateway.store import call_listing, webhook_calls
from gateway.store.call_listing import CallAttempt
from gateway.store.changes import Call, CallDraft
from gateway.store.events import NewEvent
from gateway.store.store import Store
from gateway.wakeup import Wakeup
from gateway.webhooks.calling import Caller
from gateway.webhooks.client import WebhookClient
from gateway.webhooks.sender import WebhookSender
from gateway_mox import webhook
from gateway_signing import standard
from tests.commands import PATIENCE
from tests.webhooks.receivers import LOOPBACK, Conversation, listening, read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SORRY = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nsorry"


class Rest:
    """The stages that a set must have and that no webhook takes."""

    @hookimpl
    def route(self) -> Route:
        return Route("none")

    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {}

    @hookimpl
    def retry(self) -> RetryAt | GiveUp:
        return GiveUp("none")


class Receiver:
    """Keeps what it gets, and answers it as it is told."""

    def __init__(self, response: bytes = OK) -> None:
        self.response = response
        self.go_on = trio.Event()  # answers wait for it
        self.go_on.set()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.at_once = self.most_at_once = 0
        self.url = ""
        self._changed = trio.Condition()

    async def conversation(self, stream: trio.SocketStream) -> None:
        while request := await read_request(stream):
            head, body = request
            lines = head.decode().split("\r\n")[1:]
            self.requests.append((dict(line.split(": ", 1) for line in lines), body))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            async with self._changed:
                self._changed.notify_all()
            await self.go_on.wait()
            self.at_once -= 1
            await stream.send_all(self.response)

    async def has(self, count: int) -> list[Any]:
        """Waits for that many requests; their payloads."""
        with trio.fail_after(PATIENCE):
            async with self._changed:
                while len(self.requests) < count:
                    await self._changed.wait()
        return [json.loads(body) for _, body in self.requests]


@dataclass
class Bench:
    store: Store
    clock: ManualClock
    client: WebhookClient
    settings: Settings
    hooks_plugins: dict[str, object]
    queued: Wakeup = field(default_factory=Wakeup)

    async def event(self, url: str, *, message: int, name: EventName = "delivered", **call: Any) -> int:
        """An outgoing event and its call; the call's ID."""
        draft = CallDraft(url=url, superseded_keep_until=self.clock.now() + timedelta(days=1), **call)
        return (await self._announce([draft], message, name))[0]

    async def events(self, *, message: int, name: EventName = "delivered") -> tuple[int, ...]:
        """An outgoing event and its calls as the account is configured; the calls' IDs."""
        account = self.settings.accounts["a"]
        return await self._announce(outgoing_calls(account, name, self.clock.now()), message, name)

    async def _announce(self, drafts: Sequence[CallDraft], message: int, name: EventName) -> tuple[int, ...]:
        data = {
            "from_id": "f",
            "message_id": "<m@gateway.example>",
            "subject": f"About {message}",
            "recipient": "you@example.org",
            "attempt": 1,
        }

        def write(conn: Any) -> tuple[int, ...]:
            now = self.clock.now()
            event = NewEvent(now, "a", name, now + timedelta(days=7), queue_msg_id=message, data=data)
            [(_, call_ids)] = webhook_calls.tell(conn, [(event, drafts)])
            return call_ids

        call_ids = await self.store.write(write)
        self.queued.set()
        return call_ids

    def configure(self, **account: Any) -> None:
        """The account, from the next sender on."""
        accounts = {"a": AccountSettings.model_validate({"addresses": ["a@example.com"], **account})}
        self.settings = self.settings.model_copy(update={"accounts": accounts})

    def sender(self, owner: str = "one") -> WebhookSender:
        hooks = load_plugins(self.settings, Path("/etc"), extra=self.hooks_plugins)
        caller = Caller(self.settings, hooks, self.client)
        return WebhookSender(owner, self.settings, caller, self.store, self.clock, self.queued, Offload(5.0))

    @asynccontextmanager
    async def sending(self, owner: str = "one") -> AsyncIterator[trio.Event]:
        """Runs a sender; leaving stops it properly. Gives the event that stops it."""
        stopping = trio.Event()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(self.sender(owner).serve, stopping=stopping))
                yield stopping
                stopping.set()

    async def look(self, call_id: int) -> tuple[Call, tuple[CallAttempt, ...]]:
        found = await self.store.read(lambda conn: call_listing.get(conn, call_id))
        assert found is not None
        return found

    async def call(self, call_id: int) -> Call:
        return (await self.look(call_id))[0]

    async def history(self, call_id: int) -> tuple[CallAttempt, ...]:
        return (await self.look(call_id))[1]

    async def until(self, call_id: int, condition: Callable[[Call], bool]) -> Call:
        """Waits for the stored call to be so."""
        with trio.fail_after(PATIENCE):
            while not condition(call := await self.call(call_id)):  # noqa: ASYNC110 - the store has no event
                await trio.sleep(0.003)
        return call

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.queued.set()


@asynccontextmanager
async def bench(
    tmp_path: Path, *, plugins: Mapping[str, object] | None = None, timeout: float = 5.0, **webhooks: Any
) -> AsyncIterator[Bench]:
    used = {**(plugins or {"mox.webhook": webhook, "signing": standard}), "rest": Rest()}
    settings = Settings.model_validate(
        {
            "hostname": "gateway.example",
            "plugins": {"sets": ["test"]},
            "plugin_sets": {"test": {"plugins": list(used)}},
            "domains": {"example.com": {}},
            "accounts": {"a": {"addresses": ["a@example.com"]}},
            "webhooks": {"timeout": timeout, **webhooks},
        }
    )
    clock = ManualClock()
    async with (
        Store.open(tmp_path, clock) as store,
        WebhookClient(timeout=timeout, allow_networks=LOOPBACK) as client,
    ):
        yield Bench(store, clock, client, settings, used)


@asynccontextmanager
async def receiving(*receivers: Receiver) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:

        async def run(receiver: Receiver, *, task_status: trio.TaskStatus[None]) -> None:
            conversation: Conversation = receiver.conversation
            async with listening(conversation) as receiver.url:
                task_status.started()
                await trio.sleep_forever()

        for receiver in receivers:
            await nursery.start(run, receiver)
        yield
        nursery.cancel_scope.cancel()
