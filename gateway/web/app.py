"""The gateway's web application (ASGI): every POST to the API takes the short way here, pages go to Quart.

A call in order: is it from another site's page? who calls? which method? Only then is its body read, the
request parsed, the method run, and the answer written. No other way leads to a method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from gateway.errors import GatewayError
from gateway.outbound.unsubscribe import PATH as UNSUBSCRIBE
from gateway.web.added_pages import added_page
from gateway.web.admission import Headers, check_scope, is_host, log_in
from gateway.web.api.body import BodyBudget, ClientGoneError, discard, read_form
from gateway.web.api.calls import Call, Stream
from gateway.web.api.errors import ErrorAnswer, HttpError, error_answer, protocol_error
from gateway.web.api.idempotency import IdempotencyKeys, check_key
from gateway.web.api.jsontypes import Request, Response, parse_request
from gateway.web.api.methods import METHODS, Method
from gateway.web.api.services import Login, Services
from gateway.web.event_stream import PATH as EVENTS
from gateway.web.event_stream import EventStreams
from gateway.web.http1 import ASGIApp
from gateway.web.pages import Rows, make_pages

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of every answer of the API: it is this account's business only, and what it says it is.
_EVERY_ANSWER = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_JSON = (b"content-type", b"application/json; charset=utf-8")


class WebApp:
    """The ASGI application. One for the process; give it to `gateway.web.server.serve_http`."""

    def __init__(
        self,
        services: Services,
        methods: Mapping[str, Method] = METHODS,
        *,
        example_login: str = "",
        plugins: Callable[[], Awaitable[Rows]] | None = None,
        pages: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        """`example_login` is who the pages' examples log in as, "user:password" or only a user. `plugins`
        answers what the page about plugins shows; without it there is none. `pages` are
        those that plugins added, by name, with the plugin's."""
        web = services.settings.web
        self._services, self._methods, self._base = services, methods, web.base_path
        self._max_message_size = services.settings.queue.max_message_size
        self._budget = BodyBudget(web.memory_for_bodies)
        self._idempotency_keys = IdempotencyKeys()
        self._streams = EventStreams(services)
        self._added = pages or {}
        self._pages: ASGIApp = make_pages(
            methods, web.base_path, services.unsubscriber, example_login, plugins
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        added = added_page(self._added, scope.get("path", ""))
        if added is not None:
            root, page = added
            await page({**scope, "root_path": root}, receive, send)
        elif scope["type"] == "websocket" and scope["path"] == self._base + EVENTS:
            await self._streams(scope, receive, send)
        elif scope["type"] != "http":
            await self._pages(scope, receive, send)
        elif self._is_of_pages(scope["path"]) or scope["method"] == "GET":
            if is_host(dict(scope["headers"]).get(b"host", b"")):
                await self._pages(scope, receive, send)
            else:
                refusal = HttpError(400, "Host: is not the name or address of a host")  # RFC 9112, 3.2
                await _send_error(send, error_answer(refusal, ""), close=True)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            refusal = HttpError(405, "use POST to call, GET for a page about it", {"Allow": "GET, POST"})
            await _send_error(send, error_answer(refusal, ""), close=True)

    def _is_of_pages(self, path: str) -> bool:
        # With the base path "/", too.
        return not path.startswith(self._base) or path.startswith(f"/{UNSUBSCRIBE}")

    async def _post(self, scope: Message, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        name = scope["path"][len(self._base) :]
        with self._budget.reservation() as reservation:
            admitted = False
            try:
                login, method = await self._admit(scope, headers, name)
                admitted = True
                form = await read_form(headers, receive, self._max_message_size, reservation)
                if form.files and not method.takes_files:
                    raise protocol_error(f"form: {name} takes no files")
                request = await parse_request(method.request, form.request, self._services.offload)
                call = Call(login=login, services=self._services, files=form.files, size=form.size)
                del form  # of a large request, half the memory
                answer = await self._run(call, method, request, headers.get(b"idempotency-key"))
                body = b"" if isinstance(answer, Stream) else to_json(answer)
            except ClientGoneError:
                return
            except Exception as exc:
                error = error_answer(exc, f"POST {name[:100]!a}")
                await _send_error(send, error, close=not admitted and not await _discarded(headers, receive))
                return
        if isinstance(answer, Stream):
            await _send_stream(send, answer)
        else:
            await _send(send, 200, [_JSON], body)

    async def _run(
        self, call: Call, method: Method, request: Request, key: bytes | None
    ) -> Response | Stream:
        if key is None or not method.keeps_answer or method.response is None:
            return await method.handler(call, request)
        checked = check_key(key.decode("latin-1"))
        return await self._idempotency_keys.once(
            call, checked, request, method.response, lambda keyed: method.handler(keyed, request)
        )

    async def _admit(self, scope: Message, headers: Headers, name: str) -> tuple[Login, Method]:
        """Who calls, and what. Raises the errors that precede every method."""
        login = await log_in(self._services.accounts, scope, headers)
        method = self._methods.get(name)
        if method is None:
            raise HttpError(404, f"there is no such method; GET {self._base} lists them")
        check_scope(login, method.scope, name)
        return login, method


def to_json(answer: Response) -> bytes:
    return answer.__pydantic_serializer__.to_json(answer)


async def _discarded(headers: Headers, receive: Receive) -> bool:
    """Whether the connection can go on after an answer to a request whose body nobody wanted."""
    try:
        return await discard(headers, receive)
    except (ClientGoneError, GatewayError):
        return False


async def _send_error(send: Send, error: ErrorAnswer, *, close: bool) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    if close and "Connection" not in error.headers:
        headers.append((b"connection", b"close"))
    await _send(send, error.status, [_JSON, *headers], error.body)


async def _send(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, length, *_EVERY_ANSWER]}
    )
    await send({"type": "http.response.body", "body": body})


async def _send_stream(send: Send, answer: Stream) -> None:
    """What goes wrong from here on can only end the connection: the server does that."""
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", b"%d" % answer.size),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()),
        *_EVERY_ANSWER,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
