"""Reading a request's body, within limits: judged by its Content-Length before a byte is read, counted as it
comes, and held against what all bodies together may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio

from gateway.web.api.errors import RETRY_AFTER, BadRequest, HttpError, protocol_error
from gateway.web.api.forms import Form, form_reader

Receive = Callable[[], Awaitable[dict[str, Any]]]

SMALL_BODY = 1024 * 1024  # bytes; below this a body needs no reservation, so that small calls always pass
BODY_OVERHEAD = (
    1024 * 1024
)  # bytes of a request beside the message: 10,000 recipients still get a better answer
DISCARD = 64 * 1024  # bytes of an unwanted body that are read to keep the connection
CHECKPOINT = 1024 * 1024  # bytes between two turns of the loop


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete: nobody waits for an answer."""


class BodyBudget:
    """The memory that large bodies share. Who finds too little is told to come again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reserved = 0  # bytes

    @contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """Held until the request is answered, not only until its body is read."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.reserved -= reservation.size

    def take(self, size: int, own: int) -> None:
        """Reserve `size` bytes more for one that has `own` already."""
        # A body over the whole limit would otherwise never be taken.
        if self.reserved > own and self.reserved + size > self._limit:
            raise HttpError(
                503,
                f"too many large requests at a time; try again in {RETRY_AFTER} seconds",
                {"Retry-After": str(RETRY_AFTER), "Connection": "close"},
            )
        self.reserved += size


class Reservation:
    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def grow(self, size: int) -> None:
        """Cover `size` bytes in all. Raises HttpError 503."""
        if size > SMALL_BODY and size > self.size:
            self._budget.take(size - self.size, self.size)
            self.size = size


def largest_body(content_type: str, max_message_size: int) -> int:
    """The bytes that a request for a message of `max_message_size` may need.

    Base64 takes about as much in JSON as in a message. Escapes (\\uXXXX, %XX) can double or treble a text.
    """
    return max_message_size * (3 if "urlencoded" in content_type.lower() else 2) + BODY_OVERHEAD


async def read_form(
    headers: Mapping[bytes, bytes], receive: Receive, max_message_size: int, reservation: Reservation
) -> Form:
    """The body of a request. Raises BadRequest, HttpError, ClientGoneError."""
    complete = False
    since_checkpoint = size = 0
    try:
        limit = _judge(headers, max_message_size, reservation)
        reader = form_reader(headers.get(b"content-type", b"").decode("latin-1"))
        while not complete:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientGoneError
            complete = not event.get("more_body", False)
            data: bytes = event.get("body", b"")
            size += len(data)
            if size > limit:
                raise _too_large(max_message_size)
            reservation.grow(size)
            reader.feed(data)
            since_checkpoint += len(data)
            if since_checkpoint > CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()
        return reader.finish()
    except BadRequest as exc:
        exc.close = exc.close or not complete
        raise


def _judge(headers: Mapping[bytes, bytes], max_message_size: int, reservation: Reservation) -> int:
    """The bytes that the body may have. Raises for what is known to be wrong before reading any."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise protocol_error("Content-Encoding: not supported; send the body as it is")
    limit = largest_body(headers.get(b"content-type", b"").decode("latin-1"), max_message_size)
    length = content_length(headers)
    if length is not None:
        if length > limit:
            raise _too_large(max_message_size)
        reservation.grow(length)
    return limit


async def discard(headers: Mapping[bytes, bytes], receive: Receive) -> bool:
    """Read a body that nobody wants if it is short. False: the connection has to end with the answer."""
    length = content_length(headers)
    if b"transfer-encoding" in headers or (length or 0) > DISCARD:
        return False
    while length:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGoneError
        if not event.get("more_body", False):
            break
    return True


def content_length(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise protocol_error("Content-Length: expected a number of bytes")
    return int(text)


def _too_large(max_message_size: int) -> BadRequest:
    return BadRequest(
        "messageTooLarge", f"the request holds a message of more than {max_message_size} bytes", close=True
    )
