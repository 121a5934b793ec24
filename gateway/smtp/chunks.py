"""Message data on the wire by BDAT (RFC 3030): chunks of an announced size, sent as they are.

BINARYMIME is not spoken, so a message is lines here too, and a CR or LF that is not part of a CRLF a fault:
what came in by chunks may go out by DATA, where it would be an invitation to SMTP smuggling. A CRLF may be
split between two chunks, and a chunk may be empty.
"""

from gateway.smtp.data import DataFault, Measure, has_bare_line_end


class ChunkDecoder:
    """Puts chunks together to a message, and looks for faults. The limits are those of `DataDecoder`.

    A last line without CRLF gets one, as by DATA.
    """

    def __init__(self, max_size: int | None = None, max_line: int | None = None) -> None:
        self._measure = Measure(max_size, max_line)
        self._held = b""  # a CR, until it is known what follows
        self._within_line = False
        self._left = 0
        self.last = False  # the chunk is the message's last
        self.finished = False  # all of the chunk was read
        self.received = 0  # octets so far, of all chunks
        self.fault: DataFault | None = None  # of several, the one found first
        self.rest = b""  # what came after the chunk

    @property
    def left(self) -> int:
        """Octets of the chunk that are still to come."""
        return self._left

    def begin(self, size: int, *, last: bool) -> None:
        """A chunk of this size is to be fed, at least once, even if it is empty."""
        self._left, self.last, self.finished = size, last, False

    def feed(self, data: bytes) -> bytes:
        """Take octets from the wire; return octets of the message (none once there is a fault)."""
        taken, self.rest = data[: self._left], data[self._left :]
        self._left -= len(taken)
        self.received += len(taken)
        self.finished = not self._left
        if self.fault is not None:
            return b""
        piece = self._held + taken
        ends = self.last and self.finished
        held = 1 if piece.endswith(b"\r") and not ends else 0
        piece, self._held = piece[: len(piece) - held], piece[len(piece) - held :]
        if piece:
            self._within_line = not piece.endswith(b"\n")
        if has_bare_line_end(piece):
            self.fault = DataFault.BARE_CR_OR_LF
            return b""
        if ends and self._within_line:
            piece += b"\r\n"
        self.fault = self._measure.fault(piece)
        return b"" if self.fault else piece


class ChunkEncoder:
    """Sends a message as one chunk of this size, given in pieces, with the command before the first.

    Raises ValueError for a bare CR or LF, and for a message of another size: the server would take commands
    for a part of it, or a part of it for commands.
    """

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self.command = f"BDAT {size} LAST"
        self._held = f"{self.command}\r\n".encode()  # not sent yet: at first this, later a CR perhaps

    def feed(self, message: bytes) -> bytes:
        """Octets for the wire; one may wait for the next call."""
        self._left -= len(message)
        if self._left < 0:
            raise ValueError(f"message has more than the {self._size} octets that were announced")
        piece = self._held + message
        held = 1 if piece.endswith(b"\r") else 0
        piece, self._held = piece[: len(piece) - held], piece[len(piece) - held :]
        if has_bare_line_end(piece):
            raise ValueError("message has a bare CR or LF")
        return piece

    def finish(self) -> bytes:
        """The rest, when the message is complete."""
        if self._held == b"\r":
            raise ValueError("message ends in a bare CR")
        if self._left:
            raise ValueError(
                f"message has {self._left} octets less than the {self._size} that were announced"
            )
        return self._held
