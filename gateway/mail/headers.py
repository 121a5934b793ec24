"""Reading a header section: fields, text, addresses, dates, message IDs. Never raises, never quadratic.

Python's email package is not used: hostile input makes it raise RecursionError or take seconds, and it
hides a second From.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import islice
from typing import Final

from gateway.mail.address_list import MAX_ADDRESSES, NameAddress, parse_address_list
from gateway.mail.charset import decode_text
from gateway.mail.encoded_words import decode_words

MAX_SECTION = 1_000_000  # octets of one header section
MAX_FIELDS = 10_000  # of one header section
MAX_MESSAGE_IDS = 1_000  # of one field; RFC 5322 sets no limit, threads that long are cut by every client

# A field with its folded lines, or a line that is none. Possessive: each octet is seen twice at most.
_FIELD = re.compile(rb"(?:([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)|[^\n]++)(?:\n|\Z)")
_FIRST = re.compile(rb"[!-9;-~]++[ \t]*+:|From ")
_FOLD = re.compile(rb"\r?\n")
_COMMENT = re.compile(r"\([^()]*+\)")
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,996}+)>")

_DATE = re.compile(
    r"(?:[A-Za-z]+\s*,?\s*)?(\d{1,2})[\s-]+([A-Za-z]{3})[A-Za-z]*[\s,-]+(\d{2,4})\s+"
    r"(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?(?:\.\d+)?\s*([+-]\d{4}|[A-Za-z]{1,5})?"
)
_ASCTIME = re.compile(
    r"[A-Za-z]+\s+([A-Za-z]{3})\s+(\d{1,2})\s+(\d{1,2}):(\d{1,2}):(\d{1,2})\s+(?:([A-Za-z]{1,5})\s+)?(\d{4})"
)
_MAX_DATE = 200  # characters looked at
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Hours; any other name means an unknown zone, which RFC 5322, 4.3 has us take for UTC.
_ZONES: Final = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}


class Headers:
    """A header section.

    `fields` are the fields in order: name as written, and value as it stands between ":" and the line end,
    folding included. `malformed`: some line is no field (it was skipped). `oversized`: the section is longer
    than 1 MB or has more than 10,000 fields; what is beyond was left out.
    """

    __slots__ = ("_index", "fields", "malformed", "oversized")

    def __init__(
        self, fields: tuple[tuple[bytes, bytes], ...], malformed: bool = False, oversized: bool = False
    ) -> None:
        self.fields = fields
        self.malformed = malformed
        self.oversized = oversized
        index: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            index.setdefault(name.lower(), []).append(value)
        self._index = index

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for name, value in self.fields:
            yield name.decode("ascii"), value

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._index

    def count(self, name: str) -> int:
        """How many fields have that name, any case."""
        return len(self._index.get(_key(name), ()))

    def get_all(self, name: str) -> list[str]:
        """The unfolded values of all fields of that name, any case; encoded words are left as they are."""
        return [unfold(value) for value in self._index.get(_key(name), ())]

    def get(self, name: str) -> str:
        """The first of `get_all`, or "" if there is none."""
        values = self._index.get(_key(name))
        return unfold(values[0]) if values else ""

    def text(self, name: str) -> str:
        """The first field's text for a person: encoded words decoded, no control characters."""
        return decode_words(self.get(name))

    def addresses(self, name: str, most: int = MAX_ADDRESSES) -> tuple[NameAddress, ...]:
        """The first addresses of all fields of that name: a second From is not hidden."""
        values = self.get_all(name)
        if len(values) <= 1:
            return parse_address_list(values[0], most) if values else ()
        found: list[NameAddress] = []
        for value in values:
            found.extend(parse_address_list(value, most))
            if len(found) >= most:
                break
        return tuple(found[:most])

    def date(self, name: str = "Date") -> datetime | None:
        """The first field's date, None if there is none or it is unusable."""
        return parse_date(self.get(name))

    def message_ids(self, name: str) -> tuple[str, ...]:
        """The message IDs of the first field of that name, each with its angle brackets."""
        return parse_message_ids(self.get(name))


NO_HEADERS: Final = Headers(())


