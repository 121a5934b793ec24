"""Reading a message: its MIME structure, its readable text, its summary. Never raises; bounded.

Parts are ranges of the message's octets, so reading copies nothing and content is decoded only when asked
for. A multipart's delimiters are searched for before its members are looked at, so an outer one always ends
the inner. What is beyond a limit is left as one undecoded part and marked `beyond_limits`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.mail.address_list import NameAddress
from gateway.mail.charset import decode_text
from gateway.mail.flowed import unflow
from gateway.mail.headers import MAX_FIELDS, Headers, read_headers
from gateway.mail.parameters import parse_parameters, without_parameters
from gateway.mail.transfer import decode, decoded_size

MAX_DEPTH = 100  # of multiparts in multiparts
MAX_PARTS = 1_000
MAX_READABLE = 1024 * 1024  # octets (UTF-8) of readable text, webapi: cut at 1 MiB

# Work that one message may cause beyond its own size, which no real one comes near.
_MAX_ALL_FIELDS = 4 * MAX_FIELDS
_MAX_FALSE_DELIMITERS = 10_000  # places that begin like a delimiter and are none
_MAX_SEARCHED = 64 * 1024 * 1024  # octets, beyond 16 times the message's size

# Octets decoded for readable text: UTF-16 may shrink to half, CRLF too; quoted-printable to a third.
_MAX_DECODED = 4 * MAX_READABLE
_MAX_ENCODED = 4 * _MAX_DECODED

_DELIMITER_END = re.compile(rb"(--)?[ \t]*+(?:\r?\n|\r?\Z)")
# Tokens (RFC 2045, 5.1), so that it can stand in any other header too; lengths are of RFC 6838, 4.2.
_CONTENT_TYPE = re.compile(r"[a-z0-9!#$%&'*+.^_`{|}~-]{1,127}/[a-z0-9!#$%&'*+.^_`{|}~-]{1,127}")
_ENCODINGS = frozenset({"base64", "quoted-printable"})
# Their presence makes a message an automated one, whatever they say (webhooks: Automated).
_AUTOMATED = ("List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Precedence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A MIME entity: the message itself, or a member of a multipart.

    `content_type` and `disposition` are in lower case, without parameters; `content_id` is as written;
    `filename` decoded. `start` and `end` are the body's place in `data`, the whole message.
    """

    headers: Headers
    content_type: str
    params: dict[str, str]
    encoding: str  # "base64", "quoted-printable", or "" for octets as they are
    content_id: str
    disposition: str
    filename: str
    parts: tuple[Part, ...]
    beyond_limits: bool  # not taken apart, or its header not read
    data: bytes = field(repr=False)
    start: int
    end: int

    @property
    def decoded_size(self) -> int:
        """Octets of `decoded(part)`. Base64 is measured without decoding it."""
        return decoded_size(self.data, self.start, self.end, self.encoding)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message that was read. `incomplete`: some limit left a part of it untouched."""

    data: bytes = field(repr=False)
    root: Part
    incomplete: bool

    @property
    def headers(self) -> Headers:
        return self.root.headers


@dataclass(frozen=True, slots=True)
class Readable:
    """The text for a person, with "\\n", each cut at 1 MiB of UTF-8; "" if there is none."""

    text: str
    html: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The header for a person. Message IDs have their angle brackets; "" if there is none."""

    from_: tuple[NameAddress, ...]
    to: tuple[NameAddress, ...]
    cc: tuple[NameAddress, ...]
    bcc: tuple[NameAddress, ...]
    reply_to: tuple[NameAddress, ...]
    message_id: str
    in_reply_to: str
    references: tuple[str, ...]
    date: datetime | None
    subject: str

    @property
    def thread(self) -> tuple[str, ...]:
        """References, with In-Reply-To put first when they lack it."""
        if not self.in_reply_to or self.in_reply_to in self.references:
            return self.references
        return (self.in_reply_to, *self.references)


