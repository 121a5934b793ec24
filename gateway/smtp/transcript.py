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

# Almost no transcript is ever read: what can be kept as it came becomes text only when asked for.
_Line = Reply | tuple[str, str]  # a reply of one line; or a mark and what it is before


class _Part:
    __slots__ = ("_count", "_first", "_last")

    def __init__(self) -> None:
        self._first: list[_Line] = []
        self._last: deque[_Line] | None = None
        self._count = 0

    def add(self, line: _Line) -> None:
        self._count += 1
        if len(self._first) < _FIRST:
            self._first.append(line)
        else:
            if self._last is None:
                self._last = deque(maxlen=_LAST)
            self._last.append(line)

    def lines(self) -> list[str]:
        last = self._last or ()
        left_out = self._count - len(self._first) - len(last)
        between = [f"({left_out} lines left out)"] if left_out else []
        return [*map(_text, self._first), *between, *map(_text, last)]


class Transcript:
    """Lines such as `> MAIL FROM:<a@example.org>`, `< 250 2.1.0 OK` and `* connection closed`."""

    def __init__(self) -> None:
        self._opening = _Part()
        self._current = self._opening

    def begin_transaction(self) -> None:
        """Forget the last transaction."""
        self._current = _Part()

    def sent(self, line: str) -> None:
        self._current.add((">", line))

    def received(self, reply: Reply) -> None:
        if len(reply.lines) < 2:
            self._current.add(reply)
            return
        prefix = f"{reply.enhanced} " if reply.enhanced else ""
        for line in reply.lines[:-1]:
            self._current.add(("<", f"{reply.code}-{prefix}{line}"[:_WIDTH]))
        self._current.add(("<", f"{reply.code} {prefix}{reply.lines[-1]}"[:_WIDTH]))

    def note(self, text: str) -> None:
        self._current.add(("*", text))

    def __str__(self) -> str:
        current = [] if self._current is self._opening else self._current.lines()
        return "\n".join((*self._opening.lines(), *current))


def _text(line: _Line) -> str:
    if isinstance(line, Reply):
        prefix = f"{line.enhanced} " if line.enhanced else ""
        return f"< {line.code} {prefix}{line.lines[0] if line.lines else ''}"[:_WIDTH]
    return f"{line[0]} {line[1]}"[:_WIDTH]
