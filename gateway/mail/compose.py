"""Composing a message from the fields of a Send request.

    mixed                         if there are attached files
      related                     if there are inline files
        alternative               if there is more than one form of the text
          text, HTML, alternative files
        inline files
      attached files

A level that would hold one part only is left out. All that is written is ASCII with lines of at most 998
octets, so any server takes it; only header fields are UTF-8 where an address needs SMTPUTF8.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.mail.address import Address, format_mailbox
from gateway.mail.content_type import sniff
from gateway.mail.fields import FieldError, check_text, fold_field, format_date, text_field
from gateway.mail.headers import MAX_SECTION
from gateway.mail.parameters import format_parameter
from gateway.mail.transfer import encode_base64, encode_text

MAX_MESSAGE_ID = 900  # octets, so that "In-Reply-To" and one fit a line of 998
MAX_FILE_NAME = 255  # characters, as long as file systems take
MAX_CONTENT_TYPE = 500  # characters

# Fields that `Draft.headers` may not set: the gateway writes them, or they steer how the message is read.
REFUSED_HEADERS = frozenset(
    {
        "from",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "return-path",
        "received",
        "dkim-signature",
    }
)

# msg-id, RFC 5322, 3.6.4, without spelling out its inside; in References old software left out the "@".
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]++@[!-;=?A-~]++>")
_REFERENCE = re.compile(r"<[!-;=?-~]++>")
_CONTENT_ID = re.compile(r"[!-;=?-~]++")
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_CONTENT_TYPE = re.compile(rf'({_WORD})/{_WORD}(?: *; *{_WORD}=(?:{_WORD}|"(?:[ !#-\[\]-~]|\\[ -~])*+"))*+')


class ComposeError(FieldError):
    """A value of the request can't be composed. `field` names it as the API does: `AttachedFiles[0].Name`."""


class MissingBody(ComposeError):
    """Neither Text nor HTML."""


class MalformedMessageID(ComposeError):
    """A MessageID or reference that is not `<...@...>`."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name of who reads it ("" if none)."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class File:
    """A file of the request. `content_type` "" has it detected; `content_id` with or without its brackets.

    `encoded`: its base64, in lines, in pieces, where that was made before; then `data` is its beginning, of
    more octets than are looked at to detect the type.
    """

    name: str
    content_type: str
    content_id: str
    data: bytes
    encoded: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What to compose; names and rules are those of Send. `date` is aware. There is no BCC: it has no place
    in what is delivered (see `bcc_field` for the sender's own copy)."""

    from_: Sequence[Mailbox]
    to: Sequence[Mailbox] = ()
    cc: Sequence[Mailbox] = ()
    reply_to: Sequence[Mailbox] = ()
    message_id: str
    references: Sequence[str] = ()
    date: datetime
    subject: str = ""
    text: str = ""
    html: str = ""
    headers: Sequence[tuple[str, str]] = ()
    alternative_files: Sequence[File] = ()
    inline_files: Sequence[File] = ()
    attached_files: Sequence[File] = ()
    user_agent: str = ""
    require_tls_no: bool = False


@dataclass(frozen=True, slots=True)
class Composed:
    """A message, CRLF throughout. `smtputf8`: an address in its header needs that extension. `has_8bit`: it
    has octets that are not ASCII, which is so only in a header with `smtputf8`."""

    data: bytes
    message_id: str
    smtputf8: bool
    has_8bit: bool


@dataclass(frozen=True, slots=True)
class _Entity:
    """A body part: its own header fields, and its body in pieces. `text` is set where a line of the body
    could be one of a delimiter (base64 and quoted-printable have no "=_")."""

    header: bytes
    body: list[bytes]
    text: bytes = b""


def new_message_id(hostname: str) -> str:
    """A random Message-ID at `hostname` (in ASCII), 128 bits, in its brackets."""
    return f"<{secrets.token_urlsafe(16)}@{hostname}>"


def check_message_id(message_id: str, field: str = "MessageID") -> None:
    """Raises MalformedMessageID unless it is `<left@right>` in printable ASCII (RFC 5322, 3.6.4)."""
    if not _MESSAGE_ID.fullmatch(message_id) or len(message_id) > MAX_MESSAGE_ID:
        raise MalformedMessageID(
            field, f"must be <left@right> in ASCII without spaces, at most {MAX_MESSAGE_ID} octets"
        )


