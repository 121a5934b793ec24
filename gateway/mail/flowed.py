"""Text of the kind format=flowed (RFC 3676): paragraphs that were cut into lines become lines again."""

from __future__ import annotations

SIGNATURE = "-- "  # stands alone (4.3)


def unflow(text: str, *, delete_space: bool) -> str:
    """Text whose lines end in "\\n", with each paragraph in one line. Linear; never raises.

    `delete_space`: the space at the end of a cut line is no part of the text (DelSp=yes).
    """
    out: list[str] = []
    paragraph: list[str] = []  # the pieces so far of one that goes on
    depth = 0  # of quoting: what is quoted less, or more, is another paragraph (4.5)
    end = "\n" if text.endswith("\n") else ""
    for line in text.removesuffix("\n").split("\n"):
        content = line.lstrip(">")
        quoted = len(line) - len(content)
        content = content.removeprefix(" ")  # it was put before what would be misread (4.4)
        if paragraph and (quoted != depth or content == SIGNATURE):
            out.append(_line(depth, paragraph))
            paragraph = []
        depth = quoted
        if not content.endswith(" ") or content == SIGNATURE:
            out.append(_line(depth, [*paragraph, content]))
            paragraph = []
        else:
            paragraph.append(content[:-1] if delete_space else content)
    if paragraph:
        out.append(_line(depth, paragraph))
    return "\n".join(out) + end


def _line(depth: int, pieces: list[str]) -> str:
    text = "".join(pieces)
    return f"{'>' * depth} {text}" if depth else text
