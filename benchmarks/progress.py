"""What the benchmarks say on stderr while they run: the step they are at, and how far it is.

On a terminal that is one line, written over and over; elsewhere a line for each step, and one every ten
seconds of a long one, so that a log shows that it goes on.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

_TERMINAL = sys.stderr.isatty()
EVERY = 0.2 if _TERMINAL else 10.0  # seconds between two counts


@dataclass(slots=True)
class _Line:
    started: float
    step: str = ""
    shown_at: float = 0.0

    def show(self, text: str) -> None:
        self.shown_at = time.monotonic()
        line = f"{self.shown_at - self.started:5.0f} s  {text}"
        sys.stderr.write(f"\r\x1b[K{line} ..." if _TERMINAL else f"{line}\n")
        sys.stderr.flush()


_line = _Line(time.monotonic())  # a process has one stderr


def progress(step: str) -> None:
    """A new step begins."""
    _line.step = step
    _line.show(step)


def counted(done: int, of: int) -> None:
    """So many of what the step has to do are done. May be called for each of them."""
    if time.monotonic() - _line.shown_at >= EVERY:
        _line.show(f"{_line.step}: {done:,} of {of:,}")


def finished() -> None:
    """The terminal's line is free again."""
    if _TERMINAL:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
