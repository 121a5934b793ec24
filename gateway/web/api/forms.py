"""The three forms of a request's body, read as they arrive: each piece is decoded before the next is taken.

What is kept is the request object's JSON and the files; the body itself never is as a whole. They grow in
place: in a list, the pieces would leave holes that small objects keep from being given back.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Protocol

from werkzeug.http import parse_options_header

from gateway.web.api.calls import UploadedFile
from gateway.web.api.errors import BadRequest, protocol_error
from gateway.web.api.multipart import MultipartParts

MAX_PIECE = 64 * 1024  # bytes decoded at a time
MAX_FIELD_NAME = 100  # bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A body's content: the request object as JSON, and files."""

    request: bytes | bytearray
    files: tuple[UploadedFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.request) + sum(len(file.data) for file in self.files)


class FormReader(Protocol):
    def feed(self, data: bytes) -> None:
        """The next piece of the body. Raises BadRequest."""

    def finish(self) -> Form:
        """After the last piece. Raises BadRequest."""


def form_reader(content_type: str) -> FormReader:
    """The reader for a Content-Type. Raises BadRequest for one that no method takes."""
    media_type, parameters = parse_options_header(content_type)
    match media_type.lower():
        case "application/x-www-form-urlencoded":
            return UrlencodedReader()
        case "multipart/form-data":
            return MultipartReader(parameters.get("boundary", ""))
        case "application/json":
            return JsonReader()
    raise protocol_error(
        f"Content-Type: is {media_type[:100]!a}; expected application/x-www-form-urlencoded or"
        " multipart/form-data with the field request, or application/json"
    )


class JsonReader:
    """application/json: the body is the request object."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._body += data

    def finish(self) -> Form:
        return Form(self._body)


_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def percent_decode(data: bytes) -> bytes:
    """application/x-www-form-urlencoded text without its "&" and "=". Raises BadRequest."""
    data = data.replace(b"+", b" ")
    if b"%" not in data:
        return data
    broken = _BROKEN_ESCAPE.search(data)
    if broken is not None:
        shown = data[broken.start() : broken.start() + 3].decode("ascii", "replace")
        raise protocol_error(f"form: {shown!a} is no percent escape (% and two hexadecimal digits)")
    # Quoted-printable decoding does the same to "=XX", ten times as fast as anything for "%XX".
    return binascii.a2b_qp(data.replace(b"=", b"=3D").replace(b"%", b"="))


class UrlencodedReader:
    """application/x-www-form-urlencoded (WHATWG URL, 5.1) with the one field `request`."""

    def __init__(self) -> None:
        self._rest = b""  # of a name, or of an escape cut in two
        self._in_value = False
        self._value: bytearray | None = None

    def feed(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PIECE):
            self._feed(data[start : start + MAX_PIECE])

    def _feed(self, data: bytes) -> None:
        data = self._rest + data
        if self._value is None:
            name, equals, rest = data.partition(b"=")
            if not equals:
                if len(data) > MAX_FIELD_NAME:
                    raise self._wrong_field(data)
                self._rest = data
                return
            if percent_decode(name) != b"request":
                raise self._wrong_field(name)
            self._value, data = bytearray(), rest
        if b"&" in data:
            raise protocol_error(
                "form: only the one field request is expected; an & in its value must be %26"
            )
        # An escape may continue in the next piece.
        cut = data.rfind(b"%", len(data) - 2)
        cut = len(data) if cut < 0 else cut
        self._value += percent_decode(data[:cut])
        self._rest = data[cut:]

    def finish(self) -> Form:
        if self._value is None:
            raise self._wrong_field(self._rest)
        self._value += percent_decode(self._rest)
        return Form(self._value)

    @staticmethod
    def _wrong_field(name: bytes) -> BadRequest:
        if not name:
            return protocol_error("form: the field request is missing")
        shown = name[:MAX_FIELD_NAME].decode("ascii", "replace")
        return protocol_error(f"form: unknown field {shown!a}; expected request=... with the JSON object")


class MultipartReader:
    """multipart/form-data with the part `request` and files."""

    def __init__(self, boundary: str) -> None:
        self._parts = MultipartParts(boundary)

    def feed(self, data: bytes) -> None:
        self._parts.feed(data)

    def finish(self) -> Form:
        self._parts.finish()
        if self._parts.request is None:
            raise protocol_error("form: the part request is missing")
        return Form(self._parts.request, tuple(self._parts.files))
