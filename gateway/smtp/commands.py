"""Commands as a server reads them (RFC 5321 section 4.1.1, RFC 3030, RFC 3207, RFC 4954).

One table gives each verb its reader, another each parameter of MAIL and RCPT; an extension adds its rows.
Every failure is a CommandError that carries the reply to give. Whether a command is in order is not known
here, except that an address that needs SMTPUTF8 must be announced (RFC 6531 section 3.4).
"""

import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from gateway.smtp.addresses import (
    MAX_DOMAIN,
    MAX_LOCALPART,
    MAX_REVERSE_LOCALPART,
    AddressError,
    Mailbox,
    parse_mailbox,
    split_path,
)
from gateway.smtp.dsn import MAX_ORCPT
from gateway.smtp.replies import Reply

# Octets of a command line with CRLF: RFC 5321 section 4.5.3.1.4, and what the extensions add to it
# (RFC 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.4).
MAX_COMMAND_LINE = 512 + 26 + 17 + 10
# What extensions that are not always offered add to it: RFC 4954 section 5, RFC 4865 section 4, RFC 3461
# sections 4.1 to 4.4, RFC 8689 section 2.
MORE_COMMAND_LINE: Mapping[str, int] = {"AUTH": 500, "FUTURERELEASE": 34, "DSN": 500, "REQUIRETLS": 11}
MAX_AUTH_LINE = 12288  # octets with CRLF of AUTH and of what follows it (RFC 4954 section 4)
_MAX_PARAMETERS = 20  # more than all that exist


