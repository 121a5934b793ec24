"""Splits a byte stream into lines, with memory bounded by one line and the last chunk fed.

A line ends at LF, and the ending is part of what is returned: whether a bare LF will do is for the caller
to say. A line over the limit is reported once, as soon as that is known, and skipped up to its LF, so that
the reader stays in step with the peer.
"""


class LineTooLongError(Exception):
    """The line being read is over the limit; what is left of it will be skipped."""


class LineReader:
    """A buffer of received bytes from which lines, or everything, can be taken.

    `limit` is in bytes and includes the line's ending. It may change between two lines.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = b""
        self._start = 0  # bytes before this have been taken; cutting them off each time would be quadratic
        self._skipping = False

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._start :] + data if self._start < len(self._buffer) else data
        self._start = 0

    def next_line(self) -> bytes | None:
        """Take a line with its ending; None when there is no complete one.

        Raises LineTooLongError once for each line over the limit.
        """
        while True:
            end = self._buffer.find(b"\n", self._start) + 1
            if self._skipping:
                self._start = end or len(self._buffer)
                if not end:
                    return None
                self._skipping = False
                continue
            if (end or len(self._buffer)) - self._start > self.limit:
                self._start = end or len(self._buffer)
                self._skipping = not end
                raise LineTooLongError
            if not end:
                return None
            line = self._buffer[self._start : end]
            self._start = end
            return line

    def take(self) -> bytes:
        """Take everything that is buffered."""
        data = self._buffer[self._start :] if self._start else self._buffer
        self._buffer, self._start = b"", 0
        return data

    def __len__(self) -> int:
        return len(self._buffer) - self._start
