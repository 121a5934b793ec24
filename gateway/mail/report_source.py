"""A message that may be a report, as those who read reports get it: decoded, and bounded. Pure; never raises.

Reports come as MIME structures and as plain text, with the message that they return as a part of its own or
below a line of the text. Both are one here: what is said, and the header of what was returned.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gateway.frozen import freeze
from gateway.mail.address import Address, AddressError
from gateway.mail.charset import decode_text
from gateway.mail.encoded_words import decode_words
from gateway.mail.headers import Headers, parse_message_ids, read_headers
from gateway.mail.structure import Part, parse
from gateway.mail.transfer import decode

MAX_TEXT = 64 * 1024  # characters of one part, and of the text altogether
MAX_FIELDS_TEXT = 1_000_000  # octets of a part that consists of fields: 1,000 recipients take 250 each
MAX_PARTS = 20
MAX_FIELDS = 200  # of a header
MAX_VALUE = 2_000  # characters of a header field
MAX_ADDRESSES = 100  # of a header field
MAX_DIVIDER = 120  # characters of the line above a returned message

STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_FIELDS_TYPES: Final = STATUS_TYPES | {
    "message/feedback-report",
    "message/disposition-notification",
    "message/global-disposition-notification",
}
RETURNED_TYPES: Final = frozenset(
    {
        "message/rfc822",
        "text/rfc822-headers",
        "text/rfc822-header",
        "message/rfc822-headers",
        "message/global",
        "message/global-headers",
        "message/partial",
    }
)

# The header of a returned message in a text: a group of fields, among them some that every message has.
_GROUP: Final = re.compile(r"^(?:[!-9;-~]{1,80}+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+){2,}+", re.MULTILINE)
_TRACE: Final = frozenset({"return-path", "received", "message-id", "mime-version", "dkim-signature"})
_KNOWN: Final = re.compile(
    r"^(Return-Path|Received|Message-ID|MIME-Version|DKIM-Signature|From|To|Subject|Date|Content-Type):",
    re.IGNORECASE | re.MULTILINE,
)
# The line above it, which is no part of what is said.
_DIVIDER: Final = re.compile(
    r"[\W_]*(?:(?:this|here|below|included|enclosed|attached|the|an?|is|line|following) ){0,6}"
    r"(?:cop(?:y|ies) of|headers? (?:of|follow)|(?:original|returned|unsent) (?:message|mail)"
    r"|message headers?)\b(?! (?:was|has|from|to|you|could|did)\b)|[-=*_#~+ \t]{3,}$",
    re.IGNORECASE,
)
# The fields of a recipient's delivery status within a text: these two, near each other.
_STATUS_WITHIN: Final = re.compile(
    r"^Final-Recipient:[^\n]*+\n(?:[^\n]*+\n){0,8}?Action:|^Action:[^\n]*+\n(?:[^\n]*+\n){0,8}?Final-Recipient:",
    re.IGNORECASE | re.MULTILINE,
)
_TAG: Final = re.compile(r"<[^<>]*+>")
_BREAK: Final = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^<>]*+>", re.IGNORECASE)
_SPACE: Final = re.compile(r"[ \t\xa0]+")
# A quote may stand within a localpart; one before it is about it. What may begin one must not stand before
# it: else all that follows would be gone through from each of a row.
ADDRESS: Final = re.compile(
    r"(?<![\w.!#$%&*+/=?^{|}~-])[\w.!#$%&*+/=?^{|}~-][\w.!#$%&'*+/=?^`{|}~-]{0,127}+"
    r"@[\w-]{1,63}+(?:\.[\w-]{1,63}+){0,20}"
)

HeaderMap = Mapping[str, tuple[str, ...]]  # by names in lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPart:
    """A part that has no parts itself. `text` is decoded, with "\\n"."""

    content_type: str  # lower case, without parameters
    text: str  # at most 64 k characters; of fields, such as a message/delivery-status, 1 million


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSource:
    """A message that may be a report. Headers are by their names in lower case, unfolded and decoded."""

    mail_from: Address | None  # None is the null sender, and what is no address
    headers: Mapping[str, tuple[str, ...]]
    content_type: str  # of the message, lower case, without parameters
    params: Mapping[str, str]  # of the content type
    parts: tuple[ReportPart, ...]  # at most 20
    text: str  # what is said to a person, without the returned message; at most 64 k characters
    returned: Mapping[str, tuple[str, ...]]  # the header of the returned message; empty if nothing was
    size: int  # octets of the message

    def __post_init__(self) -> None:
        freeze(self, "headers", "params", "returned")

    def header(self, name: str) -> str:
        """The first field of that name, in any case; "" if there is none."""
        values = self.headers.get(name.lower(), ())
        return values[0] if values else ""

    def fields(self, *content_types: str) -> str | None:
        """The text of the first part of one of the types; None if there is none."""
        return next((part.text for part in self.parts if part.content_type in content_types), None)

    @property
    def returned_message_id(self) -> str:
        """Of the returned message, with its angle brackets; "" if it is not known."""
        found = parse_message_ids(next(iter(self.returned.get("message-id", ())), ""))
        return found[0] if found else ""


def read_source(data: bytes, mail_from: Address | None = None) -> ReportSource:
    """A message. Linear in its size."""
    root = parse(data).root
    leaves = tuple(islice(_leaves(root), MAX_PARTS))
    parts: list[ReportPart] = []
    said: list[str] = []
    returned: HeaderMap = {}
    for leaf in leaves:
        text = _text(leaf)
        parts.append(ReportPart(content_type=leaf.content_type, text=text))
        if leaf.content_type in RETURNED_TYPES:
            returned = returned or header_map(_returned(text))
        elif leaf.content_type not in _FIELDS_TYPES and leaf.disposition != "attachment" and not returned:
            is_html = leaf.content_type == "text/html"
            if not (is_html and any(said)):  # the same again
                said.append(_untagged(text) if is_html else text)
    text, below = split_returned("\n".join(said)[:MAX_TEXT])
    return ReportSource(
        mail_from=mail_from,
        headers=header_map(root.headers),
        content_type=root.content_type,
        params=root.params,
        parts=tuple(parts),
        text=text,
        returned=returned or (header_map(_returned(below)) if below else {}),
        size=len(data),
    )


def split_returned(text: str) -> tuple[str, str]:
    """What is said, and the returned message with its header that stands below it; "" for none."""
    for group in _GROUP.finditer(text):
        names = {match[1].lower() for match in _KNOWN.finditer(text, group.start(), group.end())}
        above, divided = _without_divider(text[: group.start()])
        if len(names) >= 2 and (divided or names & _TRACE):
            return above, text[group.start() :]
    return _without_divider(text)[0], ""


def fields_within(text: str) -> str | None:
    """The fields of a delivery status (RFC 3464) in a text, from their first group on; None for none."""
    found = _STATUS_WITHIN.search(text)
    if found is None:
        return None
    about = text.rfind("Reporting-MTA:", 0, found.start())
    return text[about if about >= 0 else text.rfind("\n\n", 0, found.start()) + 1 :]


def header_map(headers: Headers) -> HeaderMap:
    """A header section by names in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in islice(headers.fields, MAX_FIELDS):
        text = decode_words(decode_text(value[:MAX_VALUE]).replace("\r", "").replace("\n", "")).strip()
        found.setdefault(name.decode("ascii").lower(), []).append(text)
    return {name: tuple(values) for name, values in found.items()}


