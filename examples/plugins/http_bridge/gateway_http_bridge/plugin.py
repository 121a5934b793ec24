"""The stages, and the request that each of them makes."""

from __future__ import annotations

import base64
import json
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Annotated, Literal

import httpx
import trio
from pydantic import BaseModel, ConfigDict, Field

from gateway import (
    Accept,
    Event,
    IncomingEvent,
    QueuedMessage,
    Reception,
    Reject,
    Route,
    RouteRule,
    Submission,
    hookimpl,
)
from gateway_http_bridge.answers import BridgeError, changed_submission, member, patch, read
from gateway_http_bridge.describe import Json, of_event, of_queued, of_reception, of_submission, split

Stage = Literal["submission", "mail", "rcpt", "data", "route", "event"]

MAX_HELD = 10_000  # submissions that are remembered until they are queued
CHUNK = 1 << 16  # bytes that are encoded at a time

_RAW = b', "rawMessage": ""'


class BridgeSettings(BaseModel):
    """[plugin."example.http_bridge"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern="^https?://[^/]")]
    token: str = ""  # sent as `Authorization: Bearer`
    stages: tuple[Stage, ...] = ("submission", "data")  # that the service is asked at
    quarantine: Annotated[str, Field(min_length=1)] = "Junk"  # the mailbox of received mail it quarantines
    max_answer: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 20  # bytes of an answer


class HttpBridge:
    Settings = BridgeSettings

    def __init__(self) -> None:
        # One client, whose connections are kept. The stage's time limit is the only one; a proxy of the
        # environment is not asked for.
        self._client = httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113
        self._quarantined: OrderedDict[str, None] = OrderedDict()

    @hookimpl
    async def stop(self) -> None:
        await self._client.aclose()

    @hookimpl
    async def submission(
        self, submission: Submission, settings: BridgeSettings
    ) -> Submission | Reject | None:
        if "submission" not in settings.stages:
            return None
        parts = split(submission.data)
        described = of_submission(submission, parts)
        changed = await self._ask(settings, described, _pieces(submission.data), len(submission.data))
        if changed is None:
            return None
        answered = read(changed)
        if answered.action == "quarantine":
            self._quarantined[submission.id] = None
            if len(self._quarantined) > MAX_HELD:
                self._quarantined.popitem(last=False)
        return answered.refusal or changed_submission(submission, parts, changed)

    @hookimpl
    def hold(self, submission: Submission) -> bool | None:
        return True if submission.id in self._quarantined else None

    @hookimpl
    async def receive_policy(self, reception: Reception, settings: BridgeSettings) -> Accept | Reject | None:
        if reception.step not in settings.stages:
            return None
        content = reception.content
        changed = await self._ask(
            settings,
            of_reception(reception),
            content.chunks() if content else None,
            content.size if content else 0,
        )
        if changed is None:
            return None
        answered = read(changed)
        if answered.action == "quarantine" and reception.step == "data":
            return Accept(settings.quarantine)
        return answered.refusal  # accepted: the next plugin has its say

    @hookimpl
    async def route(
        self, message: QueuedMessage, routes: Sequence[RouteRule], settings: BridgeSettings
    ) -> Route | None:
        if "route" not in settings.stages:
            return None
        changed = await self._ask(settings, of_queued(message, routes))
        transport = None if changed is None else member(changed, "gateway", dict).get("transport")
        if transport is None:
            return None
        if not isinstance(transport, str):
            raise BridgeError("/gateway/transport is neither text nor null")
        return Route(transport)

    @hookimpl
    async def event(self, event: Event | IncomingEvent, settings: BridgeSettings) -> None:
        if "event" in settings.stages and isinstance(event, Event):
            await self._ask(settings, of_event(event))  # there is nothing left to change

    async def _ask(
        self,
        settings: BridgeSettings,
        described: Json,
        message: AsyncIterable[bytes] | None = None,
        size: int = 0,
    ) -> Json | None:
        """The description as the service changed it, in place; None if it left it.

        Raises BridgeError, httpx.HTTPError.
        """
        before = json.dumps(described).encode()
        length = len(before) + (len(_RAW) + -(-size // 3) * 4 if message is not None else 0)
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(length),  # so that it is not sent in chunks, which not everyone reads
            "Accept": "application/json-patch+json",
            "Accept-Encoding": "identity",  # a few bytes must not become many
            "X-MTA-Hooks-Request-Id": secrets.token_hex(16),
        }
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token}"
        body = _body(before, message)
        async with self._client.stream("POST", settings.url, headers=headers, content=body) as response:
            if response.status_code == 204:
                return None
            if response.status_code != 200:
                raise BridgeError(f"{settings.url} answered {response.status_code}, not 200 or 204")
            answer = bytearray()
            with trio.CancelScope() as enough:  # cancelled, not left: so all of httpx ends at once
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > settings.max_answer:
                        enough.cancel()
        if len(answer) > settings.max_answer:
            raise BridgeError(f"{settings.url} answered more than {settings.max_answer} bytes")
        if message is not None:
            described["rawMessage"] = None  # it is there, to be replaced
        patch(described, bytes(answer))
        return described


async def _body(described: bytes, message: AsyncIterable[bytes] | None) -> AsyncIterator[bytes]:
    """The description, with the message as the last of its members: encoded as it is sent."""
    if message is None:
        yield described
        return
    yield described[:-1] + _RAW[:-1]
    rest = b""
    async for piece in message:
        rest += piece
        whole = len(rest) // 3 * 3
        yield base64.b64encode(rest[:whole])
        rest = rest[whole:]
    yield base64.b64encode(rest) + b'"}'


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK):
        await trio.lowlevel.checkpoint()
        yield data[start : start + CHUNK]
