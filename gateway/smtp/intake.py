"""The message that a server is reading: what of it is taken, and why it is not."""

from gateway.smtp.chunks import ChunkDecoder
from gateway.smtp.data import DataDecoder, DataFault
from gateway.smtp.events import DataChunk, DataRefused
from gateway.smtp.replies import Reply
from gateway.smtp.server_rules import ServerLimits


class Intake:
    """One message on its way in. `refusal`: it is read for nothing, and answered with this at its end.

    By DATA it is read to its end. `chunked`, by BDAT: a chunk is read to its end, and then perhaps another.
    """

    def __init__(self, limits: ServerLimits, *, chunked: bool = False) -> None:
        self._limits = limits
        self._chunks: ChunkDecoder | None = None
        self._decoder: DataDecoder | ChunkDecoder
        if chunked:
            self._decoder = self._chunks = ChunkDecoder(limits.max_message_size, limits.max_line)
        else:
            self._decoder = DataDecoder(limits.max_message_size, limits.max_line)
        self.reading = not chunked  # what comes now is of the message
        self.refusal: Reply | None = None

    def begin_chunk(self, size: int, *, last: bool) -> bool:
        """A chunk comes now. False if nobody wants to read that much."""
        assert self._chunks is not None
        if self._chunks.received + size > self._most:
            self.refusal = self.refusal or too_large(self._limits)
            return False
        self._chunks.begin(size, last=last)
        self.reading = True
        return True

    @property
    def waiting(self) -> bool:
        """There is more to be read: of an empty chunk there is not."""
        return self._chunks is None or self._chunks.left > 0

    @property
    def finished(self) -> bool:
        """What is read now has been read to its end: the message, or a chunk of it."""
        return self._decoder.finished

    @property
    def complete(self) -> bool:
        """It was the end of the message, too."""
        return self.finished and (self._chunks is None or self._chunks.last)

    @property
    def rest(self) -> bytes:
        """What came behind it."""
        return self._decoder.rest

    @property
    def endless(self) -> bool:
        """It is refused, and its end is further away than anybody wants to read."""
        return self.refusal is not None and not self.finished and self._decoder.received > self._most

    @property
    def _most(self) -> int:
        return self._limits.max_message_size + self._limits.max_discard

    def read(self, data: bytes) -> DataChunk | DataRefused | None:
        """Take octets from the wire; an event when the caller has to know."""
        piece = self._decoder.feed(data)
        if self.refusal is not None:
            return None
        if self._decoder.fault is not None:
            self.refusal = self._refusal_for(self._decoder.fault)
            return DataRefused(self.refusal)
        return DataChunk(piece) if piece else None

    def chunk_reply(self) -> Reply:
        """To a chunk that is taken and is not the last."""
        return Reply(250, "2.0.0", (f"{self._decoder.received} octets received",))

    def _refusal_for(self, fault: DataFault) -> Reply:
        match fault:
            case DataFault.TOO_LARGE:
                return too_large(self._limits)
            case DataFault.BARE_CR_OR_LF:
                return Reply(550, "5.6.0", ("Message has a bare CR or LF; lines must end in CR LF",))
            case DataFault.LINE_TOO_LONG:
                return Reply(
                    550, "5.6.0", (f"Message has a line longer than {self._limits.max_line} octets",)
                )


def too_large(limits: ServerLimits) -> Reply:
    return Reply(552, "5.3.4", (f"Message is larger than {limits.max_message_size} octets",))
