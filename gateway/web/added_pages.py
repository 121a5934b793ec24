"""Pages that plugins added: ASGI applications, each below /plugins/NAME/."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from gateway.additions import AsgiApplication
from gateway.hookcalls import contain, described
from gateway.watched import watched
from gateway.web.http1 import ASGIApp

PREFIX = "/plugins/"

log = logging.getLogger(__name__)


def added_page(pages: Mapping[str, tuple[str, AsgiApplication]], path: str) -> tuple[str, ASGIApp] | None:
    """The page that a path belongs to, and where its application is mounted."""
    if not path.startswith(PREFIX):
        return None
    name, slash, _ = path.removeprefix(PREFIX).partition("/")
    if not slash or name not in pages:
        return None
    plugin, page = pages[name]
    return PREFIX + name, _contained(plugin, name, page)


def _contained(plugin: str, name: str, page: AsgiApplication) -> ASGIApp:
    """A page that fails is logged, and answered with 500 if nothing was answered yet."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        begun = False

        def slow(took: float) -> None:
            log.warning("plugin %r, page %r: stopped the event loop for %.2f s", plugin, name, took)

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await watched(page(scope, receive, sending), slow)
        except BaseException as exc:
            await contain(exc)
            log.error("plugin %r, page %r: raised %s", plugin, name, described(exc), exc_info=exc)
            if begun or scope["type"] != "http":
                raise
            body = b"internal error; the gateway's log has the details\n"
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
            ]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return run
