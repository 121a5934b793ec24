"""The header of a message that a mail client hands in, made fit to be sent (RFC 6409, 6 and 8).

What the fields say is read leniently, but From: there must be one field with one address that every reader
sees alike, since it is what the sender's right to it is checked by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway.mail.address import Address, AddressError
from gateway.mail.compose import MAX_MESSAGE_ID
from gateway.mail.encoded_words import decode_words
from gateway.mail.fields import fold_field, format_date
from gateway.mail.headers import Headers, parse_message_ids, read_headers, unfold

EXTRA = "x-mox-extra-"  # a field of that name and a key: a value for the webhooks of this message
MAX_EXTRA = 64 * 1024  # characters of all keys and values; every webhook of every recipient repeats them

# Who also gets the message is not for the others to read, and where it came from is the last server's to say.
_REMOVED = frozenset({"bcc", "resent-bcc", "return-path"})
# Kept once: what the gateway adds must not become a second one.
_ONCE = frozenset({"message-id", "date"})
# Of these, too, there can be one only (RFC 5322, 3.6). Several To or Cc are one list with commas in between
# (4.5.3 there); so are lists of other sorts, with what separates them. Of the rest the first is kept.
_SEPARATORS = {"to": b",", "cc": b",", "reply-to": b",", "in-reply-to": b"", "references": b""}
_SINGLE = (*_SEPARATORS, "subject", "sender")
_BETWEEN = " \t\r\n,"  # what says nothing at the ends of a list

_WHOLE_ID = re.compile(r'<[^<>@"]++@[^<>@"]++>')
_SPECIAL = r'<>@,;:()"\\\[\]'
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_COMMENT = r"\([^()\\]*+\)"
_FROM = re.compile(
    rf"""\s*+(?:
    (?:=\?[^?\s]++\?[bBqQ]\?[^?\s"<>]*+\?= | [^{_SPECIAL}] | {_QUOTED} | {_COMMENT})*+ <\s*+([^<>]++)>
    | ((?:{_QUOTED} | [^\s{_SPECIAL}]++)@[^\s<>@,;()"\\]++)
    )\s*+(?:{_COMMENT}\s*+)?+""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedHeader:
    """`section` is the header to send, each field ended by CRLF, without the empty line. `extra` has
    canonical keys. `tls_required_no`: RFC 8689, 5. `utf8`: it has text of RFC 6532."""

    section: bytes
    from_: Address
    message_id: str
    subject: str
    tls_required_no: bool
    extra: Mapping[str, str]
    utf8: bool


@dataclass(frozen=True, slots=True)
class HeaderFault:
    """Why the message can't be sent. `about` is "from" where it is about whose message it is."""

    about: Literal["from", "header"]
    text: str


def rewrite(
    section: bytes, *, message_id: str, date: datetime, keep_extra: bool = False
) -> SubmittedHeader | HeaderFault:
    """Read a header section and make the one to send: `message_id` and `date` are added where there is none.

    `keep_extra`: the fields for webhooks are delivered too. Linear; never raises.
    """
    headers, _ = read_headers(section)
    if headers.oversized:
        return HeaderFault("header", "the header is too large")
    if headers.malformed:
        return HeaderFault("header", "a line of the header is no header field")
    headers = _singly(headers)
    from_ = _from(headers)
    if isinstance(from_, HeaderFault):
        return from_
    extra = _extra(headers)
    if isinstance(extra, HeaderFault):
        return extra
    out, given, dated = _kept(headers, keep_extra)
    if not given:
        out.append(fold_field("Message-ID", message_id))
    if not dated:
        out.append(fold_field("Date", format_date(date)))
    written = b"".join(out)
    return SubmittedHeader(
        section=written,
        from_=from_,
        message_id=given or message_id,
        subject=headers.text("Subject"),
        tls_required_no=any(value.lower() == "no" for value in headers.get_all("TLS-Required")),
        extra=extra,
        utf8=not written.isascii() and _is_utf8(written),
    )


def _singly(headers: Headers) -> Headers:
    """With one field of each that there can be one of, From, Message-ID and Date aside.

    What is there once stays byte for byte; of what is there several times, what is empty says nothing. A
    signature of the client over one of several is lost with it: servers would refuse the message.
    """
    several = {name for name in _SINGLE if headers.count(name) > 1}
    if not several:
        return headers
    said: dict[str, list[bytes]] = {name: [] for name in several}
    for name, value in headers.fields:
        key = name.decode("ascii").lower()
        if key in several and unfold(value).strip(_BETWEEN):
            said[key].append(value)
    fields: list[tuple[bytes, bytes]] = []
    for name, value in headers.fields:
        key = name.decode("ascii").lower()
        if key not in several:
            fields.append((name, value))
        elif values := said.pop(key, None):
            separator = _SEPARATORS.get(key)
            first, *others = values
            if separator is not None:
                # The first keeps its beginning: its lines must not get longer.
                between = _BETWEEN.encode()
                parts = [first.rstrip(between), *(one.strip(between) for one in others)]
                first = (separator + b"\r\n ").join(parts)
            fields.append((name, first))
    return Headers(tuple(fields))


def _kept(headers: Headers, keep_extra: bool) -> tuple[list[bytes], str, bool]:
    """The fields that are sent on, the Message-ID among them ("" if there is none that can be used), and
    whether there is a Date.

    They stay byte for byte, since the client may have signed them. But there can be one Message-ID and one
    Date only (RFC 5322, 3.6), and servers refuse mail that has more of them, or one that is empty: of these
    the first that says anything is kept. A Message-ID without its brackets is written as it is understood
    here, or what is told of the message, and what answers to it, would name another than it has.
    """
    out: list[bytes] = []
    given = ""
    seen: set[str] = set()
    for name, value in headers.fields:
        key = name.decode("ascii").lower()
        if key in _REMOVED or (key.startswith(EXTRA) and not keep_extra):
            continue
        if key in _ONCE:
            text = unfold(value)
            if key in seen or not text:
                continue
            seen.add(key)
            if key == "message-id":
                given = _message_id(text)
                if not given:
                    continue
                if given not in text:
                    value = b" " + given.encode("ascii")
        out.append(b"%s:%s\r\n" % (name, value))
    return out, given, "date" in seen


def _message_id(text: str) -> str:
    """What the gateway takes for the Message-ID where a field says that; "" if it can't be used."""
    found = next(iter(parse_message_ids(text)), "")
    if len(found) > MAX_MESSAGE_ID or not (found.isascii() and found.isprintable()):
        return ""
    # What stands in brackets is kept even without an "@", as old software writes it. A word with "@" that was
    # only taken for one may be half of something else.
    return found if found in text or _WHOLE_ID.fullmatch(found) else ""


def _from(headers: Headers) -> Address | HeaderFault:
    fields = headers.get_all("From")
    if len(fields) != 1:
        return HeaderFault("from", f"there must be one From header field, and there are {len(fields)}")
    match = _FROM.fullmatch(fields[0])
    if match is None:
        return HeaderFault("from", "From must have exactly one address, well-formed")
    try:
        return Address.parse((match[1] or match[2]).strip())
    except AddressError as exc:
        return HeaderFault("from", f"From: {exc}")


def _extra(headers: Headers) -> dict[str, str] | HeaderFault:
    found: dict[str, str] = {}
    size = 0
    for name, value in headers:
        if not name.lower().startswith(EXTRA):
            continue
        key = canonical(name[len(EXTRA) :])
        if not key:
            return HeaderFault("header", f"{name}: there is no key behind the name")
        if key in found:
            return HeaderFault("header", f"X-Mox-Extra-{key} is given twice")
        found[key] = decode_words(unfold(value))
        size += len(key) + len(found[key])
        if size > MAX_EXTRA:
            return HeaderFault("header", f"the X-Mox-Extra fields have more than {MAX_EXTRA} characters")
    return found


def canonical(key: str) -> str:
    """Each word between dashes with a capital: `order-id` is `Order-Id`."""
    return "-".join(word.capitalize() for word in key.split("-"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
