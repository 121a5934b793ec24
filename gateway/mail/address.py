"""Email addresses: RFC 5321 mailboxes with the internationalized forms of RFC 6531.

An `Address` is always valid and canonical: whoever has one can compare it, print it and put it in a command
or a header without looking again.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Self

import idna

from gateway.mail.encoded_words import encode_words

# Octets. RFC 5321, 4.5.3.1.1 has 64, but addresses that software makes for bounces are longer.
MAX_LOCALPART = 128
MAX_DOMAIN = 253  # octets in the ASCII form, RFC 1035, 2.3.4 without the root
MAX_TEXT = 600  # characters of any address worth looking at; a quoted localpart may have doubled

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff"
_DOT_ATOM = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"@', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ASCII_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PRINTABLE = re.compile(r"[ -~]*")
# A display name that needs no quotes (RFC 5322 phrase), and one that can stand in them.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,60}(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,60})*")
_QUOTABLE_NAME = re.compile(r"[!-~]{1,60}(?: [!-~]{1,60})*")
_UTF8_NAME = re.compile(r"\S{1,60}(?: \S{1,60})*")


class AddressError(ValueError):
    """The text is no email address; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: localpart and domain.

    `localpart` is without quotes and escapes, in NFC, its case kept. `domain` is in lower case and in Unicode
    (so are comparisons), or an address literal in its brackets.

    Raises AddressError from the constructor, from `parse` and from nowhere else but `format(utf8=False)`.
    """

    localpart: str
    domain: str

    def __post_init__(self) -> None:
        localpart = self.localpart
        if not localpart.isascii():
            localpart = unicodedata.normalize("NFC", localpart)
            object.__setattr__(self, "localpart", localpart)
        _check_localpart(localpart)
        object.__setattr__(self, "domain", parse_domain(self.domain))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an addr-spec as in RFC 5321, 4.1.2 (Mailbox) and RFC 6531, 3.3; no display name, no `<>`."""
        if not text:
            raise AddressError("address is empty")
        if len(text) > MAX_TEXT:
            raise AddressError(f"address is longer than {MAX_TEXT} characters")
        if text[0] == '"':
            quoted = _QUOTED.match(text)
            if quoted is None:
                raise AddressError(f"address {text!a}: the quoted localpart must end in a quote and @")
            return cls(_ESCAPED.sub(r"\1", quoted[1]), text[quoted.end() :])
        localpart, at, domain = text.partition("@")
        if not at:
            raise AddressError(f"address {text!a} has no @")
        if not localpart:
            raise AddressError(f"address {text!a} has nothing before the @")
        if "@" in domain:
            raise AddressError(f"address {text!a} has more than one @")
        if not _DOT_ATOM.fullmatch(localpart):
            raise AddressError(
                f"localpart {localpart!a} has spaces, dots in a row or special characters outside quotes"
            )
        return cls(localpart, domain)

    @property
    def ascii_domain(self) -> str:
        """The domain as DNS and SMTP without SMTPUTF8 want it (A-labels, RFC 5890)."""
        return ascii_domain(self.domain)

    @property
    def is_ascii(self) -> bool:
        """Whether the localpart is ASCII: if not, only SMTPUTF8 can carry the address."""
        return self.localpart.isascii()

    def format(self, utf8: bool) -> str:
        """The address for a command or a header: localpart quoted where it must be, domain in A-labels unless
        `utf8`. Raises AddressError if the localpart is not ASCII and `utf8` is false."""
        if utf8:
            return str(self)
        if not self.localpart.isascii():
            raise AddressError(f"localpart {self.localpart!a} is not ASCII and needs SMTPUTF8")
        return f"{_quote_localpart(self.localpart)}@{self.ascii_domain}"

    def __str__(self) -> str:
        return f"{_quote_localpart(self.localpart)}@{self.domain}"


