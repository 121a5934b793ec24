"""Pushes every event to a WebSocket server as it happens: one connection, kept open, a JSON text for each.

The service keeps the connection; the hook hands it an event and waits until it is sent. So what cannot be
sent is a failure of the hook, and with `on_error = {event = "defer"}` the gateway tells the event again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

import trio
from pydantic import BaseModel, ConfigDict, Field
from trio_websocket import WebSocketConnection, wrap_client_stream

from gateway import Event, GatewayContext, IncomingEvent, Service, hookimpl

PING = 30.0  # seconds between pings: what lies between the two closes connections that are silent
PONG = 10.0  # seconds to wait for the answer


class PushSettings(BaseModel):
    """[plugin."example.websocket_push"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern="^wss?://[^/]")]
    token: str = ""  # sent as `Authorization: Bearer`


class WebsocketPush:
    Settings = PushSettings

    def __init__(self) -> None:
        self._connection: WebSocketConnection | None = None
        self._connected = trio.Event()

    @hookimpl
    def services(self, settings: PushSettings) -> Mapping[str, Service]:
        async def keep_connected(
            _gateway: GatewayContext, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            """Raises what breaks the connection: the gateway calls it again, a little later each time."""
            task_status.started()  # mail goes on while nobody listens
            headers = [(b"Authorization", b"Bearer " + settings.token.encode())] if settings.token else []
            async with await _dial(settings.url) as stream, trio.open_nursery() as nursery:
                host, path = _host_and_path(settings.url)
                connection = await wrap_client_stream(nursery, stream, host, path, extra_headers=headers)
                nursery.start_soon(_ping, connection)
                self._connection = connection
                self._connected.set()
                try:
                    while True:  # what the server says is read, and not needed
                        await connection.get_message()
                finally:
                    self._connection, self._connected = None, trio.Event()

        return {"connection": keep_connected}

    @hookimpl
    async def event(self, event: Event | IncomingEvent) -> None:
        await self._connected.wait()  # for as long as the hook has: then it has failed
        assert self._connection is not None
        await self._connection.send_message(json.dumps(as_json(event)))


async def _dial(url: str) -> trio.abc.Stream:
    parts = urlsplit(url)
    assert parts.hostname is not None  # see PushSettings
    if parts.scheme == "wss":
        return await trio.open_ssl_over_tcp_stream(parts.hostname, parts.port or 443)
    return await trio.open_tcp_stream(parts.hostname, parts.port or 80)


def _host_and_path(url: str) -> tuple[str, str]:
    """As the handshake has them (RFC 6455, 4.1)."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def _ping(connection: WebSocketConnection) -> None:
    while True:
        await trio.sleep(PING)
        with trio.fail_after(PONG):
            await connection.ping()


def as_json(event: Event | IncomingEvent) -> dict[str, object]:
    """What the server gets. `id` grows from event to event; one that is told twice has the same."""
    common = {"id": event.id, "time": event.time.isoformat(), "account": event.account}
    if isinstance(event, Event):
        return common | {
            "event": event.name,
            "message": event.queue_msg_id,
            "recipient": event.recipient,
            "code": event.code,
            "error": event.error,
            "extra": dict(event.extra),
        }
    return common | {
        "event": "incoming",
        "message": event.message.id,
        "from": event.message.msg_from,
        "recipient": event.message.rcpt_to,
        "subject": event.parsed.summary.subject,
    }
