"""A WebSocket on one of our connections: hypercorn's (wsproto inside), with its loose ends tied."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from hypercorn.config import Config
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup
from wsproto.events import CloseConnection
from wsproto.frame_protocol import CloseReason

from gateway.web.http1 import Answer, Head, HttpSettings, Refused, head, header_line

_STREAM = 1  # hypercorn's number of it
_SWITCHING = 101


class Carrier(Protocol):
    """The connection. The latter two are hypercorn's names."""

    async def write(self, data: bytes) -> None: ...
    def end(self) -> None:
        """Nothing more is to be read or sent."""

    async def spawn_app(self, _app: object, _config: object, scope: Any, send: Any) -> Any: ...
    def spawn(self, task: Callable[..., Awaitable[None]], *args: Any) -> None: ...


class WebSocket:
    """From the request to open it until the connection's end."""

    def __init__(
        self,
        carrier: Carrier,
        request: Head,
        settings: HttpSettings,
        client: tuple[str, int] | None,
        server: tuple[str, int | None] | None,
    ) -> None:
        self._carrier, self._request = carrier, request
        self._accepted = False
        self._answer = Answer(request)  # if it is refused
        self._stream = WSStream(
            cast("AppWrapper", None),  # only handed through to spawn_app, which has its own
            _config(settings),
            WorkerContext(None),
            cast("TaskGroup", carrier),
            settings.scheme == "https",
            client,
            cast("tuple[str, int] | None", server),
            self._send,
            _STREAM,
        )

    async def begin(self) -> None:
        """Start the application, or refuse the request."""
        request = self._request
        await self._stream.handle(
            Request(
                stream_id=_STREAM,
                # permessage-deflate is not negotiated: wsproto inflates without a bound.
                headers=[item for item in request.headers if item[0] != b"sec-websocket-extensions"],
                http_version=request.version,
                method=request.method,
                raw_path=request.target,
                state=ConnectionState({}),
            )
        )

    async def receive(self, data: bytes) -> None:
        """Raises Refused: nothing may come before the answer (RFC 6455, 4.1). Hypercorn would answer while
        the application, unaware, goes on to accept."""
        if not self._accepted:
            raise Refused(400)
        await self._stream.handle(Data(stream_id=_STREAM, data=data))

    async def gone(self) -> None:
        """The connection is at its end."""
        await self._stream.handle(StreamClosed(stream_id=_STREAM))

    async def go_away(self) -> None:
        """Tell the peer that the server is leaving (RFC 6455 section 7.4.1)."""
        if self._stream.state is ASGIWebsocketState.CONNECTED:
            await self._stream._send_wsproto_event(CloseConnection(code=CloseReason.GOING_AWAY))

    @property
    def answered(self) -> bool:
        """Whether the request was."""
        return self._accepted or self._answer.started

    @property
    def too_big(self) -> bool:
        """Whether the peer sends a message without end: hypercorn says so, and goes on collecting it."""
        buffer = self._stream.buffer
        return bool(buffer.length > buffer.max_length)

    async def _send(self, event: Event) -> None:
        """What hypercorn has for the peer."""
        answer, carrier = self._answer, self._carrier
        if isinstance(event, Data):
            await carrier.write(event.data)
        elif isinstance(event, Response) and event.status_code == _SWITCHING:
            self._accepted = True
            await carrier.write(head(_SWITCHING, [header_line(*item) for item in event.headers]))
        elif isinstance(event, Response):
            answer.start(event.status_code, event.headers, is_last=True)
        elif isinstance(event, Body):
            await carrier.write(answer.piece(event.data, more=True))
        elif isinstance(event, EndBody):
            await carrier.write(answer.piece(b"", more=False))
            carrier.end()  # what follows a refused upgrade is neither HTTP nor WebSocket
        elif isinstance(event, StreamClosed):
            await self.gone()
            carrier.end()


def _config(settings: HttpSettings) -> Config:
    config = Config()
    config.accesslog = config.errorlog = None
    config.websocket_max_message_size = settings.websocket_max_message
    config.websocket_ping_interval = settings.websocket_ping
    return config
