"""What was verified of a message that came in, and the Authentication-Results field that says so (RFC 8601).

The results are data for plugins too. Domains are in their canonical form (Unicode, lower case) in the data,
and in A-labels in the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gateway.mail.address import Address, AddressError, ascii_domain, parse_domain
from gateway.mail.fields import fold_field

SpfResult = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]
DkimResult = Literal["pass", "fail", "neutral", "temperror", "permerror"]
DmarcResult = Literal["none", "pass", "fail", "temperror", "permerror"]
IprevResult = Literal["pass", "fail", "temperror", "permerror"]
DmarcPolicy = Literal["none", "quarantine", "reject"]

FIELD = "Authentication-Results"
MAX_REASON = 200  # characters of a reason in the field

_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")  # RFC 2045, 5.1
_UNPRINTABLE = re.compile(r"[^ -~]")
_FORGEABLE = re.compile(rb"(?im)^authentication-results[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)")
_RESULTS_LINE = re.compile(rb"(?i)(\n)(authentication-results)")
_LONGEST_KEPT = len(b"\nauthentication-results") - 1
_MAX_COMMENTS = 1000  # octets before an identifier that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class IprevCheck:
    """The client's address by way of reverse DNS (RFC 8601, section 3)."""

    result: IprevResult
    name: str = ""  # a name of the address that has the address, where it passes
    reason: str = ""  # for people


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfCheck:
    """SPF of one identity (RFC 7208). `explanation` is the domain owner's text about a "fail"."""

    identity: Literal["mailfrom", "helo"]
    result: SpfResult
    domain: str = ""  # whose policy was asked for; "" where there was no domain
    mechanism: str = ""  # the directive that matched, as it is written
    explanation: str = ""
    reason: str = ""  # for people, of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimCheck:
    """One signature (RFC 6376). What could not be read of it is empty."""

    result: DkimResult
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    signature: str = ""  # the first characters of b=, which tell it from others (RFC 6008)
    reason: str = ""  # for people, unless it passed


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcCheck:
    """DMARC (RFC 7489).

    `aligned`: an SPF or DKIM pass is of the domain in From, as the domain's record defines it, or in relaxed
    mode where there is no record. `policy`: what the domain asks for failures; None where it is not known (no
    record, a look-up that failed). `disposition`: what it asks for this message, after pct.
    """

    result: DmarcResult
    domain: str = ""  # of From
    policy: DmarcPolicy | None = None
    disposition: DmarcPolicy = "none"
    aligned: bool = False
    reason: str = ""  # for people


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResults:
    """All that was verified of a message."""

    iprev: IprevCheck
    spf: SpfCheck  # of MAIL FROM; with a null sender of the EHLO name
    helo: SpfCheck  # of the EHLO name
    dkim: tuple[DkimCheck, ...]  # of the first signatures, at most ten
    dmarc: DmarcCheck

    @property
    def mail_from_validated(self) -> bool:
        """SPF passed for MAIL FROM. A null sender has nothing to validate."""
        return self.spf.identity == "mailfrom" and self.spf.result == "pass"

    @property
    def msg_from_validated(self) -> bool:
        """SPF or DKIM passed for the domain in From, as DMARC means it; also where it has no DMARC record."""
        return self.dmarc.aligned

    @property
    def dkim_verified_domains(self) -> tuple[str, ...]:
        """The domains of good signatures, each once."""
        return tuple(dict.fromkeys(check.domain for check in self.dkim if check.result == "pass"))


# --- Writing the field ----------------------------------------------------------------------------


def authentication_results(
    authserv_id: str, results: AuthResults, *, peer: str, mail_from: Address | None, helo: str
) -> bytes:
    """The field, folded, ended by CRLF. `peer` is the client's address, `helo` its EHLO name."""
    parts = [_encoded(authserv_id), _iprev(results.iprev, peer)]
    if results.spf.identity == "mailfrom":
        parts.append(_spf(results.spf, f"smtp.mailfrom={_mailbox(mail_from)}"))
    parts.append(_spf(results.helo, f"smtp.helo={_value(helo)}"))
    parts += [_dkim(check) for check in results.dkim] or ["dkim=none"]
    parts.append(_dmarc(results.dmarc))
    return fold_field(FIELD, "; ".join(parts), utf8=True)