def compose(draft: Draft) -> Composed:
    """Writes the message. Raises ComposeError (or its kinds above) naming the request's field."""
    utf8 = not all(
        mailbox.address.is_ascii
        for group in (draft.from_, draft.to, draft.cc, draft.reply_to)
        for mailbox in group
    )
    try:
        header = _header(draft, utf8)
        entity = _body(draft)
    except ComposeError:
        raise
    except FieldError as exc:
        raise ComposeError(exc.field, exc.message) from None
    if len(header) > MAX_SECTION:
        raise ComposeError("Headers", f"all header fields together are longer than {MAX_SECTION} octets")
    data = b"".join([header, entity.header, b"\r\n", *entity.body])
    return Composed(data, draft.message_id, utf8, not header.isascii())


def bcc_field(bcc: Sequence[Mailbox]) -> bytes:
    """The Bcc field to put before the copy that the sender keeps; nothing for no addresses."""
    utf8 = not all(mailbox.address.is_ascii for mailbox in bcc)
    try:
        return _addresses("Bcc", "BCC", bcc, utf8)
    except FieldError as exc:
        raise ComposeError(exc.field, exc.message) from None


# --- Header --------------------------------------------------------------------------------------


def _header(draft: Draft, utf8: bool) -> bytes:
    check_message_id(draft.message_id)
    if len(draft.from_) != 1:
        raise ComposeError("From", "exactly one address is needed")
    try:
        date = format_date(draft.date)
    except ValueError as exc:
        raise ComposeError("Date", str(exc)) from None
    for index, reference in enumerate(draft.references):
        if not _REFERENCE.fullmatch(reference) or len(reference) > MAX_MESSAGE_ID:
            raise MalformedMessageID(f"References[{index}]", "must be <left@right> in ASCII without spaces")

    out = [
        _addresses("From", "From", draft.from_, utf8),
        _addresses("To", "To", draft.to, utf8),
        _addresses("Cc", "CC", draft.cc, utf8),
        _addresses("Reply-To", "ReplyTo", draft.reply_to, utf8),
        text_field("Subject", draft.subject, utf8),
        fold_field("Date", date),
        fold_field("Message-ID", draft.message_id, field="MessageID"),
    ]
    if draft.references:
        out.append(fold_field("In-Reply-To", draft.references[-1], field="References"))
        out.append(fold_field("References", " ".join(draft.references)))
    custom = _custom_headers(draft, utf8)
    out.extend(custom.values())
    names = {name.lower() for name, _ in draft.headers}
    if draft.user_agent and not names & {"user-agent", "x-mailer"}:
        out.append(text_field("User-Agent", draft.user_agent, utf8))
    if draft.require_tls_no and b"tls-required: no\r\n" not in {field.lower() for field in custom.values()}:
        out.append(b"TLS-Required: No\r\n")  # RFC 8689, 5
    out.append(b"MIME-Version: 1.0\r\n")
    return b"".join(out)


def _addresses(name: str, field: str, mailboxes: Sequence[Mailbox], utf8: bool) -> bytes:
    if not mailboxes:
        return b""
    for index, mailbox in enumerate(mailboxes):
        check_text(f"{field}[{index}].Name", mailbox.name)
    return fold_field(
        name, ", ".join([format_mailbox(m.name, m.address, utf8) for m in mailboxes]), utf8, field
    )


def _custom_headers(draft: Draft, utf8: bool) -> dict[int, bytes]:
    """The fields of `headers` by their index."""
    out: dict[int, bytes] = {}
    for index, (name, value) in enumerate(draft.headers):
        field = f"Headers[{index}]"
        lower = name.lower()
        if lower in REFUSED_HEADERS or lower.startswith("content-"):
            raise ComposeError(field, f"header {name} can't be set here")
        if draft.references and lower in ("references", "in-reply-to"):
            raise ComposeError(field, f"header {name} can't be set here together with References")
        # Values with a syntax of their own (List-Unsubscribe, encoded words) are the caller's business: only
        # what can't be written as it is gets encoded.
        as_it_is = value.isascii() and "=?" in value
        out[index] = (
            fold_field(name, value, utf8, field) if as_it_is else text_field(name, value, utf8, field)
        )
    return out


# --- Body ----------------------------------------------------------------------------------------


