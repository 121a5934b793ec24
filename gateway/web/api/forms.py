"""The three forms of a request's body, read as they arrive: each piece is decoded before the next is taken.

What is kept is the request object's JSON and the files; the body itself never is as a whole.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Protocol

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from gateway.web.api.calls import FilePart, UploadedFile
from gateway.web.api.errors import BadRequest, protocol_error

MAX_PARTS = 1_000  # of a multipart body; webapi.md's largest message has far fewer files
MAX_PART_HEAD = 64 * 1024  # bytes; also of what stands before the first part
MAX_PIECE = 64 * 1024  # bytes decoded at a time
MAX_FIELD_NAME = 100  # bytes
MAX_BOUNDARY = 70  # characters, RFC 2046, 5.1.1

_FILE_PARTS: dict[str, FilePart] = {
    "alternativefile": "alternativefile",
    "inlinefile": "inlinefile",
    "attachedfile": "attachedfile",
}
_MULTIPART_FIELDS = "request, alternativefile, inlinefile or attachedfile"


@dataclass(frozen=True, slots=True)
class Form:
    """A body's content: the request object as JSON, and files."""

    request: bytes
    files: tuple[UploadedFile, ...] = ()


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
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)

    def finish(self) -> Form:
        return Form(b"".join(self._pieces))


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
        self._value: list[bytes] | None = None

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
            self._value, data = [], rest
        if b"&" in data:
            raise protocol_error(
                "form: only the one field request is expected; an & in its value must be %26"
            )
        # An escape may continue in the next piece.
        cut = data.rfind(b"%", len(data) - 2)
        cut = len(data) if cut < 0 else cut
        self._value.append(percent_decode(data[:cut]))
        self._rest = data[cut:]

    def finish(self) -> Form:
        if self._value is None:
            raise self._wrong_field(self._rest)
        self._value.append(percent_decode(self._rest))
        return Form(b"".join(self._value))

    @staticmethod
    def _wrong_field(name: bytes) -> BadRequest:
        if not name:
            return protocol_error("form: the field request is missing")
        shown = name[:MAX_FIELD_NAME].decode("ascii", "replace")
        return protocol_error(f"form: unknown field {shown!a}; expected request=... with the JSON object")


class MultipartReader:
    """multipart/form-data (RFC 7578) with the field `request` and files."""

    def __init__(self, boundary: str) -> None:
        if not boundary or len(boundary) > MAX_BOUNDARY or not boundary.isascii():
            raise protocol_error(
                f"Content-Type: multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters"
            )
        self._decoder = MultipartDecoder(boundary.encode(), MAX_PIECE + MAX_PART_HEAD, max_parts=MAX_PARTS)
        self._part: Field | File | None = None
        self._data: list[bytes] = []
        self._request: bytes | None = None
        self._files: list[UploadedFile] = []
        self._counts: dict[str, int] = {}

    def feed(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PIECE):
            self._feed(data[start : start + MAX_PIECE])

    def finish(self) -> Form:
        self._feed(None)
        if self._request is None:
            raise protocol_error("form: the part request is missing")
        return Form(self._request, tuple(self._files))

    def _feed(self, data: bytes | None) -> None:
        try:
            self._decoder.receive_data(data)
            while True:
                event = self._decoder.next_event()
                match event:
                    case NeedData() | Epilogue():
                        return
                    case Field() | File():
                        self._start(event)
                    case Data():
                        self._data.append(event.data)
                        if not event.more_data:
                            self._end()
        except HTTPException:
            raise protocol_error(
                f"form: more than {MAX_PARTS} parts, or one with more than {MAX_PART_HEAD} bytes of headers"
            ) from None
        except ValueError:
            raise protocol_error(
                "form: malformed multipart/form-data: a part without Content-Disposition, headers not in"
                " UTF-8, or no closing boundary"
            ) from None

    def _start(self, part: Field | File) -> None:
        if part.name == "request":
            if self._request is not None:
                raise protocol_error("form: the part request is there twice")
        elif part.name not in _FILE_PARTS:
            raise protocol_error(
                f"form: unknown part {(part.name or '')[:MAX_FIELD_NAME]!a}; expected {_MULTIPART_FIELDS}"
            )
        encoding = part.headers.get("Content-Transfer-Encoding", "binary").lower()
        if encoding not in ("7bit", "8bit", "binary"):  # RFC 7578, 4.7 has deprecated all others
            raise protocol_error(
                f"form: the part {part.name} has a Content-Transfer-Encoding; send it as it is"
            )
        self._part = part

    def _end(self) -> None:
        assert self._part is not None
        part, data = self._part, b"".join(self._data)
        self._data = []
        if part.name == "request":
            self._request = data
            return
        index = self._counts.get(part.name, 0)
        self._counts[part.name] = index + 1
        name = part.filename if isinstance(part, File) else ""
        self._files.append(
            UploadedFile(
                part=_FILE_PARTS[part.name],
                index=index,
                name=re.split(r"[/\\]", name)[-1],  # no path of the client's, RFC 7578, 4.2
                content_type=part.headers.get("Content-Type", ""),
                content_id=part.headers.get("Content-ID", ""),
                data=data,
            )
        )