def _iprev(check: IprevCheck, peer: str) -> str:
    comment = f" ({_comment(_encoded(check.name))})" if check.name else ""
    return f"iprev={check.result}{comment}{_reason(check.reason)} policy.iprev={_value(peer)}"


def _spf(check: SpfCheck, identity: str) -> str:
    return f"spf={check.result}{_reason(check.reason)} {identity}"


def _dkim(check: DkimCheck) -> str:
    found = (
        ("header.d", _encoded(check.domain)),
        ("header.s", check.selector),
        ("header.a", check.algorithm),
        ("header.b", check.signature),
    )
    properties = "".join(f" {name}={_value(value)}" for name, value in found if value)
    return f"dkim={check.result}{_reason(check.reason)}{properties}"


def _dmarc(check: DmarcCheck) -> str:
    policy = f" (p={check.policy} dis={check.disposition})" if check.policy is not None else ""
    domain = f" header.from={_value(_encoded(check.domain))}" if check.domain else ""
    return f"dmarc={check.result}{policy}{_reason(check.reason)}{domain}"


def _reason(text: str) -> str:
    return f" reason={_quoted(text[:MAX_REASON])}" if text else ""


def _mailbox(address: Address | None) -> str:
    if address is None:
        return '""'
    return str(address) if not address.is_ascii else address.format(utf8=False)


def _value(text: str) -> str:
    return text if _TOKEN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + _UNPRINTABLE.sub("?", text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _comment(text: str) -> str:
    return re.sub(r"[^ -~]|[()\\]", "?", text)


def _encoded(domain: str) -> str:
    try:
        return ascii_domain(domain)
    except UnicodeError:
        return domain


# --- Fields that others wrote in our name ---------------------------------------------------------


def without_forged(section: bytes, authserv_id: str) -> bytes:
    """A header section without the Authentication-Results that claim to be ours (RFC 8601, section 5).

    Lines end in CRLF or LF. Those of other servers stay.
    """
    if b"authentication-results" not in section.lower():
        return section
    return _FORGEABLE.sub(lambda field: b"" if _claims(field[1], authserv_id) else field[0], section)


class Disowned:
    """A header section that is too long to be kept, as it passes: all its Authentication-Results become
    X-Authentication-Results, since whose a field is cannot be told before all of it is there.

    What is behind the section stays as it is. `write` the pieces in order, then take the `rest`.
    """

    def __init__(self) -> None:
        self._kept = b"\r\n"  # of a field's name, or of the empty line, the rest may follow
        self._ours = len(self._kept)  # octets that nobody sent: the section begins where a line does
        self._over = False

    def write(self, data: bytes) -> bytes:
        if self._over:
            return data
        data = self._kept + data
        end = data.find(b"\r\n\r\n")
        self._over = end >= 0
        section, body = (data[: end + 4], data[end + 4 :]) if self._over else (data, b"")
        section = _RESULTS_LINE.sub(rb"\1X-\2", section)
        cut = len(section) if self._over else max(0, len(section) - _LONGEST_KEPT)
        self._kept = section[cut:]
        return self._without_ours(section[:cut]) + body

    def rest(self) -> bytes:
        kept, self._kept = self._kept, b""
        return self._without_ours(kept)

    def _without_ours(self, section: bytes) -> bytes:
        ours, self._ours = self._ours, max(0, self._ours - len(section))
        return section[ours:]


def _claims(value: bytes, authserv_id: str) -> bool:
    """Whether a field's value begins with our identifier, in any spelling. In doubt it does."""
    text = value.decode("utf-8", "replace")
    at = _behind_comments(text)
    if at is None:
        return True
    if text.startswith('"', at):
        claimed = re.sub(r"\\(.)", r"\1", text[at + 1 : at + 600].partition('"')[0])
    else:
        claimed = re.split(r"[\s;(]", text[at : at + 600], maxsplit=1)[0]
    return _canonical(claimed) == _canonical(authserv_id)


def _behind_comments(text: str) -> int | None:
    """Where the text begins behind space and comments; None if that is not found early."""
    depth = at = 0
    while at < min(len(text), _MAX_COMMENTS):
        char = text[at]
        if char == "\\" and depth:
            at += 1
        elif char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth and not char.isspace():
            return at
        at += 1
    return None if at < len(text) or depth else at


def _canonical(domain: str) -> str:
    try:
        return parse_domain(domain.strip().removesuffix("."))
    except AddressError:
        return domain.strip().casefold()
