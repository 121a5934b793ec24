"""A message that a filter changes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway import Address, AddressError
from gateway_milter.protocol import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    Edit,
    InsertHeader,
    MilterError,
    Quarantine,
    ReplaceBody,
)

MAX_HEADER = 1 << 18  # bytes
MAX_FIELDS = 2000
MAX_EDITS = 1000  # but for pieces of the body
MAX_BODY = 1 << 26  # bytes

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
_NAME = re.compile(rb"[!-9;-~]{1,200}")
_VALUE = re.compile(rb"[^\r\n\0]*(?:\r\n[ \t][^\r\n\0]*)*")
_BREAK = re.compile(rb"\r?\n")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a header. What is not changed keeps its bytes, `raw`."""

    name: bytes
    value: bytes  # all that follows the colon, without the last line end
    raw: bytes


@dataclass(slots=True)
class Draft:
    """A message as it stands. `quarantine` is None until a filter has a reason to let it wait."""

    sender: Address
    recipients: list[Address]
    fields: list[Field]
    body: bytes
    utf8: bool  # SMTPUTF8: header fields may be more than ASCII
    quarantine: str | None = None
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _rest: bytes = b""  # a CR, whose LF may be in the next piece
    _edits: int = 0

    @classmethod
    def of(cls, data: bytes, sender: Address, recipients: tuple[Address, ...], *, utf8: bool) -> Draft:
        """Raises MilterError for a header that cannot be taken apart."""
        end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n", 0, MAX_HEADER) + 2
        found = [Field(one[1], one[2], one[0]) for one in _FIELD.finditer(data, 0, end)]
        if end == 1 or len(found) > MAX_FIELDS or sum(len(one.raw) for one in found) != end:
            raise MilterError(
                f"its header is none, or has more than {MAX_HEADER} bytes or {MAX_FIELDS} fields"
            )
        return cls(sender, list(recipients), found, data[end + 2 :], utf8)

    def data(self) -> bytes:
        return b"".join(one.raw for one in self.fields) + b"\r\n" + self.new_body()

    def new_body(self) -> bytes:
        if not self._pieces:
            return self.body
        return b"".join(self._pieces) + (b"\r\n" if self._rest else b"")

    def apply(self, edit: Edit, *, leading_space: bool) -> None:
        """Makes a change. Raises MilterError. `leading_space`: values come with the space after the colon."""
        if isinstance(edit, ReplaceBody):
            self._replace_body(edit.chunk)
            return
        self._edits += 1
        if self._edits > MAX_EDITS:
            raise MilterError(f"a filter makes more than {MAX_EDITS} changes")
        match edit:
            case AddHeader(name, value):
                self.fields.append(self._field(name, value, leading_space))
            case InsertHeader(index, name, value):
                self.fields.insert(max(0, index - 1), self._field(name, value, leading_space))
            case ChangeHeader():
                self._change_header(edit, leading_space)
            case AddRecipient(text):
                if (added := _address(text)) not in self.recipients:
                    self.recipients.append(added)
            case DeleteRecipient(text):
                gone = _address(text)
                self.recipients = [one for one in self.recipients if one != gone]
            case ChangeSender(text):
                self.sender = _address(text)
            case Quarantine(reason):
                self.quarantine = reason or "no reason given"

    def _change_header(self, edit: ChangeHeader, leading_space: bool) -> None:
        name = edit.name.lower()
        same = [at for at, one in enumerate(self.fields) if one.name.lower() == name]
        which = max(0, edit.index - 1)
        if which >= len(same):  # as libmilter has it: one that is not there is added
            if edit.value:
                self.fields.append(self._field(edit.name, edit.value, leading_space))
        elif edit.value:
            self.fields[same[which]] = self._field(edit.name, edit.value, leading_space)
        else:
            del self.fields[same[which]]

    def _field(self, name: bytes, value: bytes, leading_space: bool) -> Field:
        value = _BREAK.sub(b"\r\n", value)  # filters write LF, as they are given it
        if not _NAME.fullmatch(name):
            raise MilterError(f"a filter writes a header field with the name {name[:40]!r}")
        if not _VALUE.fullmatch(value) or not (self.utf8 or value.isascii()):
            raise MilterError(f"a filter writes a value of {name.decode()} that a header field cannot have")
        if not leading_space:
            value = b" " + value
        return Field(name, value, name + b":" + value + b"\r\n")

    def _replace_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_BODY:
            raise MilterError(f"a filter writes a body of more than {MAX_BODY} bytes")
        chunk = self._rest + chunk
        self._rest = b"\r" if chunk.endswith(b"\r") else b""
        lines = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._pieces.append(lines.replace(b"\n", b"\r\n"))


def _address(text: str) -> Address:
    try:
        return Address.parse(text.strip().removeprefix("<").removesuffix(">"))
    except AddressError as exc:
        raise MilterError(f"a filter writes an address into the envelope that is none: {exc}") from None
