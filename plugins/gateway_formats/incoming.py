"""What formats of other services need of a message that came in: its header fields, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway import IncomingEvent
from gateway.mail.address_list import NameAddress, parse_address_list
from gateway.mail.encoded_words import decode_words
from gateway.mail.headers import unfold
from gateway.mail.structure import Parsed, Part, decoded, parse

MAX_FIELDS = 1000  # of the header that are told
_ADDRESSES = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"})
SMALL = 64 * 1024  # bytes of a message; a larger one is taken apart in a thread


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a message."""

    name: str
    content_type: str  # lower case, without parameters
    content_id: str  # without its angle brackets; "" if there is none
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Contents:
    headers: tuple[tuple[str, str], ...]  # in order, decoded, each on one line
    attachments: tuple[Attachment, ...]


def contents(event: IncomingEvent, most: int) -> Contents:
    """`most`: bytes of all attachments together; those that do not fit are left out, the last first."""
    parsed = parse(event.data)
    fields = parsed.headers.fields[:MAX_FIELDS]
    return Contents(
        headers=tuple((name.decode("ascii"), _text(name, value)) for name, value in fields),
        attachments=tuple(_attachments(parsed, most)),
    )


def _text(name: bytes, value: bytes) -> str:
    text = unfold(value)
    # A name is quoted again once it is decoded: it may have commas and angle brackets.
    found = parse_address_list(text) if name.lower() in _ADDRESSES else ()
    return mailboxes(found) if found else decode_words(text)


def _attachments(parsed: Parsed, most: int) -> Iterator[Attachment]:
    """All parts but the text that a person reads."""
    read: set[str] = set()
    for part in _leaves(parsed.root):
        is_text = part.content_type in ("text/plain", "text/html") and not part.filename
        if is_text and part.disposition != "attachment" and part.content_type not in read:
            read.add(part.content_type)
            continue
        most -= part.decoded_size
        if most < 0:
            return
        yield Attachment(part.filename, part.content_type, part.content_id.strip("<>"), decoded(part))


def _leaves(part: Part) -> Iterator[Part]:
    if part.parts:
        for inner in part.parts:
            yield from _leaves(inner)
    elif not part.content_type.startswith("multipart/"):
        yield part


def mailbox(entry: NameAddress) -> str:
    """ "Ada L." <ada@example.com>"""
    if not entry.name:
        return entry.address
    quoted = entry.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{entry.address}>'


def mailboxes(entries: tuple[NameAddress, ...]) -> str:
    return ", ".join(mailbox(entry) for entry in entries)
