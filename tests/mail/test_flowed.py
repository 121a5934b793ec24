from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.flowed import unflow
from gateway.mail.structure import parse, readable
from tests.counting import without_ages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("fixed\nlines\n", "fixed\nlines\n"),
        ("one \nparagraph\nanother\n", "one paragraph\nanother\n"),
        ("one \ntwo \nthree", "one two three"),
        ("one \n\ntwo\n", "one \ntwo\n"),  # an empty line ends it, and is its last piece
        (" stuffed\n >no quote\n From me\n", "stuffed\n>no quote\nFrom me\n"),
        ("> quoted \n> text\n>> more \n> less\n", "> quoted text\n>> more \n> less\n"),
        ("> quoted \nmine\n", "> quoted \nmine\n"),
        (">no space\n>  stuffed\n", "> no space\n>  stuffed\n"),
        ("text \n-- \nJo \nSmith\n", "text \n-- \nJo Smith\n"),
        ("> a \n> -- \n> b\n", "> a \n> -- \n> b\n"),
        ("ends \n", "ends \n"),
    ],
)
def test_unflow(text: str, expected: str) -> None:
    assert unflow(text, delete_space=False) == expected


def test_a_space_that_is_no_part_of_the_text() -> None:
    """Scripts without spaces between words (4.5)."""
    assert unflow("日本 \n語 \n。\n", delete_space=True) == "日本語。\n"


@given(st.text("a >-\n", max_size=40), st.booleans())
def test_it_never_raises_and_loses_nothing_but_spaces_and_line_ends(text: str, delete_space: bool) -> None:
    def letters(of: str) -> str:
        return "".join(c for c in of if c in "a-")

    assert letters(unflow(text, delete_space=delete_space)) == letters(text)


def test_long_ones_are_linear() -> None:
    for line in ("> a \n", "a \n", ">" * 900 + " a \n", "\n", " \n"):
        with without_ages():
            unflow(line * (1_000_000 // len(line)), delete_space=True)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("format=flowed", "a long line\n"),
        ('Format="Flowed"; delsp=YES', "a longline\n"),
        ("format=fixed", "a long \nline\n"),
        ("", "a long \nline\n"),
    ],
)
def test_of_a_message(params: str, text: str) -> None:
    message = f"Content-Type: text/plain; {params}\r\n\r\na long \r\nline\r\n"
    assert readable(parse(message.encode())).text == text
    html = message.replace("text/plain", "text/html")
    assert readable(parse(html.encode())).html == "a long \nline\n"
