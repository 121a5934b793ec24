"""The control socket's ASGI application: finds the command, parses what was asked, answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.config.load import describe
from gateway.errors import GatewayError

MAX_BODY = 1024 * 1024  # bytes


class Request(BaseModel):
    """What a command is asked; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Empty(Request):
    pass


class CommandFailed(GatewayError):
    """What was asked cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Command:
    request: type[Request]
    run: Callable[[Any], Awaitable[Mapping[str, Any]]]  # takes a `request`; raises GatewayError, ValueError


class CommandGroup(Protocol):
    """What is about one thing: the queue, hold rules, webhook calls."""

    def commands(self) -> Mapping[str, Command]:
        """By path, such as "queue/list"."""


class ControlApp:
    """The ASGI application."""

    def __init__(self, *groups: CommandGroup) -> None:
        self._commands = {path: command for group in groups for path, command in group.commands().items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, answer = await self._answer(scope, receive)
        body = json.dumps(answer, default=_json).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, Mapping[str, Any]]:
        command = self._commands.get(scope["path"].strip("/"))
        if command is None or scope["method"] != "POST":
            return 404, {"Message": f"there is no command {scope['path']!r}"}
        body = bytearray()
        while True:
            event = await receive()
            body += event.get("body", b"")
            if len(body) > MAX_BODY:
                return 400, {"Message": "the request is too large"}
            if not event.get("more_body"):
                break
        try:
            return 200, await command.run(command.request.model_validate_json(bytes(body)))
        except ValidationError as exc:
            return 400, {"Message": describe(exc, command.request)}
        except (GatewayError, ValueError) as exc:
            return 400, {"Message": str(exc)}


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value))
