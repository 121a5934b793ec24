"""The files of a Send: decoded, and encoded as the message has them, piece by piece.

No file is anywhere as a whole but where it came in and in the message; the event loop has its turns.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence

import trio

from gateway.mail.compose import File
from gateway.mail.content_type import SNIFFED
from gateway.mail.transfer import encode_base64
from gateway.web.api import models
from gateway.web.api.calls import FilePart, UploadedFile
from gateway.web.api.errors import protocol_error

LINES = 16 * 1024  # of base64 between two turns of the loop: some 5 ms
_DECODED, _ENCODED = 57 * LINES, 76 * LINES  # bytes and characters that these lines take

_LINE_ENDS = str.maketrans("", "", "\r\n")


async def read_files(
    part: FilePart, field: str, entries: Sequence[models.File], uploaded: Sequence[UploadedFile]
) -> list[File]:
    """The files of one kind: first those of the request object, then those that came in parts.

    Raises BadRequest `protocol` for what is no base64.
    """
    files = [
        await _encoded(
            entry.Name, entry.ContentType, entry.ContentID, _decode(f"{field}[{index}].Data", entry.Data)
        )
        for index, entry in enumerate(entries)
    ]
    for file in uploaded:
        if file.part == part:
            files.append(await _encoded(file.name, file.content_type, file.content_id, _cut(file.data)))
    return files


async def _encoded(name: str, content_type: str, content_id: str, pieces: Iterator[bytes]) -> File:
    """`pieces` are whole lines, but for the last."""
    head, encoded = b"", []
    for index, piece in enumerate(pieces):
        if index:
            await trio.lowlevel.checkpoint()
        else:
            head = piece[: SNIFFED + 1]  # one more, so that it shows whether there is more
        encoded.append(encode_base64(piece))
    return File(name, content_type, content_id, head, tuple(encoded))


def _cut(data: bytes | bytearray) -> Iterator[bytes]:
    for start in range(0, len(data), _DECODED):
        yield bytes(data[start : start + _DECODED])


def _decode(field: str, text: str) -> Iterator[bytes]:
    """RFC 4648, section 4, padded; line ends are ignored. Raises BadRequest `protocol`."""
    if "\n" in text or "\r" in text:
        text = text.translate(_LINE_ENDS)
    padding = text.find("=")
    if len(text) % 4 or (padding >= 0 and padding < len(text) - 2):
        raise protocol_error(
            f"{field}: is not base64: its length is no multiple of 4, or = is not at its end"
        )
    for start in range(0, len(text), _ENCODED):
        try:
            piece = binascii.a2b_base64(text[start : start + _ENCODED], strict_mode=True)
        except ValueError:
            raise protocol_error(f"{field}: is not base64 (RFC 4648, section 4)") from None
        yield piece
