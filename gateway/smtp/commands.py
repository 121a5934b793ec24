"""Commands as a server reads them (RFC 5321 section 4.1.1).

One table gives each verb its reader, another each parameter of MAIL and RCPT; an extension adds its rows.
Every failure is a CommandError that carries the reply to give. Whether a command is in order is not known
here, except that an address that needs SMTPUTF8 must be announced (RFC 6531 section 3.4).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gateway.smtp.addresses import (
    MAX_DOMAIN,
    MAX_LOCALPART,
    MAX_REVERSE_LOCALPART,
    AddressError,
    Mailbox,
    parse_mailbox,
    split_path,
)
from gateway.smtp.replies import Reply

# Octets of a command line with CRLF: RFC 5321 section 4.5.3.1.4, and what the extensions add to it
# (RFC 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.4).
MAX_COMMAND_LINE = 512 + 26 + 17 + 10
_MAX_PARAMETERS = 20  # more than all that exist


class CommandError(Exception):
    """A line that is no command we take; `reply` is the answer to it."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, (text,))


class Body(Enum):
    """BODY= of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO (extended) or HELO. The name is what the client claims; it need not be a domain."""

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM. The reverse path is None for `<>`; `size` is in octets, None when not declared."""

    reverse_path: Mailbox | None
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO."""

    recipient: Mailbox


@dataclass(frozen=True, slots=True)
class Data:
    """DATA."""


@dataclass(frozen=True, slots=True)
class Rset:
    """RSET."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """NOOP, VRFY, EXPN or HELP: a command that changes nothing."""

    verb: str


Command = Hello | Mail | Rcpt | Data | Rset | Quit | Inquiry


def parse_command(line: bytes) -> Command:
    """Read a command line, given with its ending. Raises CommandError."""
    if not line.endswith(b"\r\n"):
        raise CommandError(500, "5.5.2", "Line must end in CR LF")
    try:
        text = line[:-2].decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(500, "5.5.2", "Line is not in UTF-8") from None
    if not text.isprintable():
        raise CommandError(500, "5.5.2", "Line has a control character")
    verb, _, rest = text.partition(" ")
    verb = verb.upper()
    read = _READERS.get(verb)
    if read is None:
        raise CommandError(500, "5.5.1", "Unknown command")
    return read(verb, rest.strip(" "))


def _hello(verb: str, rest: str) -> Hello:
    # Anything that is one word is taken: clients on home machines give names that are no domains.
    if not rest or " " in rest or not rest.isascii() or len(rest) > MAX_DOMAIN:
        raise CommandError(501, "5.5.4", f"Syntax: {verb} domain")
    return Hello(rest, extended=verb == "EHLO")


def _mail(_verb: str, rest: str) -> Mail:
    if rest[:5].upper() != "FROM:":
        raise CommandError(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    try:
        path, rest = split_path(rest[5:])
        reverse_path = parse_mailbox(path, max_localpart=MAX_REVERSE_LOCALPART) if path else None
        if reverse_path is not None and not reverse_path.domain:
            raise AddressError("address has no domain")
    except AddressError as error:
        raise CommandError(501, "5.1.7", f"Bad sender: {error}") from None
    mail = Mail(reverse_path, **_parameters(rest, _MAIL_PARAMETERS))
    if reverse_path is not None and not reverse_path.ascii and not mail.smtputf8:
        raise CommandError(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not given")
    return mail


def _rcpt(_verb: str, rest: str) -> Rcpt:
    if rest[:3].upper() != "TO:":
        raise CommandError(501, "5.5.4", "Syntax: RCPT TO:<address>")
    try:
        path, rest = split_path(rest[3:])
        recipient = parse_mailbox(path, max_localpart=MAX_LOCALPART)
    except AddressError as error:
        raise CommandError(501, "5.1.3", f"Bad recipient: {error}") from None
    return Rcpt(recipient, **_parameters(rest, _RCPT_PARAMETERS))


def _bare(command: Data | Rset | Quit) -> Callable[[str, str], Command]:
    def read(verb: str, rest: str) -> Command:
        if rest:
            raise CommandError(501, "5.5.4", f"{verb} takes no argument")
        return command

    return read


def _inquiry(verb: str, _rest: str) -> Inquiry:
    return Inquiry(verb)


_READERS: Mapping[str, Callable[[str, str], Command]] = {
    "EHLO": _hello,
    "HELO": _hello,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _bare(Data()),
    "RSET": _bare(Rset()),
    "QUIT": _bare(Quit()),
    "NOOP": _inquiry,
    "VRFY": _inquiry,
    "EXPN": _inquiry,
    "HELP": _inquiry,
}


# --- Parameters of MAIL and RCPT: keyword -> (field of the command, reader of the value) ---

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^= ]+))?")
_ParameterTable = Mapping[str, tuple[str, Callable[[str | None], object]]]


def _parameters(text: str, table: _ParameterTable) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    words = text.split()
    if len(words) > _MAX_PARAMETERS:
        raise CommandError(501, "5.5.4", "Too many parameters")
    for word in words:
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise CommandError(501, "5.5.4", "Malformed parameter")
        keyword = match[1].upper()
        if keyword not in table:
            raise CommandError(555, "5.5.4", f"Parameter {keyword} is not supported")
        field, read = table[keyword]
        if field in fields:
            raise CommandError(501, "5.5.4", f"Parameter {keyword} is given twice")
        try:
            fields[field] = read(match[2])
        except ValueError:
            raise CommandError(501, "5.5.4", f"Bad value of parameter {keyword}") from None
    return fields


def _size(value: str | None) -> int:
    # At most 20 digits (RFC 1870 section 4), which also bounds the cost of int().
    if value is None or len(value) > 20 or not (value.isascii() and value.isdigit()):
        raise ValueError
    return int(value)


def _body(value: str | None) -> Body:
    return Body((value or "").upper())


def _flag(value: str | None) -> bool:
    if value is not None:
        raise ValueError
    return True


_MAIL_PARAMETERS: _ParameterTable = {
    "SIZE": ("size", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _flag),
}
_RCPT_PARAMETERS: _ParameterTable = {}