def format_mailbox(name: str, address: Address, utf8: bool) -> str:
    """`Name <address>` for a header field (RFC 5322, 3.4), without `<>` if there is no name.

    A name that is not ASCII becomes encoded words (RFC 2047) unless `utf8` (RFC 6532). The name must be
    free of control characters: `gateway.mail.fields.check_text` says so with the field's name.
    """
    spec = address.format(utf8)
    if not name:
        return spec
    if _PLAIN_NAME.fullmatch(name) and "=?" not in name:
        return f"{name} <{spec}>"
    if (_QUOTABLE_NAME.fullmatch(name) or (utf8 and _UTF8_NAME.fullmatch(name))) and "=?" not in name:
        return f"{_quote(name)} <{spec}>"
    return f"{encode_words(name)} <{spec}>"


@lru_cache(maxsize=4096)
def parse_domain(text: str) -> str:
    """A domain in its canonical form: Unicode, lower case (UTS 46, not transitional); literals keep brackets.

    An A-label that stands for no valid IDNA 2008 name is kept as it is, as DNS would look it up. No trailing
    dot. Raises AddressError.
    """
    if not text:
        raise AddressError("domain is empty")
    if len(text) > MAX_DOMAIN:
        raise AddressError(f"domain is longer than {MAX_DOMAIN} characters")
    if text[0] == "[":
        return _parse_literal(text)
    lower = text.lower()
    if lower.isascii() and "xn--" not in lower:
        if not _ASCII_DOMAIN.fullmatch(lower):
            raise AddressError(f"domain {text!a} has an empty, too long or misspelt label")
        return lower
    if lower.isascii():
        if not _ASCII_DOMAIN.fullmatch(lower):
            raise AddressError(f"domain {text!a} has an empty, too long or misspelt label")
        return ".".join(_unicode_label(label) for label in lower.split("."))
    try:
        encoded = idna.encode(text, uts46=True, std3_rules=True)
        if len(encoded) > MAX_DOMAIN:
            raise AddressError(f"domain {text!a} is longer than {MAX_DOMAIN} octets in its ASCII form")
        if encoded.endswith(b"."):
            raise AddressError(f"domain {text!a} ends in a dot")
        return idna.decode(encoded)
    except (idna.IDNAError, UnicodeError) as exc:
        raise AddressError(f"domain {text!a} is no internationalized domain name: {exc}") from None


@lru_cache(maxsize=4096)
def ascii_domain(domain: str) -> str:
    """The A-label form of a domain that `parse_domain` returned."""
    if domain.isascii():
        return domain
    return ".".join(
        label if label.isascii() else idna.encode(label, uts46=True).decode("ascii")
        for label in domain.split(".")
    )


def _unicode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        decoded = idna.decode(label)
        # Not every spelling of an A-label is the one that its U-label gives; two must not compare equal.
        return decoded if idna.encode(decoded).decode("ascii") == label else label
    except (idna.IDNAError, UnicodeError):
        return label


def _parse_literal(text: str) -> str:
    """`[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321, 4.1.3)."""
    if not text.endswith("]") or len(text) < 3:
        raise AddressError(f"address literal {text!a} does not end in ]")
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            ip = IPv6Address(inner[5:])
            if ip.scope_id is not None:
                raise AddressError(f"address literal {text!a} has a zone")
            return f"[IPv6:{ip}]"
        return f"[{IPv4Address(inner)}]"
    except AddressError:
        raise
    except ValueError:
        raise AddressError(
            f"address literal {text!a} holds neither an IPv4 address nor IPv6:address"
        ) from None


def _check_localpart(localpart: str) -> None:
    if localpart.isascii():
        size = len(localpart)
        if not _PRINTABLE.fullmatch(localpart):
            raise AddressError(f"localpart {localpart!a} has a control character")
    else:
        # SMTP commands are held to the same: what could not be sent is refused here.
        if not localpart.isprintable():
            raise AddressError(f"localpart {localpart!a} has a control character, separator or invisible one")
        size = len(localpart.encode())
    if size > MAX_LOCALPART:
        raise AddressError(f"localpart is longer than {MAX_LOCALPART} octets")


def _quote_localpart(localpart: str) -> str:
    return localpart if _DOT_ATOM.fullmatch(localpart) else _quote(localpart)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
