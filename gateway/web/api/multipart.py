"""multipart/form-data (RFC 7578, RFC 2046 section 5.1) read as it arrives.

Werkzeug's decoder would be the library for this, but what it gives depends on where the body was cut into
pieces: cut inside a delimiter, a part can end with a "\\r" that nobody sent. Files must arrive as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from werkzeug.http import parse_options_header

from gateway.web.api.calls import FilePart, UploadedFile
from gateway.web.api.errors import protocol_error

MAX_PARTS = 1001  # the request and 1,000 files
MAX_PART_HEAD = 16 * 1024  # bytes of a part's header section; also of a delimiter's line
MAX_BOUNDARY = 70  # characters, RFC 2046, 5.1.1
MAX_NAME_SHOWN = 40  # characters

_FILE_PARTS: dict[str, FilePart] = {
    "alternativefile": "alternativefile",
    "inlinefile": "inlinefile",
    "attachedfile": "attachedfile",
}
# After the boundary: the end of the whole ("--"), or the end of the line.
_DELIMITER_REST = re.compile(rb"--|[ \t]*+\r\n")
_DELIMITER_REST_BEGUN = re.compile(rb"-?|[ \t]*+\r?")
_CONTINUATION = re.compile(r"\r\n[ \t]+")


class MultipartParts:
    """Takes the body's pieces; has the part `request` and the files. Every method may raise BadRequest."""

    def __init__(self, boundary: str) -> None:
        if not boundary or len(boundary) > MAX_BOUNDARY or not boundary.isascii():
            raise protocol_error(
                f"Content-Type: multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters"
            )
        self.request: bytearray | None = None
        self.files: list[UploadedFile] = []
        self._delimiter = b"\r\n--" + boundary.encode()
        # The line end before the first delimiter may be left out.
        self._buffer = bytearray(b"\r\n")
        self._step: Callable[[], bool] = self._content
        self._in_part = False  # False: before the first part
        self._head: dict[str, str] = {}  # of the part under way, names in lower case
        self._disposition: dict[str, str] = {}  # the parameters of its Content-Disposition
        self._data = bytearray()
        self._parts = 0
        self._counts: dict[str, int] = {}

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> None:
        if self._step != self._epilogue:
            raise protocol_error("form: the closing boundary is missing")
        del self._step  # with it, this is a cycle, and what was read would wait for the collector

    # Each step works on the buffer's beginning and says whether to go on (with the next step).

    def _content(self) -> bool:
        """What stands before a delimiter: a part's data."""
        buffer = self._buffer
        found = buffer.find(self._delimiter)
        if found < 0:
            self._take(len(buffer) - len(self._delimiter) + 1)
            return False
        self._take(found)
        after = len(self._delimiter)
        rest = _DELIMITER_REST.match(buffer, after)
        if rest is not None:
            closing, end = rest[0] == b"--", rest.end()
            del rest, buffer[:end]  # in this order: a match keeps its buffer from shrinking
            if self._in_part:
                self._end()
            self._in_part = True
            self._step = self._epilogue if closing else self._header
            return True
        if len(buffer) < MAX_PART_HEAD and _DELIMITER_REST_BEGUN.fullmatch(buffer, after):
            return False
        self._take(len("\r\n"))  # it only begins like a delimiter
        return True

    def _header(self) -> bool:
        """A part's header section, up to its empty line."""
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_PART_HEAD)
        if end < 0:
            if len(self._buffer) >= MAX_PART_HEAD:
                raise protocol_error(f"form: a part's headers have more than {MAX_PART_HEAD} bytes")
            return False
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise protocol_error(f"form: more than {MAX_PARTS} parts")
        self._start(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._step = self._content
        return True

    def _epilogue(self) -> bool:
        self._buffer.clear()
        return False

    # What the steps find.

    def _take(self, size: int) -> None:
        """The buffer's first `size` bytes are a part's data, or nobody's."""
        if size > 0:
            if self._in_part:
                self._data += self._buffer[:size]
            del self._buffer[:size]

    def _start(self, section: bytes) -> None:
        """A part begins: judge it by its header."""
        try:
            lines = _CONTINUATION.sub(" ", section.decode()).split("\r\n")
        except UnicodeDecodeError:
            raise protocol_error("form: a part's headers are not in UTF-8") from None
        self._head = {}
        for line in lines:
            name, _, value = line.partition(":")
            self._head.setdefault(name.strip().lower(), value.strip())
        self._disposition = parse_options_header(self._head.get("content-disposition"))[1]
        name = self._disposition.get("name", "")
        if name != "request" and name not in _FILE_PARTS:
            raise protocol_error(
                f"form: unknown part {name[:MAX_NAME_SHOWN]!a}; expected request, {', '.join(_FILE_PARTS)}"
            )
        if name == "request" and self.request is not None:
            raise protocol_error("form: the part request is there twice")
        encoding = self._head.get("content-transfer-encoding", "binary").lower()
        if encoding not in ("7bit", "8bit", "binary"):  # RFC 7578, 4.7 has deprecated all others
            raise protocol_error(f"form: the part {name} has a Content-Transfer-Encoding; send it as it is")

    def _end(self) -> None:
        """A part is complete."""
        data, self._data = self._data, bytearray()
        name = self._disposition["name"]
        if name == "request":
            self.request = data
            return
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        self.files.append(
            UploadedFile(
                part=_FILE_PARTS[name],
                index=index,
                # No path of the client's, RFC 7578, 4.2.
                name=re.split(r"[/\\]", self._disposition.get("filename", ""))[-1],
                content_type=self._head.get("content-type", ""),
                content_id=self._head.get("content-id", ""),
                data=data,
            )
        )