class CommandError(Exception):
    """A line that is no command we take; `reply` is the answer to it. `fatal`: what follows it may be no
    command."""

    def __init__(self, code: int, enhanced: str, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, (text,))
        self.fatal = fatal


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
    """MAIL FROM. The reverse path is None for `<>`; `size` is in octets, None when not declared.

    `hold_for` is in seconds (RFC 4865), `hold_until` has a time zone; there is one of them at most. `ret` and
    `envid` are of RFC 3461, `envid` decoded. AUTH= is read and not believed (RFC 4954 section 5).
    """

    reverse_path: Mailbox | None
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    require_tls: bool = False
    hold_for: int | None = None
    hold_until: datetime | None = None
    ret: Literal["", "FULL", "HDRS"] = ""
    envid: str = ""
    auth: str = ""


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO. `notify` holds words of RFC 3461 section 4.1, `orcpt` is "type;address", decoded."""

    recipient: Mailbox
    notify: tuple[str, ...] = ()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """DATA."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT (RFC 3030 section 2): so many octets of the message follow the line."""

    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Rset:
    """RSET."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS (RFC 3207)."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (RFC 4954): the mechanism in capitals, and the initial response, None when there is none."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:  # a response may be a password
        return f"Auth({self.mechanism!r})"


@dataclass(frozen=True, slots=True)
class Inquiry:
    """NOOP, VRFY, EXPN or HELP: a command that changes nothing."""

    verb: str


Command = Hello | Mail | Rcpt | Data | Bdat | Rset | Quit | StartTls | Auth | Inquiry


def parse_command(line: bytes, offered: frozenset[str] = frozenset()) -> Command:
    """Read a command line, given with its ending. Raises CommandError.

    `offered` are keywords of EHLO that bring parameters and are not always offered: those of
    `MORE_COMMAND_LINE`.
    """
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
    return read(verb, rest.strip(" "), offered)


def parse_auth_response(line: bytes) -> bytes | None:
    """Read what a client says within AUTH, given with its ending; None is its wish to end it. Raises
    CommandError."""
    text = line.removesuffix(b"\r\n")
    return None if text == b"*" else _base64(text)


def _base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise CommandError(501, "5.5.2", "Not base64") from None


def _auth(_verb: str, rest: str, _offered: frozenset[str]) -> Auth:
    mechanism, space, initial = rest.partition(" ")
    if not _MECHANISM.fullmatch(mechanism) or not initial.isascii():
        raise CommandError(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
    if not space:
        return Auth(mechanism.upper(), None)
    return Auth(mechanism.upper(), b"" if initial == "=" else _base64(initial.encode()))


def _hello(verb: str, rest: str, _offered: frozenset[str]) -> Hello:
    # Anything that is one word is taken: clients on home machines give names that are no domains.
    if not rest or " " in rest or not rest.isascii() or len(rest) > MAX_DOMAIN:
        raise CommandError(501, "5.5.4", f"Syntax: {verb} domain")
    return Hello(rest, extended=verb == "EHLO")


def _mail(_verb: str, rest: str, offered: frozenset[str]) -> Mail:
    if rest[:5].upper() != "FROM:":
        raise CommandError(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    try:
        path, rest = split_path(rest[5:])
        reverse_path = parse_mailbox(path, max_localpart=MAX_REVERSE_LOCALPART) if path else None
        if reverse_path is not None and not reverse_path.domain:
            raise AddressError("address has no domain")
    except AddressError as error:
        raise CommandError(501, "5.1.7", f"Bad sender: {error}") from None
    mail = Mail(reverse_path, **_parameters(rest, _MAIL_PARAMETERS, offered))
    if mail.hold_for is not None and mail.hold_until is not None:
        raise CommandError(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
    if reverse_path is not None and not reverse_path.ascii and not mail.smtputf8:
        raise CommandError(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not given")
    return mail


def _rcpt(_verb: str, rest: str, offered: frozenset[str]) -> Rcpt:
    if rest[:3].upper() != "TO:":
        raise CommandError(501, "5.5.4", "Syntax: RCPT TO:<address>")
    try:
        path, rest = split_path(rest[3:])
        recipient = parse_mailbox(path, max_localpart=MAX_LOCALPART)
    except AddressError as error:
        raise CommandError(501, "5.1.3", f"Bad recipient: {error}") from None
    return Rcpt(recipient, **_parameters(rest, _RCPT_PARAMETERS, offered))


def _bare(command: Data | Rset | Quit | StartTls) -> Callable[[str, str, frozenset[str]], Command]:
    def read(verb: str, rest: str, _offered: frozenset[str]) -> Command:
        if rest:
            raise CommandError(501, "5.5.4", f"{verb} takes no argument")
        return command

    return read


def _bdat(_verb: str, rest: str, _offered: frozenset[str]) -> Bdat:
    match = _CHUNK.fullmatch(rest)
    if match is None:
        raise CommandError(501, "5.5.4", "Syntax: BDAT size [LAST]", fatal=True)
    return Bdat(int(match[1]), last=match[2] is not None)


def _inquiry(verb: str, _rest: str, _offered: frozenset[str]) -> Inquiry:
    return Inquiry(verb)


_READERS: Mapping[str, Callable[[str, str, frozenset[str]], Command]] = {
    "EHLO": _hello,
    "HELO": _hello,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _bare(Data()),
    "BDAT": _bdat,
    "RSET": _bare(Rset()),
    "QUIT": _bare(Quit()),
    "STARTTLS": _bare(StartTls()),
    "AUTH": _auth,
    "NOOP": _inquiry,
    "VRFY": _inquiry,
    "EXPN": _inquiry,
    "HELP": _inquiry,
}


# --- Parameters of MAIL and RCPT: keyword -> (field of the command, reader of the value, extension) ---

_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")  # RFC 4422 section 3.1
_CHUNK = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)  # 20 digits also bound the cost of int()
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^= ]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 section 4
_HEX = re.compile(r"\+([0-9A-F]{2})")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")
# None: an extension that is always offered.
_ParameterTable = Mapping[str, tuple[str, Callable[[str | None], object], str | None]]


def _parameters(text: str, table: _ParameterTable, offered: frozenset[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    words = text.split()
    if len(words) > _MAX_PARAMETERS:
        raise CommandError(501, "5.5.4", "Too many parameters")
    for word in words:
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise CommandError(501, "5.5.4", "Malformed parameter")
        keyword = match[1].upper()
        field, read, extension = table.get(keyword, ("", _flag, ""))
        if extension is not None and extension not in offered:
            raise CommandError(555, "5.5.4", f"Parameter {keyword} is not supported")
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


def _hold_for(value: str | None) -> int:
    if value is None or not re.fullmatch(r"[1-9][0-9]{0,8}", value):  # RFC 4865 section 4
        raise ValueError
    return int(value)


def _hold_until(value: str | None) -> datetime:
    if value is None or not _RFC3339.fullmatch(value):
        raise ValueError
    return datetime.fromisoformat(value.upper())


def _ret(value: str | None) -> str:
    if value is None or value.upper() not in ("FULL", "HDRS"):
        raise ValueError
    return value.upper()


def _xtext(value: str | None) -> str:
    """Decoded; only to printable ASCII, so that it can stand in a report."""
    if value is None or not value.isascii() or not _XTEXT.fullmatch(value):
        raise ValueError
    text = _HEX.sub(lambda match: chr(int(match[1], 16)), value)
    if not (text.isascii() and text.isprintable()):
        raise ValueError
    return text


def _envid(value: str | None) -> str:
    if value is None or len(value) > 100:  # RFC 3461 section 4.4
        raise ValueError
    return _xtext(value)


def _notify(value: str | None) -> tuple[str, ...]:
    words = tuple((value or "").upper().split(","))
    if words == ("NEVER",):
        return words
    if len(set(words)) != len(words) or not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}:
        raise ValueError
    return words


def _orcpt(value: str | None) -> str:
    kind, _, address = (value or "").partition(";")
    if not _MECHANISM.fullmatch(kind) or not 1 <= len(address) <= MAX_ORCPT:
        raise ValueError
    # RFC 6533 section 3 has a form in UTF-8; it is kept as it is written.
    return f"{kind};{address if kind.lower() == 'utf-8' else _xtext(address)}"


def _auth_parameter(value: str | None) -> str:
    return "" if value == "<>" else _xtext(value)


_MAIL_PARAMETERS: _ParameterTable = {
    "SIZE": ("size", _size, None),
    "BODY": ("body", _body, None),
    "SMTPUTF8": ("smtputf8", _flag, None),
    "REQUIRETLS": ("require_tls", _flag, "REQUIRETLS"),
    "HOLDFOR": ("hold_for", _hold_for, "FUTURERELEASE"),
    "HOLDUNTIL": ("hold_until", _hold_until, "FUTURERELEASE"),
    "RET": ("ret", _ret, "DSN"),
    "ENVID": ("envid", _envid, "DSN"),
    "AUTH": ("auth", _auth_parameter, "AUTH"),
}
_RCPT_PARAMETERS: _ParameterTable = {
    "NOTIFY": ("notify", _notify, "DSN"),
    "ORCPT": ("orcpt", _orcpt, "DSN"),
}
