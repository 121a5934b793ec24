r"""Message data on the wire by DATA: dot-stuffing and the end of data (RFC 5321 sections 4.5.2 and 4.1.1.4).

How it goes by BDAT is in `chunks`.

Three rules keep both directions safe against SMTP smuggling:

1. The only end of data is CRLF "." CRLF; the CRLF that ended the DATA command counts as its first CRLF.
2. A CR or LF that is not part of a CRLF is a fault: a message with one is neither taken nor sent.
3. Data with a fault is read on to its true end and thrown away, so that the session stays in step.

Both directions work on chunks with searches at C speed. A chunk's tail that may be the start of something
(CR LF . CR) is held back and put before the next chunk, so no chunk boundary is ever visible. The CRLF before
the first line is put into the buffer too, and left out of the output.
"""

from enum import Enum

_END = b"\r\n.\r\n"


class DataFault(Enum):
    """Why message data can't be taken."""

    TOO_LARGE = "too large"
    BARE_CR_OR_LF = "bare CR or LF"
    LINE_TOO_LONG = "line too long"


def has_bare_line_end(piece: bytes) -> bool:
    """Whether there is a CR or LF that is no part of a CRLF. No CRLF may be split between two pieces."""
    pairs = piece.count(b"\r\n")
    return piece.count(b"\r") != pairs or piece.count(b"\n") != pairs


class Measure:
    """Counts the octets of a message that comes in pieces, and of its lines."""

    def __init__(self, max_size: int | None, max_line: int | None) -> None:
        self._max_size, self._max_line = max_size, max_line
        self._line = 0  # octets so far of the line in progress
        self.size = 0  # octets of the message so far

    def fault(self, message: bytes) -> DataFault | None:
        """What is wrong with the message now that this piece of it has come."""
        self.size += len(message)
        if self._max_size is not None and self.size > self._max_size:
            return DataFault.TOO_LARGE
        if self._max_line is not None and self._has_long_line(message, self._max_line):
            return DataFault.LINE_TOO_LONG
        return None

    def _has_long_line(self, message: bytes, limit: int) -> bool:
        """Leap from line end to line end, each time as far as a line may reach: limit octets and CRLF."""
        start = -self._line
        while (reach := start + limit + 2) <= len(message):
            end = message.rfind(b"\n", max(start, 0), reach)
            if end < 0:
                return True
            start = end + 1
        end = message.rfind(b"\n", max(start, 0))
        self._line = len(message) - (start if end < 0 else end + 1)
        return False


class DataDecoder:
    """Removes dot-stuffing, finds the end of data, and looks for faults.

    `max_size` is the most octets that a message may have, without dot-stuffing (RFC 1870 section 5);
    `max_line` the most octets of a line without CRLF. None is unlimited.
    """

    def __init__(self, max_size: int | None = None, max_line: int | None = None) -> None:
        self._measure = Measure(max_size, max_line)
        self._held = b"\r\n"
        self._skip = 2  # octets at the start of the next output that were never sent: the first CRLF
        self.received = 0  # octets from the wire so far
        self.fault: DataFault | None = None  # of several, the one found first: as the data came
        self.finished = False
        self.rest = b""  # what came after the end of data

    @property
    def size(self) -> int:
        """Octets of the message so far."""
        return self._measure.size

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; return octets of the message (none once there is a fault)."""
        buffer = self._held + data
        end = buffer.find(_END)
        if end >= 0:
            self.finished = True
            self.rest = buffer[end + len(_END) :]
            self._held = b""
            self.received += len(data) - len(self.rest)
            piece = buffer[: end + 2]
        else:
            held = _held_back(buffer)
            piece = buffer[: len(buffer) - held]
            self._held = buffer[len(buffer) - held :]
            self.received += len(data)
        if self.fault is not None or not piece:
            return b""
        # A CRLF is never split between two pieces: a CR at the end of the buffer is held back.
        if has_bare_line_end(piece):
            self.fault = DataFault.BARE_CR_OR_LF
            return b""
        message = piece.replace(b"\r\n.", b"\r\n")
        if self._skip:
            message, self._skip = message[self._skip :], 0
        self.fault = self._measure.fault(message)
        return b"" if self.fault else message


class DataEncoder:
    """Adds dot-stuffing and the end of data to a message given in chunks.

    Raises ValueError for a bare CR or LF: to mend it would break signatures, to send it invites smuggling.
    """

    def __init__(self) -> None:
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, message: bytes) -> bytes:
        """Octets for the wire; up to two octets wait for the next call."""
        if not message:
            return b""
        buffer = self._held + message
        held = 2 if buffer.endswith(b"\r\n") else 1 if buffer.endswith(b"\r") else 0
        piece = buffer[: len(buffer) - held]
        self._held = buffer[len(buffer) - held :]
        if has_bare_line_end(piece):
            raise ValueError("message has a bare CR or LF")
        data = piece.replace(b"\r\n.", b"\r\n..")
        if self._skip and piece:
            data, self._skip = data[self._skip :], 0
        return data

    def finish(self) -> bytes:
        """The rest of the message, a CRLF when its last line lacks one, and the end of data."""
        if self._held == b"\r":
            raise ValueError("message ends in a bare CR")
        return b".\r\n" if self._skip else _END


def _held_back(buffer: bytes) -> int:
    """How many octets at the end of the buffer may be the start of the end of data."""
    if buffer[-1:] not in _END:
        return 0
    for length in range(len(_END) - 1, 0, -1):
        if buffer.endswith(_END[:length]):
            return length
    return 0
