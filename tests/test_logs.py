"""Lines of the log: nothing that a peer sent starts a line, or moves a terminal's cursor."""

from __future__ import annotations

import logging
import sys

from gateway.logs import MAX_LINE, _Formatter

HOSTILE = "a\r\n2026-01-01 00:00:00,000 INFO gateway: all is well\x1b[2J\u202e"


def formatted(message: str, *arguments: object, exc_info: bool = False, color: bool = False) -> str:
    info = sys.exc_info() if exc_info else None
    record = logging.LogRecord("gateway", logging.ERROR, __file__, 1, message, arguments, info)
    return _Formatter(color).format(record)


def test_a_message_is_one_line() -> None:
    line = formatted("from %s", HOSTILE)
    assert line.isprintable()
    assert line.endswith(
        r"ERROR gateway: from a\r\n2026-01-01 00:00:00,000 INFO gateway: all is well\x1b[2J\u202e"
    )
    assert len(formatted("x" * 100_000)) == MAX_LINE + len(" ...")


def test_an_exception_is_indented() -> None:
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError:
        first, *traceback = formatted("failed", exc_info=True).split("\n")
    assert first.endswith("ERROR gateway: failed")
    assert len(traceback) > 3
    assert all(line.startswith("  ") and line.isprintable() for line in traceback)
    assert traceback[0] == "  Traceback (most recent call last):"


def test_colours() -> None:
    assert formatted("x", color=True).startswith("\x1b[31m")
    assert "\x1b" not in formatted("x")
