"""Writing header fields (RFC 5322, 2.2): checked, encoded, folded.

Whatever a caller passes, one call writes one field: names are checked, control characters refused, and a line
break stands only where folding put it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gateway.mail.encoded_words import encode_words

LINE = 78  # characters, RFC 5322, 2.1.1: what a line should have at most
MAX_LINE = 998  # octets: what it must have at most
MAX_NAME = 200  # characters of a field name; far above any in use
MAX_TEXT = 65_536  # characters of free text in one field

_NAME = re.compile(r"[!-9;-~]+")  # ftext, RFC 5322, 2.2
# C0, DEL and C1 (NEL is a line break to some readers); lone surrogates can't be written in UTF-8.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Text that reads back as it was only in encoded words: what looks like one, space at the ends or in long
# runs (a folded line of spaces only is obsolete), and line separators, which some readers break lines at.
_AMBIGUOUS = re.compile(r"=\?|\A\s|\s\Z|\s{20}|[\u2028\u2029]")

# Characters of a word that is not folded: with the longest name and four octets each, a line still holds it.
_MAX_WORD = (MAX_LINE - MAX_NAME - 2) // 4

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class FieldError(ValueError):
    """A value can't stand in a header. `field` names it as its giver knows it; `message` says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str]]:
        return type(self), (self.field, self.message)  # it is pickled on its way from a worker process


def check_text(field: str, text: str) -> None:
    """Raises FieldError naming `field` if `text` has a control character or lone surrogate."""
    if text.isascii() and text.isprintable():
        return
    found = _CONTROL.search(text)
    if found is not None:
        what = "lone surrogate" if found[0] >= "\ud800" else "control character"
        raise FieldError(field, f"{what} U+{ord(found[0]):04X} at position {found.start()} is not allowed")


def check_name(field: str, name: str) -> None:
    """Raises FieldError naming `field` if `name` is no header field name (RFC 5322, 2.2: ftext)."""
    if not name:
        raise FieldError(field, "header field name is empty")
    if len(name) > MAX_NAME:
        raise FieldError(field, f"header field name is longer than {MAX_NAME} characters")
    if not _NAME.fullmatch(name):
        raise FieldError(
            field, f"{name!a} is no header field name: only printable ASCII without space and colon"
        )


def text_field(name: str, text: str, utf8: bool = False, field: str = "") -> bytes:
    """The field `name` with free text (Subject, Comments, most fields of applications), ended by CRLF.

    Text becomes encoded words if it is not ASCII (unless `utf8`) or would not read back as it was. Raises
    FieldError naming `field` (or the name itself).
    """
    check_name(field or name, name)
    check_text(field or name, text)
    if len(text) > MAX_TEXT:
        raise FieldError(field or name, f"is longer than {MAX_TEXT} characters")
    if (not utf8 and not text.isascii()) or _AMBIGUOUS.search(text) or _has_long_word(text):
        text = encode_words(text)
    return _fold(name, text)


def fold_field(name: str, value: str, utf8: bool = False, field: str = "") -> bytes:
    """The field `name` with a `value` of a syntax of its own (addresses, message IDs, parameters), ended by
    CRLF. Folded at spaces, never elsewhere.

    Characters that are not ASCII become encoded words as a whole unless `utf8`: right for values that hold
    encoded words already where they may stand. Raises FieldError naming `field` (or the name itself), also
    for a run without spaces that no line can hold.
    """
    check_name(field or name, name)
    check_text(field or name, value)
    if not utf8 and not value.isascii():
        value = encode_words(value)
    data = _fold(name, value)
    if len(data) > MAX_LINE and any(len(line) > MAX_LINE for line in data.split(b"\r\n")):
        raise FieldError(field or name, f"has a run of more than {MAX_LINE} octets without a space")
    return data


def format_date(when: datetime) -> str:
    """An aware date and time as in RFC 5322, 3.3, in seconds. A zone that is no whole number of minutes
    becomes UTC. Raises ValueError if `when` is naive or before 1900."""
    offset = when.utcoffset()
    if offset is None:
        raise ValueError("date has no time zone")
    if offset.seconds % 60 or offset.microseconds:
        when = when.astimezone(UTC)
        offset = UTC.utcoffset(None)
    if when.year < 1900:
        raise ValueError("date is before the year 1900")
    minutes = offset.days * 1440 + offset.seconds // 60
    sign = "-" if minutes < 0 else "+"
    hours, minutes = divmod(abs(minutes), 60)
    return (
        f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year:04d} "
        f"{when.hour:02d}:{when.minute:02d}:{when.second:02d} {sign}{hours:02d}{minutes:02d}"
    )


def _has_long_word(text: str) -> bool:
    return len(text) > _MAX_WORD and any(len(word) > _MAX_WORD for word in text.split(" "))


def _fold(name: str, value: str) -> bytes:
    """Breaks before a space where a line would get longer than 78; what has no space stays whole."""
    if len(name) + 2 + len(value) <= LINE:
        return f"{name}: {value}\r\n".encode()
    # A line is what was gathered, and each word brings the space before it, so joining gives the value back.
    lines: list[str] = []
    line = f"{name}:"
    blank = True  # nothing but the name, or spaces: breaking here would leave a line of white space
    for word in (" " + value).split(" ")[1:]:
        if not blank and word and len(line) + 1 + len(word) > LINE:
            lines.append(line)
            line = ""
            blank = True
        line += " " + word
        if word:
            blank = False
    lines.append(line)
    return ("\r\n".join(lines) + "\r\n").encode()