def read_headers(
    data: bytes, start: int = 0, end: int | None = None, max_fields: int = MAX_FIELDS
) -> tuple[Headers, int]:
    """Reads the header section at `start` of a message or part that ends at `end`: the fields, and where the
    body begins (after the empty line).

    Lines end in CRLF or LF. If the first line is no field at all, there is no header section and all is body.
    A section without an end in its first 1 MB is not read, and nothing is body.
    """
    if end is None:
        end = len(data)
    if data.startswith((b"\r\n", b"\n"), start, end):
        return NO_HEADERS, start + (1 if data[start] == 0x0A else 2)
    if not _FIRST.match(data, start, end):
        return (Headers((), malformed=True) if start < end else NO_HEADERS), start
    limit = min(end, start + MAX_SECTION)
    # The empty line in either spelling, whichever comes first.
    stop = data.find(b"\n\r\n", start, limit)
    bare = data.find(b"\n\n", start, limit if stop < 0 else stop)
    if bare >= 0:
        stop, body = bare, bare + 2
    elif stop >= 0:
        body = stop + 3
    elif limit < end:
        return Headers((), oversized=True), end
    else:
        stop = body = end
    return _read_fields(data, start, stop, max_fields), body


def split_message(data: bytes) -> tuple[bytes, bytes]:
    """Header section (with the line end of its last field, without the empty line) and body."""
    _, body = read_headers(data, max_fields=0)
    head = data[:body]
    for empty_line in (b"\r\n", b"\n"):
        if head == empty_line or head.endswith(b"\n" + empty_line):
            return head[: -len(empty_line)], data[body:]
    return head, data[body:]


def unfold(value: bytes) -> str:
    """A field's value on one line, without space around; not UTF-8 is read as windows-1252."""
    if b"\n" in value:
        value = _FOLD.sub(b"", value)
    return decode_text(value).strip()


def parse_message_ids(text: str) -> tuple[str, ...]:
    """The message IDs in a Message-ID, In-Reply-To or References field, each with its angle brackets.

    Without any brackets, words with "@" are taken for IDs. At most 1,000.
    """
    found = tuple(match[0] for match in islice(_MESSAGE_ID.finditer(text), MAX_MESSAGE_IDS))
    if found or "@" not in text:
        return found
    words = text.replace("<", " ").replace(">", " ").split()
    return tuple(f"<{word}>" for word in words if "@" in word and len(word) <= 996)[:MAX_MESSAGE_IDS]


def parse_date(text: str) -> datetime | None:
    """A date as in RFC 5322, 3.3 and 4.3, also in asctime's form. Always aware; None when unusable.

    Unknown zones and a missing one count as UTC, as -0000 does.
    """
    text = text[:_MAX_DATE]
    if "(" in text:
        text = _COMMENT.sub(" ", text)
    text = text.strip()
    match = _DATE.match(text)
    if match is not None:
        day, month, year, hour, minute, second, zone = match.groups()
    else:
        match = _ASCTIME.match(text)
        if match is None:
            return None
        month, day, hour, minute, second, zone, year = match.groups()
    number = int(year)
    if len(year) < 4:  # RFC 5322, 4.3
        number += 2000 if len(year) == 2 and number < 50 else 1900
    try:
        at = datetime(
            number,
            _MONTHS.index(month.lower()) + 1,
            int(day),
            int(hour),
            int(minute),
            min(int(second or 0), 59),  # a leap second
            tzinfo=_zone(zone or ""),
        )
        at.astimezone(UTC)  # the ends of time have no UTC
    except (ValueError, OverflowError):
        return None
    return at


@lru_cache(maxsize=1024)
def _key(name: str) -> bytes:
    return name.lower().encode()


def _zone(zone: str) -> timezone:
    if zone[:1] in ("+", "-"):
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
        return timezone(-offset if zone[0] == "-" else offset) if offset else UTC
    hours = _ZONES.get(zone.upper(), 0)
    return timezone(timedelta(hours=hours)) if hours else UTC


def _read_fields(data: bytes, start: int, stop: int, max_fields: int) -> Headers:
    if data.count(b"\n", start, stop) < max_fields:  # all of it, in one go
        found = _FIELD.findall(data, start, stop)
        if not any(name == b"" for name, _ in found):
            return Headers(tuple([(name, value.removesuffix(b"\r")) for name, value in found]))
    fields: list[tuple[bytes, bytes]] = []
    malformed = False
    at = start
    for match in islice(_FIELD.finditer(data, start, stop), max_fields):
        name, value = match.groups()
        if name is not None:
            fields.append((name, value.removesuffix(b"\r")))
        elif not (match.start() == start and data.startswith(b"From ", start)):  # of an mbox file
            malformed = True
        at = match.end()
    return Headers(tuple(fields), malformed, oversized=at < stop)
