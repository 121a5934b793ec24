"""Mailboxes and the paths of MAIL and RCPT (RFC 5321 section 4.1.2, RFC 6531 section 3.3).

A Mailbox holds the decoded localpart: the quotes and backslashes of a quoted localpart are only a way to
write it, and are put back when it is printed. Nothing here folds case or normalises; that is a decision of
whoever compares. Every failure is an AddressError whose text can go into a reply.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

MAX_LOCALPART = 64  # octets (RFC 5321 section 4.5.3.1.1)
# Bounce addresses made by machines (VERP, SRS) are longer in practice; only a reverse-path may be.
MAX_REVERSE_LOCALPART = 128
MAX_DOMAIN = 255  # octets (RFC 5321 section 4.5.3.1.2)
MAX_LABEL = 63  # octets (RFC 1035 section 2.3.4)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_DOMAIN = r"\[[^\]\s<>]*\]|[^\s@:,<>\[\]\"]+"
_MAILBOX = re.compile(rf"({_QUOTED}|[^\"\s@:,<>\\]+)@({_DOMAIN})")
_SOURCE_ROUTE = re.compile(rf"@(?:{_DOMAIN})(?:,@(?:{_DOMAIN}))*:")
_PATH = re.compile(rf"<((?:{_QUOTED}|[^\"<>\s])*)>")
# Underscores are no part of a host name, but of domains that send mail.
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]*[A-Za-z0-9_\x80-\U0010ffff])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


class AddressError(ValueError):
    """An address is malformed or too long. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A localpart, decoded, and a domain (a name in either form, or an address literal in brackets).

    The domain is empty only for the postmaster of RFC 5321 section 4.5.1. Raises AddressError when it
    could not be written as an address; lengths are the parser's affair.
    """

    localpart: str
    domain: str

    def __post_init__(self) -> None:
        if not self.localpart.isprintable():
            raise AddressError("localpart has a character that may not be in an address")
        if self.domain:
            _check_domain(self.domain)
        elif self.localpart.lower() != "postmaster":
            raise AddressError("address has no domain")

    @property
    def ascii(self) -> bool:
        """Whether the address can be used without SMTPUTF8."""
        return self.localpart.isascii() and self.domain.isascii()

    def __str__(self) -> str:
        local = self.localpart
        if not _DOT_STRING.fullmatch(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


@lru_cache(maxsize=4096)  # most of a connection's mail is from and to the same few
def parse_mailbox(text: str, *, max_localpart: int = MAX_LOCALPART) -> Mailbox:
    """Read an address such as `a@example.org`, without angle brackets. Raises AddressError."""
    match = _MAILBOX.fullmatch(text)
    if match is None:
        if text.lower() == "postmaster":
            return Mailbox(text, "")
        raise AddressError("address has no domain" if text and "@" not in text else "malformed address")
    local, domain = match.groups()
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    elif not _DOT_STRING.fullmatch(local):
        raise AddressError("malformed localpart")
    if len(local.encode("utf-8", "replace")) > max_localpart:
        raise AddressError(f"localpart is longer than {max_localpart} octets")
    return Mailbox(local, domain)


def split_path(text: str) -> tuple[str, str]:
    """Divide what follows FROM: or TO: into the path without its brackets, and the parameters.

    A source route is dropped, as RFC 5321 section 4.1.1.3 wants.
    """
    text = text.lstrip(" ")  # a space after the colon is wrong and common
    match = _PATH.match(text)
    if match is None:
        raise AddressError("address must be in angle brackets")
    rest = text[match.end() :]
    if rest and not rest.startswith(" "):
        raise AddressError("no space after the address")
    path = match[1]
    route = _SOURCE_ROUTE.match(path)
    return (path[route.end() :] if route else path), rest


def _check_domain(domain: str) -> None:
    if len(domain.encode("utf-8", "replace")) > MAX_DOMAIN:
        raise AddressError(f"domain is longer than {MAX_DOMAIN} octets")
    if domain.startswith("["):
        _check_literal(domain)
    elif not (_NAME.fullmatch(domain) and domain.isprintable()):
        raise AddressError("malformed domain")
    elif len(domain) > MAX_LABEL and any(len(label) > MAX_LABEL for label in domain.split(".")):
        raise AddressError(f"domain has a label longer than {MAX_LABEL} octets")


def _check_literal(domain: str) -> None:
    """IPv4 and IPv6 are the only kinds of address literal that were ever registered."""
    address = domain[1:-1]
    try:
        if not domain.endswith("]"):
            raise ValueError
        if address[:5].lower() == "ipv6:" and "%" not in address:
            ipaddress.IPv6Address(address[5:])
        else:
            ipaddress.IPv4Address(address)
    except ValueError:
        raise AddressError("malformed address literal") from None
