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
from gateway.mail.headers import Headers, read_headers, unfold

EXTRA = "x-mox-extra-"  # a field of that name and a key: a value for the webhooks of this message
MAX_EXTRA = 64 * 1024  # characters of all keys and values; every webhook of every recipient repeats them

# Who also gets the message is not for the others to read, and where it came from is the last server's to say.
_REMOVED = frozenset({"bcc", "resent-bcc", "return-path"})

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
    from_ = _from(headers)
    if isinstance(from_, HeaderFault):
        return from_
    extra = _extra(headers)
    if isinstance(extra, HeaderFault):
        return extra
    given = headers.message_ids("Message-ID")
    usable = bool(given) and len(given[0]) <= MAX_MESSAGE_ID and given[0].isascii() and given[0].isprintable()
    out = [
        b"%s:%s\r\n" % (name, value)
        for name, value in headers.fields
        if not _left_out(name.decode("ascii").lower(), usable, keep_extra)
    ]
    if not usable:
        out.append(fold_field("Message-ID", message_id))
    if not headers.get("Date"):
        out.append(fold_field("Date", format_date(date)))
    written = b"".join(out)
    return SubmittedHeader(
        section=written,
        from_=from_,
        message_id=given[0] if usable else message_id,
        subject=headers.text("Subject"),
        tls_required_no=any(value.lower() == "no" for value in headers.get_all("TLS-Required")),
        extra=extra,
        utf8=not written.isascii() and _is_utf8(written),
    )


def _left_out(name: str, message_id: bool, keep_extra: bool) -> bool:
    if name in _REMOVED or (name == "message-id" and not message_id):
        return True
    return name.startswith(EXTRA) and not keep_extra


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
