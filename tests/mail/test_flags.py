from __future__ import annotations

import pytest

from gateway.mail.flags import MAX_FLAGS, MAX_KEYWORD, SYSTEM_FLAGS, FlagError, changed, parse_flag

NONE = frozenset[str]()


@pytest.mark.parametrize("flag", sorted(SYSTEM_FLAGS))
def test_system_flags_in_any_case(flag: str) -> None:
    assert parse_flag(flag) == parse_flag(flag.upper()) == flag


@pytest.mark.parametrize("keyword", ["orders", "$label1", "a.b-c_d", "[x", "~", "k" * MAX_KEYWORD])
def test_keywords(keyword: str) -> None:
    assert parse_flag(keyword) == parse_flag(keyword.upper()) == keyword


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "a\n", "a\r\nb", "\0", "\x7f", "ü", "\\", "\\recent", "\\*", "a\\b"),
        *('a"', "a]", "a%", "a*", "(a)", "{1}", "\u212a", "\ud800", "k" * (MAX_KEYWORD + 1)),
    ],
)
def test_what_is_no_flag(text: str) -> None:
    with pytest.raises(FlagError) as raised:
        parse_flag(text)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_changes() -> None:
    assert changed((), frozenset({"b", "a"}), NONE) == ("a", "b")
    assert changed(("a", "b"), frozenset({"a"}), NONE) == ("a", "b")
    assert changed(("a", "b"), NONE, frozenset({"a", "c"})) == ("b",)


def test_at_most_so_many() -> None:
    full = tuple(f"k{n}" for n in range(MAX_FLAGS))
    assert len(changed((), frozenset(full), NONE)) == MAX_FLAGS
    with pytest.raises(FlagError, match="at most 100 flags; with these it would have 101"):
        changed(full, frozenset({"more"}), NONE)
    # One that a plugin gave more can still lose some.
    assert len(changed((*full, "x", "y"), NONE, frozenset({"x"}))) == MAX_FLAGS + 1