def addresses_in(text: str, maximum: int = MAX_ADDRESSES) -> tuple[Address, ...]:
    """What can be read as addresses, in their order, each once."""
    found: dict[Address, None] = {}
    for match in islice(ADDRESS.finditer(text), maximum):
        try:
            found[Address.parse(match[0].rstrip("."))] = None
        except AddressError:
            continue
    return tuple(found)


def _leaves(part: Part) -> Iterator[Part]:
    if not part.parts:
        yield part
    for member in part.parts:
        yield from _leaves(member)


def _text(part: Part) -> str:
    maximum = MAX_FIELDS_TEXT if part.content_type in _FIELDS_TYPES else 4 * MAX_TEXT
    # Quoted-printable may take three octets for one.
    data = decode(part.data[part.start : min(part.end, part.start + 3 * maximum)], part.encoding)[:maximum]
    text = decode_text(data, part.params.get("charset", "")).replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\0", " ")  # what is read of it is stored, and told
    return text if part.content_type in _FIELDS_TYPES else text[:MAX_TEXT]


def _returned(text: str) -> Headers:
    return read_headers(text.lstrip("\n").encode("utf-8", "replace"))[0]


def _untagged(text: str) -> str:
    for element in ("head", "style", "script"):
        text = _without(text, f"<{element}", f"</{element}>")
    return _SPACE.sub(" ", html.unescape(_TAG.sub("", _BREAK.sub("\n", text))))


def _without(text: str, start: str, end: str) -> str:
    """The text without what stands between these, any case."""
    lower = text.lower() if len(text.lower()) == len(text) else text
    kept: list[str] = []
    at = 0
    while (begin := lower.find(start, at)) >= 0 and (stop := lower.find(end, begin)) >= 0:
        kept.append(text[at:begin])
        at = stop + len(end)
    return "".join([*kept, text[at:]])


def _without_divider(text: str) -> tuple[str, bool]:
    """The text without the line at its end that announces the returned message, and whether there is one."""
    found = False
    for _ in range(3):  # such a line may be between others of dashes, or be two
        above, _, last = text.rstrip().rpartition("\n")
        if len(last) > MAX_DIVIDER or not _DIVIDER.match(last):
            break
        text, found = above, True
    return text, found
