"""Reads the answers that a receiver sends on one connection (RFC 9112). No I/O.

httptools (llhttp, the parser of Node.js) does the reading. Of a header section only Retry-After is kept: so a
receiver cannot make it cost memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools

MAX_EXCERPT = 512  # bytes of an answer that are kept
MAX_RETRY_AFTER = 100  # characters

_SWITCHING = 101


@dataclass(slots=True)
class Received:
    """What has come of the answer to one request, so far."""

    size: int = 0  # bytes, 1xx answers included
    status: int = 0  # of the final answer; 0 until its header section is complete
    excerpt: bytearray = field(default_factory=bytearray)  # the start of its body
    complete: bool = False  # with all of its body
    reusable: bool = False  # complete, and the connection can be used again
    retry_after: str = ""  # its field of that name


class NotHttp(Exception):
    """What came is no proper answer; the text is for people."""


class AnswerReader:
    """One for each connection. `expect` an answer, then `feed` until it is complete."""

    def __init__(self) -> None:
        self._received = Received()
        self._parser = httptools.HttpResponseParser(self)
        # Faults that are old and clear: folded header lines, a length beside chunks (the chunks count), lines
        # without CR. What they are dangerous for is proxies, whose neighbours may read them differently.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_chunked_length=True, lenient_optional_cr_before_lf=True
        )

    def expect(self, received: Received) -> None:
        """From now on what comes is the answer that `received` describes."""
        self._received = received

    def feed(self, data: bytes | bytearray) -> None:
        """Take what came, in pieces of any size. Raises NotHttp; a status known by then still counts."""
        self._received.size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._received.reusable = False
            # What a callback raises comes as the context of the library's own error.
            ours = exc.__context__
            raise ours if isinstance(ours, NotHttp) else NotHttp(str(exc)) from None

    # --- Callbacks of httptools. It takes 1xx answers for messages like any other.

    def on_message_begin(self) -> None:
        if self._received.complete:
            # Were the connection used again, this would be taken for the answer to the next request.
            raise NotHttp("there is more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._received.retry_after = value[:MAX_RETRY_AFTER].decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 100:
            raise NotHttp(f"there is no status {status:03}")
        if status == _SWITCHING:
            raise NotHttp("it switches to another protocol, for which nobody asked")
        if status >= 200:
            self._received.status = status

    def on_body(self, data: bytes) -> None:
        excerpt = self._received.excerpt
        excerpt += data[: MAX_EXCERPT - len(excerpt)]

    def on_message_complete(self) -> None:
        if self._received.status:
            self._received.complete = True
            self._received.reusable = self._parser.should_keep_alive()
