"""benchmarks/README.md has a line for each benchmark."""

from __future__ import annotations

import re

from benchmarks.__main__ import BENCHMARKS
from tests.docs.pages import ROOT


def test_each_has_a_line() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)` \|", page) == list(BENCHMARKS)


def test_each_says_what_it_is() -> None:
    assert all((measure.__doc__ or "").strip() for measure in BENCHMARKS.values())
