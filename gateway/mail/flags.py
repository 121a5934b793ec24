"""Flags of stored messages: the system flags and keywords of IMAP (RFC 9051, 2.3.2), in lower case."""

from __future__ import annotations

import re
from collections.abc import Iterable

SYSTEM_FLAGS = frozenset(
    {
        "\\seen", "\\answered", "\\flagged", "\\deleted", "\\draft",
        "$forwarded", "$junk", "$notjunk", "$phishing", "$mdnsent",
    }
)  # fmt: skip
MAX_KEYWORD = 100  # characters
MAX_FLAGS = 100  # of one message

# RFC 9051, section 9: an atom.
_KEYWORD = re.compile(r"""[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]+""")


class FlagError(ValueError):
    """A flag that there cannot be, or too many; the text says why."""


def parse_flag(text: str) -> str:
    """The flag in its canonical form; its case does not matter. Raises FlagError."""
    if len(text) > MAX_KEYWORD:
        raise FlagError(f"longer than {MAX_KEYWORD} characters")
    flag = text.lower()
    if flag.startswith("\\") and flag not in SYSTEM_FLAGS:
        known = ", ".join(sorted(name for name in SYSTEM_FLAGS if name.startswith("\\")))
        raise FlagError(f"{text!a} is no system flag; there are {known}")
    if flag not in SYSTEM_FLAGS and _KEYWORD.fullmatch(text) is None:
        raise FlagError(
            f"{text!a} is no keyword: one or more ASCII characters,"
            ' without spaces, control characters and any of (){%*"\\]'
        )
    return flag


def changed(flags: Iterable[str], add: frozenset[str], remove: frozenset[str]) -> tuple[str, ...]:
    """The flags after a change, sorted; all are canonical. Raises FlagError if the change adds too many."""
    before = frozenset(flags)
    after = (before | add) - remove
    if len(after) > max(len(before), MAX_FLAGS):
        raise FlagError(f"a message has at most {MAX_FLAGS} flags; with these it would have {len(after)}")
    return tuple(sorted(after))
