"""Hints from one worker to the others that there may be something to do for them.

Datagrams on socket pairs that the supervisor made: one that finds no room is lost. What happens often is
told once in a while; and each hint twice, as a hint is given when a write is handed in, and may be there
before its commit.

Failed logins are told in the same way, each once and at once: all workers count all of them.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal, get_args

import trio

# What there may be to do: mail to deliver and calls to make, for which the one who tells has no place, or not
# the role; events, for those who follow them; logins to forget, as a password or an API key was changed.
Hint = Literal["mail", "calls", "events", "logins"]
HINTS: tuple[Hint, ...] = get_args(Hint)
SOON = 0.005  # seconds after which a hint is told: its commit takes less
TOGETHER = 0.02  # seconds between two times: hints in between become one
AGAIN = 0.2  # seconds until they are told again
_FAILED_LOGIN = b"\xff"  # in place of a hint; the network follows
_MAX_DATAGRAM = 256  # bytes


class Hints:
    """A worker's ear, and the other workers' ears."""

    def __init__(self, others: Sequence[socket.socket], own: socket.socket | None) -> None:
        self._others, self._own = others, own
        self._untold: set[Hint] = set()
        self._changed = trio.Event()

    def tell(self, hint: Hint) -> None:
        """Has the other workers look, soon."""
        if self._others:
            self._untold.add(hint)
            self._changed.set()

    def tell_failed_login(self, network: str) -> None:
        """Has the other workers count it."""
        self._send(_FAILED_LOGIN + network.encode())

    async def serve(
        self, heard: Mapping[Hint, Callable[[], None]], failed_login: Callable[[str], None]
    ) -> None:
        """Tell, and call what is there for each hint that is heard, until cancelled."""
        if self._own is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            nursery.start_soon(self._hear, trio.socket.from_stdlib_socket(self._own), heard, failed_login)

    async def _tell(self) -> None:
        again: dict[Hint, float] = {}  # told once, and when it is told again (trio.current_time())
        free = -math.inf  # when it may tell the next
        while True:
            with trio.move_on_at(min(again.values(), default=math.inf)):
                await self._changed.wait()
            await trio.sleep_until(max(free, trio.current_time() + SOON))
            now = trio.current_time()
            free = now + TOGETHER
            self._changed = trio.Event()
            untold, self._untold = self._untold, set()
            due = {hint for hint, at in again.items() if at <= now}
            self._send(bytes(HINTS.index(hint) for hint in untold | due))
            again = {hint: at for hint, at in again.items() if hint not in due}
            again |= dict.fromkeys(untold, now + AGAIN)

    def _send(self, message: bytes) -> None:
        for other in self._others:
            with suppress(OSError):  # it does not listen, or has enough to do
                other.send(message, socket.MSG_DONTWAIT)

    async def _hear(
        self,
        own: trio.socket.SocketType,
        heard: Mapping[Hint, Callable[[], None]],
        failed_login: Callable[[str], None],
    ) -> None:
        while True:
            message = await own.recv(_MAX_DATAGRAM)
            if message.startswith(_FAILED_LOGIN):
                failed_login(message.removeprefix(_FAILED_LOGIN).decode())
                continue
            for number in message:
                heard[HINTS[number]]()
