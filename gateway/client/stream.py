"""The stream of events (docs/webapi.md), followed over breaks: each time it goes on from its cursor."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Never
from urllib.parse import urlencode, urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    DisconnectionTimeout,
    HandshakeError,
    open_websocket_url,
)

from gateway.client.exchange import ApiError

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a connection is tried again
MAX_MESSAGE = 16 * 1024 * 1024  # bytes: incoming mail has its text in its event

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Streamed:
    """An event, and the cursor with which the stream goes on after it. No payload: where it begins."""

    cursor: str
    payload: dict[str, Any] | None


async def follow(
    url: str,
    secret: str,
    login: str = "",
    *,
    tell: Callable[[Streamed], Awaitable[None]],
    cursor: str | None = None,
    events: Sequence[str] = (),
) -> Never:
    """Tells the account's events, for ever: from now on, or after `cursor` ("": all that are kept).

    `url`, `secret` and `login` are as `Client` takes them. Raises ApiError for what another try does not
    mend, and what `tell` raises.
    """
    parts = urlsplit(url)
    base = parts._replace(scheme={"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)).geturl()
    credentials = base64.b64encode(f"{login}:{secret}".encode()).decode()
    authorization = f"Basic {credentials}" if login else f"Bearer {secret}"
    headers = [(b"Authorization", authorization.encode())]
    wait = FIRST_WAIT
    while True:
        query = {} if cursor is None else {"cursor": cursor}
        if events:
            query["events"] = ",".join(events)
        try:
            opened = open_websocket_url(
                f"{base}events?{urlencode(query)}", extra_headers=headers, max_message_size=MAX_MESSAGE
            )
            async with opened as socket:
                while True:
                    told = json.loads(await socket.get_message())
                    cursor, wait = told["Cursor"], FIRST_WAIT
                    await tell(Streamed(told["Cursor"], told["Event"]))
        except ConnectionRejected as exc:
            if exc.status_code not in (429, 502, 503, 504):
                raise _refusal(exc) from None
            reason = f"status {exc.status_code}"
        except ConnectionClosed as exc:
            reason = exc.reason.reason if exc.reason is not None and exc.reason.reason else "it was closed"
        except (HandshakeError, DisconnectionTimeout, OSError, trio.TooSlowError) as exc:
            reason = str(exc) or type(exc).__name__
        log.warning("the stream of events broke off: %s; again in %g s", reason, wait)
        await trio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def _refusal(exc: ConnectionRejected) -> ApiError:
    try:
        said = json.loads(exc.body or b"")
        return ApiError(exc.status_code, said["Code"], said["Message"])
    except (ValueError, KeyError, TypeError):
        return ApiError(exc.status_code, "", "the stream of events was refused")