def parse(data: bytes) -> Parsed:
    """Reads a message (RFC 5322, RFC 2045, RFC 2046). Linear in its size; never raises."""
    reader = _Reader(data)
    root = reader.entity(0, len(data), depth=0, default="text/plain")
    return Parsed(data, root, reader.incomplete)


def decoded(part: Part) -> bytes:
    """The part's body without its transfer encoding; of a multipart, its body as it is."""
    return decode(part.data[part.start : part.end], part.encoding)


def find_part(parsed: Parsed, path: Sequence[int]) -> Part | None:
    """The part at a PartPath, the message itself for (); None if there is none."""
    part = parsed.root
    for index in path:
        if not 0 <= index < len(part.parts):
            return None
        part = part.parts[index]
    return part


def readable(parsed: Parsed) -> Readable:
    """The readable parts (webapi: Readable parts).

    A message that is text or HTML gives that one. Else, among the direct members of a multipart, the first
    text and the first HTML if it is multipart/alternative, otherwise only the first that is either; a level
    is descended into only when it has none. Members that call themselves attachments don't count.
    """
    text, html = _readable_parts(parsed.root)
    return Readable(_text_of(text), _text_of(html))


def summary(parsed: Parsed) -> Summary:
    """The header's fields that a person reads."""
    headers = parsed.root.headers
    message_ids = headers.message_ids("Message-ID")
    in_reply_to = headers.message_ids("In-Reply-To")
    return Summary(
        from_=headers.addresses("From"),
        to=headers.addresses("To"),
        cc=headers.addresses("Cc"),
        bcc=headers.addresses("Bcc"),
        reply_to=headers.addresses("Reply-To"),
        message_id=message_ids[0] if message_ids else "",
        in_reply_to=in_reply_to[0] if in_reply_to else "",
        references=headers.message_ids("References"),
        date=headers.date(),
        subject=headers.text("Subject"),
    )


def content_type_of(headers: Headers, default: str = "text/plain") -> tuple[str, dict[str, str]]:
    """The content type in lower case, and its parameters; the default where it is missing or is none
    (RFC 2045, 5.2)."""
    content_type, params = parse_parameters(headers.get("Content-Type"))
    return (content_type, params) if _CONTENT_TYPE.fullmatch(content_type) else (default, {})


def media_type_of(headers: Headers) -> str:
    """`content_type_of` without the parameters."""
    media_type = without_parameters(headers.get("Content-Type"))
    return media_type if _CONTENT_TYPE.fullmatch(media_type) else "text/plain"


def automated(headers: Headers, content_type: str, mail_from_empty: bool) -> bool:
    """Whether a machine sent the message, and answering it by a machine is wrong (webhooks: Automated)."""
    if mail_from_empty or any(name in headers for name in _AUTOMATED):
        return True
    if any(
        value.partition(";")[0].partition("(")[0].strip().lower() != "no"
        for value in headers.get_all("Auto-Submitted")
    ):
        return True  # RFC 3834, 5: the keyword may have parameters and comments
    return content_type == "multipart/report"


