"""The message that a server is reading: what of it is taken, and why it is not."""

from gateway.smtp.data import DataDecoder, DataFault
from gateway.smtp.events import DataChunk, DataRefused
from gateway.smtp.replies import Reply
from gateway.smtp.server_rules import ServerLimits


class Intake:
    """One message on its way in. `refusal`: it is read for nothing, and answered with this at its end."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._decoder = DataDecoder(limits.max_message_size, limits.max_line)
        self.refusal: Reply | None = None

    @property
    def finished(self) -> bool:
        """All of it has been read."""
        return self._decoder.finished

    @property
    def rest(self) -> bytes:
        """What came behind it."""
        return self._decoder.rest

    @property
    def endless(self) -> bool:
        """It is refused, and its end is further away than anybody wants to read."""
        limit = self._limits.max_message_size + self._limits.max_discard
        return self.refusal is not None and not self.finished and self._decoder.received > limit

    def read(self, data: bytes) -> DataChunk | DataRefused | None:
        """Take octets from the wire; an event when the caller has to know."""
        chunk = self._decoder.feed(data)
        if self.refusal is not None:
            return None
        if self._decoder.fault is not None:
            self.refusal = self._refusal_for(self._decoder.fault)
            return DataRefused(self.refusal)
        return DataChunk(chunk) if chunk else None

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
