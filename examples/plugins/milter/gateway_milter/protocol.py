"""The milter protocol's frames: four bytes of length, one of command, and data.

There is no standard. The constants are those of Sendmail's libmilter (mfdef.h, mfapi.h), which filters are
written with.
"""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass

from gateway import Reject

VERSION = 6
OLDEST = 2
MAX_FRAME = 1 << 17  # bytes that a filter may send at a time; its body comes in pieces of 64 KiB
CHUNK = 65535  # bytes of the body that it is sent at a time


class MilterError(Exception):
    """The filter said something that the protocol does not have, or that we did not agree on."""


class Action(enum.IntFlag):
    """What a filter may do to a message (SMFIF_*)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENT = 0x04
    DELETE_RECIPIENT = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40


CONTENT = Action.ADD_HEADERS | Action.CHANGE_HEADERS | Action.CHANGE_BODY
ENVELOPE = Action.ADD_RECIPIENT | Action.DELETE_RECIPIENT | Action.CHANGE_SENDER


class Step(enum.IntFlag):
    """What a filter does not want to be told or asked (SMFIP_*)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_EOH = 0x40
    SILENT_HEADERS = 0x80  # told, without an answer; so below
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400  # it may have enough of the body
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_EOH = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000  # values of fields with the space after the colon


ALL_STEPS = sum(Step)


# --- What we send --------------------------------------------------------------------------------


def frame(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", len(data) + 1) + command + data


def texts(*parts: str | bytes) -> bytes:
    """Each with a NUL after it. Raises MilterError for one that has a NUL in it."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    if any(b"\0" in part for part in encoded):
        raise MilterError("a filter cannot be told of a NUL")
    return b"".join(part + b"\0" for part in encoded)


def offer(actions: Action) -> bytes:
    return frame(b"O", struct.pack("!III", VERSION, actions, ALL_STEPS))


def connected(host: str, address: str) -> bytes:
    """Who hands the message in; without a port, as it may be nobody's."""
    family = b"6" if ":" in address else b"4"
    return frame(b"C", texts(host) + family + struct.pack("!H", 0) + texts(address))


def macros(command: bytes, values: dict[str, str]) -> bytes:
    return frame(b"D", command + texts(*(part for pair in values.items() for part in pair)))


# --- What a filter sends -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreed:
    version: int
    actions: Action
    steps: Step


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on; at the end of the message: take it."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Take it, and tell me no more."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Enough of the body."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Wait for me."""


@dataclass(frozen=True, slots=True)
class AddHeader:
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class InsertHeader:
    index: int  # before this one of the message's fields, from 1; 0 is before all, too
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class ChangeHeader:
    index: int  # which of the fields of this name, from 1
    name: bytes
    value: bytes  # empty: it goes


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    chunk: bytes  # a piece of the new body, which may come in many


@dataclass(frozen=True, slots=True)
class AddRecipient:
    address: str


@dataclass(frozen=True, slots=True)
class DeleteRecipient:
    address: str


@dataclass(frozen=True, slots=True)
class ChangeSender:
    address: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    reason: str


Edit = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | ReplaceBody
    | AddRecipient
    | DeleteRecipient
    | ChangeSender
    | Quarantine
)
Said = Continue | Accept | Skip | Reject | Edit
Answer = Said | Progress

# What a filter must have asked for when the connection began.
NEEDED: dict[type, Action] = {
    AddHeader: Action.ADD_HEADERS,
    InsertHeader: Action.ADD_HEADERS,
    ChangeHeader: Action.CHANGE_HEADERS,
    ReplaceBody: Action.CHANGE_BODY,
    AddRecipient: Action.ADD_RECIPIENT,
    DeleteRecipient: Action.DELETE_RECIPIENT,
    ChangeSender: Action.CHANGE_SENDER,
    Quarantine: Action.QUARANTINE,
}
# What a filter discards is refused: nothing that was taken is lost.
VERDICTS: dict[bytes, Answer] = {
    b"c": Continue(),
    b"a": Accept(),
    b"s": Skip(),
    b"p": Progress(),
    b"r": Reject(550, "5.7.1", "refused by a filter"),
    b"d": Reject(550, "5.7.1", "refused by a filter, which would discard it"),
    b"t": Reject(451, "4.7.1", "a filter asks for another try later"),
    b"4": Reject(451, "4.3.2", "a filter shuts down"),
    b"f": Reject(451, "4.3.2", "a filter has failed"),
}
_REPLY = re.compile(rb"([45]\d\d)[ -]?(?:([45]\.\d{1,3}\.\d{1,3})(?: |$))?([^\r\n]*)")


def length(four: bytes) -> int:
    """Of the frame that begins so. Raises MilterError, before anything is waited for."""
    [size] = struct.unpack("!I", four)
    if not 1 <= size <= MAX_FRAME:
        raise MilterError(f"a filter announced a frame of {size} bytes, not of 1 to {MAX_FRAME}")
    return int(size)


def agreed(body: bytes, offered: Action) -> Agreed:
    """The answer to an offer. Raises MilterError."""
    if body[:1] != b"O" or len(body) < 13:
        raise MilterError("a filter did not answer the offer with one of its own")
    version, actions, steps = struct.unpack("!III", body[1:13])
    if not OLDEST <= version <= VERSION:
        raise MilterError(f"a filter speaks version {version} of the protocol, not {OLDEST} to {VERSION}")
    if actions & ~int(offered):
        raise MilterError(f"a filter wants to do what it may not do here: {actions & ~int(offered):#x}")
    if steps & ~ALL_STEPS:
        raise MilterError(f"a filter wants steps that there are not: {steps & ~ALL_STEPS:#x}")
    return Agreed(version, Action(actions), Step(steps))


def answer(body: bytes) -> Answer:
    """One frame, without its length. Raises MilterError."""
    command, data = body[:1], body[1:]
    if command in VERDICTS:
        return VERDICTS[command]
    if command == b"b":
        return ReplaceBody(data)
    if command in (b"i", b"m"):
        if len(data) < 4:
            raise MilterError("a filter's change of a header has no index")
        [index] = struct.unpack("!I", data[:4])
        name, value = _strings(data[4:], 2)
        return (InsertHeader if command == b"i" else ChangeHeader)(index, name, value)
    if command == b"h":
        return AddHeader(*_strings(data, 2))
    if command == b"y":
        return _reply(_strings(data, 1)[0])
    if command == b"+":
        return AddRecipient(_text(_strings(data, 1)[0]))
    if command == b"-":
        return DeleteRecipient(_text(_strings(data, 1)[0]))
    if command == b"q":
        return Quarantine(_text(_strings(data, 1)[0]))
    if command == b"e":  # parameters may follow, which are not for us
        return ChangeSender(_text(data.partition(b"\0")[0]))
    raise MilterError(f"a filter answered {command!r}, which there is not")


def _strings(data: bytes, count: int) -> list[bytes]:
    parts = data.split(b"\0", count + 1)
    if len(parts) != count + 1 or parts[-1] != b"":
        raise MilterError(f"a filter's answer has not the {count} texts that it is to have")
    return parts[:-1]


def _text(said: bytes) -> str:
    text = said[:1000].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)


def _reply(line: bytes) -> Reject:
    """An SMTP reply in the filter's words; of several lines the first."""
    found = _REPLY.match(line)
    if found is None:
        raise MilterError("a filter's reply is no SMTP reply that refuses")
    code, enhanced = int(found[1]), (found[2] or b"").decode()
    return Reject(code, enhanced or f"{code // 100}.7.1", _text(found[3]).strip() or "refused by a filter")