class _Reader:
    """What is left of the work that one message may cause."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.incomplete = False
        self.parts = MAX_PARTS + 1  # the message itself is none of them
        self.fields = _MAX_ALL_FIELDS
        self.false_delimiters = _MAX_FALSE_DELIMITERS
        self.searched = 16 * len(data) + _MAX_SEARCHED

    def entity(self, start: int, end: int, depth: int, default: str) -> Part:
        self.parts -= 1
        headers, body = read_headers(self.data, start, end, min(MAX_FIELDS, self.fields))
        self.fields -= len(headers.fields)
        beyond = headers.oversized
        content_type, params = content_type_of(headers, default)
        disposition, disposition_params = parse_parameters(headers.get("Content-Disposition"))
        encoding = headers.get("Content-Transfer-Encoding").partition("(")[0].strip().lower()
        members: tuple[Part, ...] = ()
        if content_type.startswith("multipart/"):
            encoding = ""  # RFC 2045, 6.4: anything else is not allowed
            boundary = params.get("boundary", "").rstrip().encode("utf-8", "replace")
            if boundary:
                limit_met, members = self.members(body, end, boundary, depth, content_type)
                beyond = beyond or limit_met
        self.incomplete = self.incomplete or beyond
        return Part(
            headers=headers,
            content_type=content_type,
            params=params,
            encoding=encoding if encoding in _ENCODINGS else "",
            content_id=headers.get("Content-ID"),
            disposition=disposition,
            filename=disposition_params.get("filename") or params.get("name", ""),
            parts=members,
            beyond_limits=beyond,
            data=self.data,
            start=body,
            end=end,
        )

    def members(
        self, start: int, end: int, boundary: bytes, depth: int, content_type: str
    ) -> tuple[bool, tuple[Part, ...]]:
        """The members of a multipart's body, and whether a limit kept some of them from being read."""
        self.searched -= end - start
        if depth >= MAX_DEPTH or self.searched < 0:
            return True, ()
        limit_met, ranges = self.split(start, end, b"--" + boundary)
        default = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
        members: list[Part] = []
        for member_start, member_end in ranges:
            # A member's own members are read before the next one, and count too.
            if self.parts <= 0 or self.fields <= 0:
                return True, tuple(members)
            members.append(self.entity(member_start, member_end, depth + 1, default))
        return limit_met, tuple(members)

    def split(self, start: int, end: int, delimiter: bytes) -> tuple[bool, list[tuple[int, int]]]:
        """The ranges between delimiter lines (RFC 2046, 5.1.1), up to the closing one or the end."""
        data = self.data
        ranges: list[tuple[int, int]] = []
        member = -1  # where the current member starts
        at = start
        while True:
            at = data.find(delimiter, at, end)
            if at < 0:
                break
            line_end = None
            if at == start or data[at - 1] == 0x0A:
                line_end = _DELIMITER_END.match(data, at + len(delimiter), end)
            if line_end is None:
                self.false_delimiters -= 1
                if self.false_delimiters < 0:
                    return True, ranges
                at += len(delimiter)
                continue
            if member >= 0:
                # The line end before a delimiter belongs to the delimiter.
                stop = at - 2 if data[at - 2 : at] == b"\r\n" else at - 1
                ranges.append((member, max(member, stop)))
                if len(ranges) > self.parts:
                    return True, ranges
            member = at = line_end.end()
            if line_end[1] is not None:
                return False, ranges
        if 0 <= member < end:
            ranges.append((member, end))
        return False, ranges


def _readable_parts(part: Part) -> tuple[Part | None, Part | None]:
    if part.content_type == "text/plain":
        return part, None
    if part.content_type == "text/html":
        return None, part
    members = [member for member in part.parts if member.disposition != "attachment"]
    text = next((member for member in members if member.content_type == "text/plain"), None)
    html = next((member for member in members if member.content_type == "text/html"), None)
    if part.content_type != "multipart/alternative" and text is not None and html is not None:
        text, html = (text, None) if text.start < html.start else (None, html)
    if text is not None or html is not None:
        return text, html
    for member in members:
        text, html = _readable_parts(member)
        if text is not None or html is not None:
            return text, html
    return None, None


def _text_of(part: Part | None) -> str:
    if part is None:
        return ""
    data = decode(part.data[part.start : min(part.end, part.start + _MAX_ENCODED)], part.encoding)
    text = decode_text(data[:_MAX_DECODED], part.params.get("charset", ""))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if part.content_type == "text/plain" and part.params.get("format", "").lower() == "flowed":
        text = unflow(text, delete_space=part.params.get("delsp", "").lower() == "yes")
    if len(text) > MAX_READABLE // 4:  # a character takes four octets at most
        text = text.encode()[:MAX_READABLE].decode("utf-8", "ignore")
    return text
