"""Pages about the API, for people: the list of methods, for each one a form to try it, and an account's
webhooks. One for operators.

Nothing here calls a method: the pages' scripts post to the API itself, as any client does.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from quart import Quart, Response, abort, redirect, render_template, request
from quart_trio import QuartTrio
from werkzeug.wrappers import Response as WerkzeugResponse

from gateway.accounts.logins import parse_basic
from gateway.web.api.methods import Method
from gateway.web.api.services import Unsubscriber
from gateway.web.openapi import PATH, make_document
from gateway.web.unsubscribe import add_unsubscribe_page

# No inline script or style, nothing from elsewhere, in no frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DEFAULT_LOGIN = "you@example.org"
WEBHOOKS = "webhooks"
MAX_LOGIN = 320  # characters
MAX_FORM = 64 * 1024  # bytes of what is posted to a page


Rows = Sequence[Mapping[str, Any]]


def make_pages(
    methods: Mapping[str, Method],
    base_path: str,
    unsubscriber: Unsubscriber,
    example_login: str = "",
    plugins: Callable[[], Awaitable[Rows]] | None = None,
) -> Quart:
    """The Quart application for the pages; `base_path` is the API's, with a slash at both ends.

    `plugins`: what the page about plugins shows; without it there is no such page.
    """
    app = QuartTrio(__name__, static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_FORM
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}

    @app.after_request
    async def protect(response: Response) -> Response:
        headers = response.headers
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "same-origin"
        # What a page shows depends on who asks under which name.
        headers["Cache-Control"] = "no-cache"
        return response

    @app.errorhandler(404)
    async def not_found(_: Exception) -> tuple[str, int]:
        return await render_template("not_found.html", base=base_path), 404

    async def home() -> str:
        return await render_template("home.html", base=base_path, plugins=plugins is not None)

    async def method_list() -> str:
        return await render_template("methods.html", base=base_path, methods=methods.values())

    document = cache(partial(make_document, methods, base_path))

    async def openapi() -> Response:
        return Response(json.dumps(document()), content_type="application/json")

    async def method_page(name: str) -> str:
        method = methods.get(name)
        if method is None:
            abort(404)
        example = method.example_request
        if isinstance(method.example_response, str):
            response = method.example_response
        else:
            response = method.example_response.model_dump_json(indent=2)
        login = _login() or example_login or DEFAULT_LOGIN
        return await render_template(
            "method.html",
            base=base_path,
            method=method,
            request_json=json.dumps(example, indent=2, ensure_ascii=False),
            response=response,
            curl=curl_command(f"{_origin()}{base_path}{name}", login, example),
        )

    async def webhook_page() -> str:
        return await render_template("webhooks.html", base=base_path)

    if plugins is not None:

        async def plugin_page() -> str:
            return await render_template("plugins.html", base=base_path, rows=await plugins())

        app.add_url_rule("/plugins", "plugins", plugin_page)
    app.add_url_rule(base_path, "methods", method_list)
    app.add_url_rule(base_path + PATH, "openapi", openapi)
    app.add_url_rule(base_path + WEBHOOKS, "webhooks", webhook_page)
    app.add_url_rule(f"{base_path}<name>", "method", method_page)
    add_unsubscribe_page(app, unsubscriber)
    if base_path != "/":
        app.add_url_rule("/", "home", home)
    parent = base_path.rstrip("/").rpartition("/")[0] + "/"
    if parent not in ("/", base_path):

        async def up() -> WerkzeugResponse:
            return redirect(base_path, 303)

        app.add_url_rule(parent, "up", up)
    return app


def curl_command(url: str, login: str, example: Mapping[str, object]) -> str:
    """A command line for a POSIX shell that calls a method with its example."""
    body = "request=" + json.dumps(example, ensure_ascii=False)
    arguments = ("--user " + shlex.quote(login), "--data-urlencode " + shlex.quote(body), shlex.quote(url))
    return "curl " + " \\\n  ".join(arguments)


def _origin() -> str:
    """Where the reader reached us. This ends up in a command line that people paste; the dispatcher has
    refused whatever names no host."""
    host = request.headers.get("Host", "") or "localhost"
    forwarded = request.headers.get("X-Forwarded-Proto", "")
    scheme = forwarded if forwarded in ("http", "https") else request.scheme
    return f"{scheme}://{host}"


def _login() -> str:
    """The user name that the browser sent along, unchecked: it is shown to that reader only."""
    credentials = parse_basic(request.headers.get("Authorization", ""))
    login = credentials[0] if credentials is not None else ""
    return login if "@" in login and len(login) <= MAX_LOGIN and login.isprintable() else ""
