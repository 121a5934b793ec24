"""Pages that plugins added: ASGI applications, each below /plugins/NAME/."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from gateway.errors import PluginError
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import ask
from gateway.hooks.registered import registered_call
from gateway.hooks.stages import Hooks
from gateway.hookspecs.additions import AsgiApplication
from gateway.web.http1 import ASGIApp

HOOK = "pages"
PREFIX = "/plugins/"


def added_pages(hooks: Hooks) -> Mapping[str, ASGIApp]:
    """The pages by their names."""
    return {
        name: _contained(plugin, name, page, hooks.calls[plugin, HOOK])
        for name, (plugin, page) in hooks.added.pages.items()
    }


def added_page(pages: Mapping[str, ASGIApp], path: str) -> tuple[str, ASGIApp] | None:
    """The page that a path belongs to, and where its application is mounted."""
    if not path.startswith(PREFIX):
        return None
    name, slash, _ = path.removeprefix(PREFIX).partition("/")
    return (PREFIX + name, pages[name]) if slash and name in pages else None


def _contained(plugin: str, name: str, page: AsgiApplication, tally: Tally) -> ASGIApp:
    """A page that fails is answered with 500 if nothing was answered yet."""
    call = registered_call(
        plugin,
        HOOK,
        f"plugin {plugin!r}, page {name!r}",
        page,
        arguments=("scope", "receive", "send"),
        tally=tally,
    )

    async def run(scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await ask(call, (scope, receive, sending))
        except PluginError:
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
