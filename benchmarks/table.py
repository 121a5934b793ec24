"""Lines of the table that the benchmarks print."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    value: str
    yardstick: str = ""
    ratio: str = ""
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """What one round came to: messages a second, and milliseconds of processor time for each."""

    rate: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, {self.cpu:.1f} ms CPU"


def compared(name: str, measured: Sequence[Figure], beside: Sequence[Figure], aim: str = "") -> Row:
    """The medians of several rounds, and that of the rounds' ratios."""
    ratios = [figure.rate / other.rate for figure, other in zip(measured, beside, strict=True)]
    return Row(name, str(_median(measured)), str(_median(beside)), f"{statistics.median(ratios):.2f}", aim)


def _median(figures: Sequence[Figure]) -> Figure:
    return Figure(statistics.median(f.rate for f in figures), statistics.median(f.cpu for f in figures))


def show(rows: Iterable[Row]) -> None:
    header = Row("what", "gateway", "yardstick", "ratio", "aim")
    table = [(r.name, r.value, r.yardstick, r.ratio, r.aim) for r in (header, *rows)]
    widths = [max(len(line[i]) for line in table) for i in range(5)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
