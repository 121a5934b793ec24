"""Serves an ASGI application over HTTP/1.1 and WebSocket on trio listeners, TCP or Unix.

`serve_http` accepts, counts and stops; gateway/web/connection.py is what happens on one connection.
`lifespan` starts and stops an application that asks for it (Quart-Trio does).
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from gateway.web.connection import LINGER, Connection, blame, close
from gateway.web.http1 import ASGIApp, ClientGone, HttpSettings, Inbox, Message

__all__ = ["ASGIApp", "ClientGone", "HttpSettings", "LifespanError", "lifespan", "serve_http"]

MAX_REFUSALS = 64  # connections at once that are being told 503; any more are closed without a word

log = logging.getLogger(__name__)


async def serve_http(
    listeners: Sequence[trio.abc.Listener[Any]],
    app: ASGIApp,
    settings: HttpSettings,
    *,
    connected: Callable[[int], None] = lambda _change: None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listeners` until `stopping` is set and the connections have ended.

    Once `stopping` is set, the listeners are closed, idle connections too; requests under way have
    `settings.grace` seconds, WebSocket peers are told to go; then whatever is left is closed.

    `connected` is called with 1 and -1 when a connection begins and ends.

    Resource handling: the listeners are closed on return, however it comes about, and so are the connections.

    Error handling: what goes wrong on a connection or in the application is logged and stays there. An error
    of a listener is raised.
    """
    server = _Server(app, settings, connected)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            serve = partial(trio.serve_listeners, handler_nursery=connections)
            accepting.start_soon(serve, server.handle, list(listeners))
            task_status.started()
            await stopping.wait()
            accepting.cancel_scope.cancel()
        server.stop()
        connections.cancel_scope.deadline = trio.current_time() + settings.grace


class _Server:
    def __init__(self, app: ASGIApp, settings: HttpSettings, connected: Callable[[int], None]) -> None:
        self._connected = connected
        self._app = app
        self._settings = settings
        self._connections: set[Connection] = set()
        self._refusals = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one stream; trio.serve_listeners closes it afterwards."""
        if len(self._connections) >= self._settings.max_connections:
            await self._refuse(stream)
            return
        connection = Connection(self._app, stream, self._settings)
        self._connections.add(connection)
        self._connected(1)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._connected(-1)

    def stop(self) -> None:
        for connection in list(self._connections):
            connection.stop()

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        # An answer, rather than a connection left waiting in the backlog: the client learns at once that it
        # may come again, and a proxy can ask another server.
        if self._refusals >= MAX_REFUSALS:
            return
        self._refusals += 1
        try:
            with trio.move_on_after(LINGER):
                await stream.send_all(
                    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n"
                    b"retry-after: %d\r\n\r\n" % self._settings.retry_after
                )
                await close(stream, listen=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._refusals -= 1


class LifespanError(Exception):
    """The application said that it could not start, or did not say so in time."""


@asynccontextmanager
async def lifespan(app: ASGIApp, *, timeout: float = 60.0) -> AsyncGenerator[None]:
    """Run the ASGI lifespan of `app` around the block: started before it, shut down after it.

    Quart-Trio needs it for before_serving and after_serving functions and for background tasks; requests
    alone would work without. An application that knows no lifespan (it raises or returns) is left alone.

    Raises LifespanError if the start fails or takes longer than `timeout` seconds; a failure to shut down
    is logged.
    """
    inbox = Inbox()
    answered = {stage: trio.Event() for stage in ("startup", "shutdown")}
    failures: dict[str, str] = {}

    async def send(message: Message) -> None:
        stage, _, result = message["type"].removeprefix("lifespan.").partition(".")
        if stage not in answered or result not in ("complete", "failed"):
            raise ValueError(f"not a lifespan message: {message['type']!r}")
        if result == "failed":
            failures[stage] = message.get("message", "") or "no reason given"
        answered[stage].set()

    async def run() -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            await app(scope, inbox.receive, send)
        except BaseException as error:
            failure = blame(error)
            if failure is not None and answered["startup"].is_set():
                log.error("lifespan of the web application failed", exc_info=failure)
            await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            for event in answered.values():
                event.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await inbox.put({"type": "lifespan.startup"})
        with trio.move_on_after(timeout):
            await answered["startup"].wait()
        if not answered["startup"].is_set():
            failures["startup"] = f"no answer within {timeout:g} s"
        if "startup" not in failures:
            try:
                yield
            finally:
                with trio.move_on_after(timeout):
                    await inbox.put({"type": "lifespan.shutdown"})
                    await answered["shutdown"].wait()
        nursery.cancel_scope.cancel()
    if "startup" in failures:
        raise LifespanError(f"the web application did not start: {failures['startup']}")
    if "shutdown" in failures:
        log.error("the web application did not shut down cleanly: %s", failures["shutdown"])
