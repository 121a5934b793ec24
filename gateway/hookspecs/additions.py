"""What plugins add to the gateway besides decisions: logins, API methods, pages, services, content stores.

Plugins import these names from `gateway`. Times are aware datetimes in UTC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import trio
from prometheus_client import Metric
from pydantic import BaseModel

from gateway.mail.address import Address
from gateway.model import Content, Scope

# An ASGI application, as Quart's and others' are (https://asgi.readthedocs.io/): scope, receive, send. Their
# own types for these differ.
AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]


# --- Logins --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What somebody logs in with, over HTTP or by SMTP's PLAIN or LOGIN. Never log the password."""

    login: str  # an address, or any other name: as it was given, at most 1,000 characters
    password: str = field(repr=False)
    remote_ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated:
    """The `authenticate` stage's answer: who it is."""

    account: str  # a configured account's name
    address: Address | None = None  # one of the account's, which the login counts as; None: its first


# What a plugin may say of a login: who it is, or False for a refusal.
LoginAnswer = Authenticated | Literal[False]


# --- The API -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """Who calls a method of the API that a plugin added."""

    account: str
    login: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiMethod:
    """What a plugin registers in the `api_methods` stage.

    `handler` is given the call and the request, an instance of `request`, and answers one of `response`. It
    raises `ApiError` for what the caller can mend.
    """

    summary: str  # one sentence, for people
    request: type[BaseModel]
    response: type[BaseModel]
    handler: Callable[[ApiCall, Any], Awaitable[BaseModel]]
    example_request: Mapping[str, Any]
    example_response: BaseModel
    scope: Scope = "send"  # what an API key needs to call it
    limit: float = 30.0  # seconds for the handler


# --- What runs with the gateway ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayContext:
    """The running gateway, as a plugin's `start`, `stop` and services see it."""

    hostname: str
    data_dir: Path
    now: Callable[[], datetime] = field(repr=False)

    def directory(self, name: str) -> Path:
        """A directory for what a plugin keeps, by its name; made if it is missing. Raises OSError."""
        path = self.data_dir / "plugins" / name.replace("/", "_")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


class Service(Protocol):
    """What a plugin registers in the `services` stage: a function that runs as long as the gateway does."""

    async def __call__(
        self, gateway: GatewayContext, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Calls `task_status.started()` when it is ready, and ends by being cancelled."""


OWN_METRICS = "gateway_"  # what the names of the gateway's own metrics begin with


class Collector(Protocol):
    """What a plugin adds in the `metrics` stage: any collector of prometheus_client is one."""

    def collect(self) -> Iterable[Metric]:
        """The values of now. Must not block."""


# --- Content stores ------------------------------------------------------------------------------


class NewContent(Content, Protocol):
    """What a content store is to keep."""

    @property
    def file(self) -> Path | None:
        """A file with it on the gateway's disk, which the store may move away; None: it is in memory."""


class ContentReader(Protocol):
    """An opened content. It is never closed: what it holds goes with the object."""

    async def read(self, start: int, count: int) -> bytes:
        """The `count` bytes from `start` on; fewer only where the content ends. Mostly asked for in order."""


class ContentStore(Protocol):
    """Where large messages are kept: what a plugin registers in the `content_store` stage.

    Names are 32 hexadecimal digits, each used once. The store is one gateway's alone, since that deletes
    what it does not know. Anything that a method raises, and no answer in time, is taken for "not now".
    """

    async def put(self, name: str, content: NewContent) -> None:
        """Keeps a content. When it returns, no crash of anything loses it any more.

        If it raises or is cancelled, what it leaves is swept later.
        """

    async def open(self, name: str) -> ContentReader:
        """Raises FileNotFoundError or LookupError, if there is none of that name.

        What else it raises, here or when it is read, counts as a failure of the store.
        """

    async def delete(self, names: Sequence[str]) -> None:
        """Removes contents, at most a few hundred. Some may be gone already, which is no failure."""

    def names(self, before: datetime) -> AsyncIterator[str]:
        """All contents that were put before a time: those that no message has are then deleted."""
