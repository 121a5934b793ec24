"""docs/plugins/, read: its sections, tables and code.

A page hooks-*.md has one section for each of its hooks, a page data-*.md one for each class."""

from __future__ import annotations

import re
from pathlib import Path

PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parents[2] / "docs" / "plugins").glob("*.md"))
}
FIRST = PAGES["README.md"]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code(kind: str, text: str) -> list[str]:
    """The code blocks of a kind, in order."""
    return [body for found, body in _FENCE.findall(text) if found == kind]


def sections(text: str, level: int) -> dict[str, str]:
    """The sections of a level by their titles; code does not count."""
    hidden = _FENCE.sub(lambda found: re.sub(r"(?m)^#", "\0", found[0]), text)
    parts = re.split(rf"(?m)^{'#' * level} (.+)$", hidden)[1:]
    bodies = [re.split(rf"(?m)^#{{1,{level}}} ", body)[0].replace("\0", "#") for body in parts[1::2]]
    return dict(zip((title.strip("`") for title in parts[::2]), bodies, strict=True))


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables, as rows by the titles of their columns; without the marks of code."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", _FENCE.sub("", text), re.MULTILINE):
        header, _, *rows = [_cells(line) for line in block.splitlines()]
        found.append([dict(zip(header, row, strict=True)) for row in rows])
    return found


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return [cell.strip().strip("`").replace("\\|", "|") for cell in cells]


def _of_pages(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in PAGES.items():
        if name.startswith(f"{kind}-"):
            titled = sections(text, 2)
            assert not found.keys() & titled.keys(), name
            found |= titled
    return found


HOOKS = _of_pages("hooks")
DATA = _of_pages("data")