def _body(draft: Draft) -> _Entity:
    forms: list[_Entity] = []
    if draft.text:
        forms.append(_text_part("Text", draft.text, "plain"))
    if draft.html:
        forms.append(_text_part("HTML", draft.html, "html"))
    if not forms:
        raise MissingBody("Text", "a message needs Text or HTML")
    if len(forms) == 1 and not (draft.alternative_files or draft.inline_files or draft.attached_files):
        return forms[0]
    token = _boundary_token(forms)
    forms.extend(_file_parts("AlternativeFiles", draft.alternative_files, ""))
    entity = forms[0] if len(forms) == 1 else _multipart("alternative", f"=_a{token}", forms)
    if draft.inline_files:
        # RFC 2387, 3.1: the type of the root, which is the first part, is a required parameter.
        root = "multipart/alternative" if len(forms) > 1 else "text/plain" if draft.text else "text/html"
        parts = [entity, *_file_parts("InlineFiles", draft.inline_files, "inline")]
        entity = _multipart("related", f"=_r{token}", parts, f'; type="{root}"')
    if draft.attached_files:
        parts = [entity, *_file_parts("AttachedFiles", draft.attached_files, "attachment")]
        entity = _multipart("mixed", f"=_m{token}", parts)
    return entity


def _text_part(field: str, text: str, subtype: str) -> _Entity:
    try:
        encoding, body = encode_text(text)
    except UnicodeEncodeError as exc:
        raise ComposeError(field, f"lone surrogate at position {exc.start} is not allowed") from None
    charset = "us-ascii" if encoding == "7bit" else "utf-8"
    header = f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    return _Entity(header.encode(), [body], body if encoding == "7bit" else b"")


def _boundary_token(parts: Iterable[_Entity]) -> str:
    """A random token that is in none of the texts; "=_" before it can't be in an encoded body."""
    while True:
        token = secrets.token_hex(12)
        if not any(token.encode() in part.text for part in parts):
            return token


def _multipart(subtype: str, boundary: str, parts: Sequence[_Entity], parameters: str = "") -> _Entity:
    delimiter = f"\r\n--{boundary}\r\n".encode()
    body: list[bytes] = [delimiter[2:]]
    for index, part in enumerate(parts):
        if index:
            body.append(delimiter)
        body += [part.header, b"\r\n", *part.body]
    body.append(f"\r\n--{boundary}--\r\n".encode())
    header = fold_field("Content-Type", f'multipart/{subtype}; boundary="{boundary}"{parameters}')
    return _Entity(header, body)


def _file_parts(field: str, files: Sequence[File], disposition: str) -> list[_Entity]:
    return [_file_part(f"{field}[{index}]", file, disposition) for index, file in enumerate(files)]


def _file_part(field: str, file: File, disposition: str) -> _Entity:
    check_text(f"{field}.Name", file.name)
    if len(file.name) > MAX_FILE_NAME:
        raise ComposeError(f"{field}.Name", f"is longer than {MAX_FILE_NAME} characters")
    content_type = file.content_type or sniff(file.data, file.name)
    _check_content_type(f"{field}.ContentType", content_type)
    out = [fold_field("Content-Type", content_type, field=f"{field}.ContentType")]
    if disposition or file.name:
        # An alternative form is no attachment, but may have a name.
        value = disposition or "inline"
        if file.name:
            value += format_parameter("filename", file.name)
        out.append(fold_field("Content-Disposition", value, field=f"{field}.Name"))
    if file.content_id:
        out.append(_content_id(f"{field}.ContentID", file.content_id))
    out.append(b"Content-Transfer-Encoding: base64\r\n")
    return _Entity(b"".join(out), list(file.encoded) or [encode_base64(file.data)])


def _check_content_type(field: str, content_type: str) -> None:
    check_text(field, content_type)
    match = _CONTENT_TYPE.fullmatch(content_type) if len(content_type) <= MAX_CONTENT_TYPE else None
    if match is None:
        raise ComposeError(
            field, f"{content_type[:100]!a} is no content type, such as text/plain; charset=utf-8"
        )
    if match[1].lower() == "multipart":
        raise ComposeError(field, "a file can't be a multipart")


def _content_id(field: str, content_id: str) -> bytes:
    check_text(field, content_id)
    inner = content_id[1:-1] if content_id.startswith("<") and content_id.endswith(">") else content_id
    if not _CONTENT_ID.fullmatch(inner) or len(inner) > MAX_MESSAGE_ID:
        raise ComposeError(field, "must be printable ASCII without spaces, such as <logo@example.org>")
    return fold_field("Content-ID", f"<{inner}>", field=field)
