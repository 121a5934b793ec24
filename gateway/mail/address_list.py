"""Address lists of header fields (RFC 5322, 3.4), read leniently in one pass."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.mail.address import Address, AddressError
from gateway.mail.encoded_words import decode_words

MAX_ADDRESSES = 20_000  # of one field; what follows is left out
_MAX_TEXT = 1000  # characters kept of a name or an address

# Every alternative ends at the end of the text if its own end is missing, so nothing is read twice.
_TOKEN = re.compile(
    r"""(?P<space>\s++)
    |(?P<word>=\?[^?\s]++\?[bBqQ]\?[^?\s"<>]*+\?=)
    |(?P<atom>[^\s"(),:;<>@\[\]\\]++)
    |"(?P<quoted>(?:[^"\\]++|\\.)*+)(?:"|\\?\Z)
    |(?P<literal>\[[^\]]*+(?:\]|\Z))
    |(?P<special>.)""",
    re.VERBOSE | re.DOTALL,
)
# What most fields are, and what the tokens of one would come to: one address, alone or behind a plain name.
_NAME = r"[A-Za-z0-9.'-]++(?: [A-Za-z0-9.'-]++)*+"
_ADDRESS = r"[A-Za-z0-9.+_-]++@[A-Za-z0-9.-]++"
_PLAIN = re.compile(rf"(?:({_NAME}) )?<({_ADDRESS})>|({_ADDRESS})")
_COMMENT_TOKEN = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class NameAddress(NamedTuple):
    """An entry of an address field as read. `address` is canonical (`str(Address)`) if it is a valid address,
    else the text as found.

    No dataclass: 20,000 of them come from a worker process three times as fast.
    """

    name: str
    address: str


def parse_address_list(text: str, most: int = MAX_ADDRESSES) -> tuple[NameAddress, ...]:
    """The first `most` addresses of a field's unfolded value, groups flattened, with decoded names.

    Entries without "@" (empty groups, `MAILER-DAEMON`) are left out. Never raises.
    """
    if (plain := _PLAIN.fullmatch(text)) is not None:
        name, address = plain[1] or "", plain[2] or plain[3]
        return (NameAddress(name[:_MAX_TEXT], _canonical(address)),)[:most]
    reader = _Reader()
    at = 0
    end = len(text)
    while at < end and len(reader.found) < most:
        token = _TOKEN.match(text, at)
        if token is None:  # cannot be: the last alternative takes any character
            break
        if token[0] == "(":
            at = reader.comment(text, at)
            continue
        at = token.end()
        kind = token.lastgroup
        if kind == "special":
            reader.special(token[0])
        elif kind == "space":
            reader.space = True
        elif kind == "quoted":
            content = token["quoted"]
            reader.word(_ESCAPED.sub(r"\1", content) if "\\" in content else content, f'"{content}"')
        else:
            reader.word(token[0], token[0])
    reader.flush()
    return tuple(reader.found)


class _Reader:
    """The entry that is being read: words for the name, the raw text for the address."""

    def __init__(self) -> None:
        self.found: list[NameAddress] = []
        self.clear()

    def clear(self) -> None:
        self.words: list[str] = []
        self.raw: list[str] = []
        self.angle: list[str] | None = None  # inside or after <...>
        self.closed = False
        self.space = False
        self.remark = ""  # the last comment: the name in the old style "user@host (Name)"

    def word(self, text: str, raw: str) -> None:
        if self.angle is not None:
            if not self.closed:
                self.angle.append(raw)
            return
        if self.space and self.words:
            self.words.append(" ")
        self.space = False
        self.words.append(text)
        self.raw.append(raw)

    def special(self, char: str) -> None:
        if char == ";" or (char == "," and not self._in_route()):
            self.flush()
        elif char == "<" and self.angle is None:
            self.angle = []
        elif char == ">" and self.angle is not None:
            self.closed = True
        elif char == ":":
            if self.angle is None:  # a group's name ends
                self.clear()
            elif not self.closed:  # a source route ends (RFC 5322, 4.4)
                self.angle.clear()
        else:
            self.word(char, char)

    def comment(self, text: str, start: int) -> int:
        """Reads from the "(" at `start` to its ")" and returns where that ended. Nesting is only counted."""
        depth = 0
        at = start
        while True:
            token = _COMMENT_TOKEN.search(text, at)
            if token is None:
                return len(text)
            at = token.end()
            if token[0] == "(":
                depth += 1
            elif token[0] == ")":
                depth -= 1
                if depth == 0:
                    self.remark = text[start + 1 : at - 1]
                    self.space = True
                    return at

    def flush(self) -> None:
        address = "".join(self.raw if self.angle is None else self.angle)
        if "@" in address:
            name = "".join(self.words) if self.angle is not None else ""
            name = decode_words(name or _ESCAPED.sub(r"\1", self.remark))
            self.found.append(NameAddress(name.strip()[:_MAX_TEXT], _canonical(address)))
        self.clear()

    def _in_route(self) -> bool:
        return not self.closed and self.angle is not None and self.angle[:1] == ["@"]


def _canonical(address: str) -> str:
    try:
        return str(Address.parse(address))
    except AddressError:
        return decode_words(address)[:_MAX_TEXT]
