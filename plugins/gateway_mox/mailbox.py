"""`mox.mailbox`: rules of an account that choose the mailbox of what comes in. The first that matches counts.

A pattern is text in which each `*` stands for any characters, and nothing else is special. It is matched
piece by piece, in time linear in the text, whatever a stranger writes: no regular expression is run on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway import AddressError, AuthResults, Reception, hookimpl
from gateway.config.values import AsTuple, Domain
from gateway.mail.address import parse_domain
from gateway.mail.encoded_words import decode_words
from gateway.mail.headers import Headers, read_headers

INBOX = "Inbox"
MAX_RULES = 100
MAX_HEADERS = 5  # of one rule
READ = 64 * 1024  # octets of the header section that are looked at
LOOKED_AT = 2_000  # characters of a field's value
REPEATED = 5  # fields of one name that are looked at, and addresses in From


def _address_pattern(value: str) -> str:
    """Addresses are compared with their domains in Unicode, so a pattern is to have that too."""
    localpart, at, domain = value.rpartition("@")
    return localpart + at + ".".join(_unicode_label(label) for label in domain.split("."))


def _unicode_label(label: str) -> str:
    try:
        return parse_domain(label) if label[:4].lower() == "xn--" else label
    except AddressError:  # there is a star in it
        return label


def _mailbox(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("a mailbox has printable characters, and no space around them")
    return value


Glob = Annotated[str, Field(min_length=1, max_length=200)]
AddressGlob = Annotated[str, Field(max_length=200), AfterValidator(_address_pattern)]


class MailboxRule(BaseModel):
    """Matches what everything set here holds for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mailbox: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_mailbox)]
    mail_from: AddressGlob = ""  # a pattern; the null sender is "<>"
    header_from: AddressGlob = ""  # a pattern: an address in From
    verified_domain: Domain = ""  # or one below it, by SPF or DKIM
    # Patterns by name: for one of the fields. Encoded words are decoded.
    headers: Annotated[Mapping[str, Glob], Field(max_length=MAX_HEADERS)] = {}

    @model_validator(mode="after")
    def _says_something(self) -> MailboxRule:
        if not (self.mail_from or self.header_from or self.verified_domain or self.headers):
            raise ValueError("a rule needs one of mail_from, header_from, verified_domain and headers")
        return self


class MailboxSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    rules: Annotated[tuple[MailboxRule, ...], Field(max_length=MAX_RULES), AsTuple] = ()


class MoxMailbox:
    Settings = MailboxSettings

    @hookimpl
    def mailbox(self, reception: Reception, chosen: str, settings: MailboxSettings) -> str | None:
        """What a policy put elsewhere than into the Inbox stays there: who forges a sender chooses none."""
        if not settings.rules or chosen != INBOX:
            return None
        mail = Mail(reception)
        return next((rule.mailbox for rule in settings.rules if matches(rule, mail)), None)


class Mail:
    """What rules look at, in lower case, each found out when it is first wanted."""

    def __init__(self, reception: Reception) -> None:
        self.auth = reception.auth
        self.mail_from = str(reception.reverse_path or "<>").lower()
        self._header = reception.header[:READ]
        self._texts: dict[str, tuple[str, ...]] = {}

    @cached_property
    def header_from(self) -> tuple[str, ...]:
        return tuple(one.address.lower() for one in self._fields.addresses("From", REPEATED))

    def texts(self, name: str) -> tuple[str, ...]:
        """Of the fields of a name."""
        if name not in self._texts:
            values = self._fields.get_all(name)[:REPEATED]
            self._texts[name] = tuple(decode_words(value)[:LOOKED_AT].lower() for value in values)
        return self._texts[name]

    @cached_property
    def _fields(self) -> Headers:
        return read_headers(self._header)[0]


def matches(rule: MailboxRule, mail: Mail) -> bool:
    return (
        (not rule.mail_from or matches_pattern(rule.mail_from, mail.mail_from))
        and (not rule.verified_domain or _is_verified(rule.verified_domain, mail.auth))
        and (not rule.header_from or any(matches_pattern(rule.header_from, one) for one in mail.header_from))
        and all(
            any(matches_pattern(pattern, text) for text in mail.texts(name))
            for name, pattern in rule.headers.items()
        )
    )


def _is_verified(domain: str, auth: AuthResults | None) -> bool:
    if auth is None:
        return False
    verified = auth.dkim_verified_domains
    if auth.mail_from_validated:
        verified += (auth.spf.domain,)
    return any(one == domain or one.endswith("." + domain) for one in verified)


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether the pattern is all of the text, which is in lower case."""
    first, *rest = _pieces(pattern)
    if not rest:
        return text == first
    *between, last = rest
    end = len(text) - len(last)
    if not text.startswith(first) or not text.endswith(last) or end < len(first):
        return False
    at = len(first)
    for piece in between:
        found = text.find(piece, at, end)  # the leftmost leaves the most for those that follow
        if found < 0:
            return False
        at = found + len(piece)
    return True


@lru_cache(maxsize=10_000)
def _pieces(pattern: str) -> tuple[str, ...]:
    """What stands between the stars."""
    return tuple(pattern.lower().split("*"))
