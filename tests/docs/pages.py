"""The project's pages, read: their code, sections and tables."""

from __future__ import annotations

from pathlib import Path

from tests.thirdparty.page import code, sections, tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Plugin authors' pages have tests of their own, too (tests/thirdparty).
PAGES = sorted(
    [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("examples/**/*.md")]
)


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def all_sections(page: str) -> dict[str, str]:
    """The sections of the second and third level; of the second only what comes before the first third."""
    found = {}
    for title, body in sections(page, 2).items():
        found[title] = body.partition("\n### ")[0]
        found |= sections("\n" + body, 3)
    return found


__all__ = ["DOCS", "PAGES", "ROOT", "all_sections", "code", "sections", "tables", "text"]
