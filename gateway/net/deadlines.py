"""Time limits of many waits that nearly all end in time.

To move the deadline of a trio cancel scope takes more than a microsecond each time, since trio keeps all of
them in order. Here a deadline is only noted, and one task looks through the notes when the earliest may have
come: a server waits for its clients thousands of times a second, and once in minutes for too long.
"""

import math
from typing import Never

import trio


class Deadlines:
    """Cancels scopes whose deadlines are over, while `serve` runs. Times are those of trio.current_time()."""

    def __init__(self) -> None:
        self._noted: dict[trio.CancelScope, float] = {}
        self._look = trio.CancelScope()  # ends when it is time for the next look
        self._next = math.inf  # no later than the earliest deadline

    def set(self, scope: trio.CancelScope, deadline: float) -> None:
        """In place of the scope's earlier one, if it has one here."""
        self._noted[scope] = deadline
        if deadline < self._next:
            self._next = self._look.deadline = deadline

    def clear(self, scope: trio.CancelScope) -> None:
        self._noted.pop(scope, None)

    async def serve(self) -> Never:
        """Runs until it is cancelled."""
        while True:
            with trio.CancelScope(deadline=self._next) as self._look:
                await trio.sleep_forever()
            now = trio.current_time()
            over = [scope for scope, deadline in self._noted.items() if deadline <= now]
            for scope in over:
                del self._noted[scope]
                scope.cancel()
            self._next = min(self._noted.values(), default=math.inf)
