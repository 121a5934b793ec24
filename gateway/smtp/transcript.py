"""What was said on a connection, for people who look into a failure.

Only commands and replies are kept, never message data or credentials; and of one connection only the opening
and the last transaction, so that nobody sees another sender's recipients. Both parts are bounded: the first
lines and the last lines stay, what is between is counted.
"""

from collections import deque

from gateway.smtp.replies import Reply

_FIRST = 40  # lines
_LAST = 40
_WIDTH = 300  # characters of a line


class _Part:
    def __init__(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_LAST)
        self._count = 0

    def add(self, line: str) -> None:
        self._count += 1
        if len(self._first) < _FIRST:
            self._first.append(line[:_WIDTH])
        else:
            self._last.append(line[:_WIDTH])

    def lines(self) -> list[str]:
        left_out = self._count - len(self._first) - len(self._last)
        return [*self._first, *([f"({left_out} lines left out)"] if left_out else []), *self._last]


class Transcript:
    """Lines such as `> MAIL FROM:<a@example.org>`, `< 250 2.1.0 OK` and `* connection closed`."""

    def __init__(self) -> None:
        self._opening = _Part()
        self._current = self._opening

    def begin_transaction(self) -> None:
        """Forget the last transaction."""
        self._current = _Part()

    def sent(self, line: str) -> None:
        self._current.add(f"> {line}")

    def received(self, reply: Reply) -> None:
        prefix = f"{reply.enhanced} " if reply.enhanced else ""
        lines = reply.lines or ("",)
        for line in lines[:-1]:
            self._current.add(f"< {reply.code}-{prefix}{line}")
        self._current.add(f"< {reply.code} {prefix}{lines[-1]}")

    def note(self, text: str) -> None:
        self._current.add(f"* {text}")

    def __str__(self) -> str:
        current = [] if self._current is self._opening else self._current.lines()
        return "\n".join((*self._opening.lines(), *current))
