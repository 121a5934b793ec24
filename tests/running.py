"""A whole gateway on loopback for tests: real sockets, real plugins, and a receiver of its webhooks."""

from __future__ import annotations

import contextlib
import json
import os
import smtplib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import argon2
import httpx
import pytest
import trio
from cryptography.hazmat.primitives import serialization

from gateway import app
from gateway.cli.common import CONFIG_FILE
from gateway.cli.localserve import first_start, new_signing_key
from gateway.clock import Clock
from gateway.config.load import parse, read_toml
from gateway.store import listing
from gateway.store.listing import Filter
from gateway.web.server import HttpSettings, serve_http
from tests.ports import free_port_base

AUTH = ("mox@localhost", "moxmoxmox")
T = TypeVar("T")
PATIENCE = 180.0  # seconds: what takes longer has failed; on a busy machine a start takes 30


@dataclass
class Receiver:
    """Collects webhooks; `status` is what it answers."""

    url: str
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # as they came
    status: int = 200
    _changed: trio.Event = field(default_factory=trio.Event)

    async def wait_for(
        self, wanted: Callable[[dict[str, Any]], object], count: int = 1
    ) -> list[dict[str, Any]]:
        """The payloads that match, once there are `count` of them."""
        with trio.fail_after(PATIENCE):
            while len(found := [payload for payload in self.got if wanted(payload)]) < count:
                await self._changed.wait()
        return found

    async def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first event of that name (and with those values)."""
        return (
            await self.wait_for(
                lambda p: p.get("Event") == name and all(p[key] == value for key, value in fields.items())
            )
        )[0]

    async def incoming(self, count: int = 1) -> list[dict[str, Any]]:
        return await self.wait_for(lambda p: "Event" not in p, count)

    def clear(self) -> None:
        """Forget what came so far."""
        for kept in (self.got, self.headers, self.bodies):
            kept.clear()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        self.bodies.append(body)
        self.got.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver = Receiver(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            settings = HttpSettings(grace=0.5)
            await serve_http(listeners, receiver.app, settings, stopping=stopping, task_status=task_status)

        await nursery.start(serve)
        yield receiver
        stopping.set()


@dataclass
class Running:
    """A gateway that runs, and how to talk to it."""

    gateway: app.Gateway
    api: httpx.AsyncClient
    webhooks: Receiver
    directory: Path

    async def call(self, method: str, request: Mapping[str, Any]) -> Any:
        """The answer of a method of the API; an error answer fails."""
        response = await self.api.post(method, json=dict(request))
        assert response.status_code == 200, response.text
        return response.json()

    async def send(self, to: str = "user@example.org", **fields: Any) -> dict[str, Any]:
        request = {"To": [{"Address": to}], "Subject": "hi", "Text": "hello"} | fields
        answer: dict[str, Any] = await self.call("Send", request)
        return answer

    async def raw(self, msg_id: int) -> bytes:
        """A message of the account's mailboxes, as MessageRawGet answers it."""
        response = await self.api.post("MessageRawGet", json={"MsgID": msg_id})
        assert response.status_code == 200, response.text
        return response.content

    async def messages(self, **conditions: Any) -> tuple[listing.Item, ...]:
        """Messages of the queue and its history, oldest first."""
        page = await self.gateway.store.read(lambda conn: listing.page(conn, Filter(**conditions)))
        return page.items

    async def message(self, message_id: int) -> tuple[listing.Item, tuple[listing.Attempt, ...]]:
        found = await self.gateway.store.read(lambda conn: listing.get(conn, message_id))
        assert found is not None, f"there is no message {message_id}"
        return found

    async def nudge(self) -> None:
        """Have the gateway look for what is due: it does not know that a test moved its clock."""
        nothing = Filter(account="nobody")
        await self.gateway.operations.release(nothing)
        await self.gateway.operations.drop(nothing, "")

    async def until(self, ask: Callable[[], Awaitable[T]], wanted: T) -> None:
        """Ask until the answer is as wanted."""
        with trio.fail_after(PATIENCE):
            while await ask() != wanted:  # noqa: ASYNC110 - another's change sets no event of ours
                await trio.sleep(0.01)

    async def mail(self, data: bytes, to: str = "mox@localhost", sender: str = "remote@example.org") -> None:
        """Hand a message in over SMTP, as another server does."""

        def deliver() -> None:
            with smtplib.SMTP(*self.smtp, timeout=PATIENCE) as client:
                client.sendmail(sender, [to], data)

        await trio.to_thread.run_sync(deliver)

    @property
    def smtp(self) -> tuple[str, int]:
        address = self.gateway.addresses["smtp"][0]
        return address.host, address.port


def write_configuration(directory: Path, webhooks: str) -> Path:
    """What the first start of localserve writes; the configuration file."""
    key = directory / "dkim" / "localhost.pem"
    key.parent.mkdir(mode=0o700, parents=True)
    key.write_bytes(_signing_key())
    first_start(directory, "127.0.0.1", free_port_base(), webhooks, webhooks)
    return directory / CONFIG_FILE


@asynccontextmanager
async def running(
    directory: Path,
    webhooks: Receiver,
    *,
    change: Callable[[dict[str, Any]], None] | None = None,
    plugins: Mapping[str, object] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Running]:
    """`gateway localserve` in this process, its configuration as `change` leaves it.

    `plugins`: objects to be found as installed plugins are; name them in a set.
    """
    config = directory / CONFIG_FILE
    if not config.exists():
        write_configuration(directory, webhooks.url)
    raw = read_toml(config)
    if change is not None:
        change(raw)
    prepare: Callable[[Any], Awaitable[None]] = _set_password
    serving = app.serving(parse(raw, config), directory, clock=clock, plugins=plugins, prepare=prepare)
    async with contextlib.AsyncExitStack() as stack:
        with _quick_to_start():
            gateway = await stack.enter_async_context(serving)
        web = gateway.addresses["web"][0]
        base = f"http://{web}{gateway.settings.web.base_path}"
        async with httpx.AsyncClient(base_url=base, auth=AUTH, timeout=PATIENCE, verify=False) as api:
            yield Running(gateway, api, webhooks, directory)


@contextmanager
def _quick_to_start() -> Iterator[None]:
    """What takes most of a start and is the same for all tests: the keys, and the system's authorities."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "load_pem_private_key", _load_key)
        if os.environ.get("SSL_CERT_FILE") == _AUTHORITIES:  # the test has none of its own
            patch.setenv("SSL_CERT_FILE", os.devnull)
        yield


_AUTHORITIES = os.environ.get("SSL_CERT_FILE")
_load_key = cache(serialization.load_pem_private_key)


@cache
def _signing_key() -> bytes:
    """One for all tests: making one takes a tenth of a second."""
    return new_signing_key()


async def _set_password(authenticator: Any) -> None:
    # A strong hash takes as long as all of the rest of a test.
    authenticator._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    if not await authenticator.has_password("mox"):
        await authenticator.set_password("mox", AUTH[1])


def with_plugins(*names: str, first: bool = True) -> Callable[[dict[str, Any]], None]:
    """A change of the configuration: these plugins are asked before (or after) the usual ones."""

    def change(raw: dict[str, Any]) -> None:
        raw["plugin_sets"]["test"] = {"plugins": list(names)}
        sets = raw["plugins"]["sets"]
        raw["plugins"]["sets"] = ["test", *sets] if first else [*sets, "test"]

    return change
