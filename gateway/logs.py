"""Logging to standard error, a line each; nothing that a peer sent can start a line of its own."""

from __future__ import annotations

import logging
import time
from typing import Any

_COLORS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
MAX_LINE = 4000  # characters, before a traceback


class _Formatter(logging.Formatter):
    """Time, level, logger and message on a line: what logging's own makes of a format, in half the time."""

    def __init__(self, color: bool, worker: int | None = None) -> None:
        super().__init__()
        self._which = "" if worker is None else f"worker {worker} "
        self._color = color
        self._second = (0, "")  # the last one that a line was of, and its text

    def format(self, record: logging.LogRecord) -> str:
        level, name, message = record.levelname, record.name, record.getMessage()
        text = _printable(f"{self._time(record)} {self._which}{level} {name}: {message}")
        if len(text) > MAX_LINE:
            text = text[:MAX_LINE] + " ..."
        start = _COLORS.get(record.levelno) if self._color else None
        if start:
            text = f"{start}{text}\x1b[0m"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Indented: what an exception says of a peer's data looks like no line of the log."""
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).split("\n"))

    def _time(self, record: logging.LogRecord) -> str:
        """In local time; a second is put into words once."""
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03d}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def set_up_logging(level: str, *, color: bool = False, worker: int | None = None) -> None:
    """Log from `level` on ("debug", "info", "warning", "error"). Each line says which `worker` it is from."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(color, worker))
    # Nothing that no line shows (logging's HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # no looking for the caller's line
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "hypercorn", "quart"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
