"""MTA-STS (RFC 8461): what a domain's TXT record and policy say. Pure; `mta_sts_policies` gets them.

A policy is a promise of the domain about its MX hosts: which they are, and that they have TLS with
certificates of known authorities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from gateway.mail.address import MAX_DOMAIN, AddressError, ascii_domain, parse_domain
from gateway.net.tls_results import TlsFault

MAX_POLICY = 64 * 1024  # bytes (section 3.3)
MAX_AGE = 31_557_600  # seconds: a year (section 3.2)

Mode = Literal["enforce", "testing", "none"]

_PREFIX = b"v=STSv1"
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
# Of a TXT record: no "=", ";", space or control character.
_TXT_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+")


class PolicyError(ValueError):
    """It is no policy. The text is one line for people."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's policy. `mx` are host names in A-labels, in lower case; `*.` before one is any one label."""

    mode: Mode
    mx: tuple[str, ...]
    max_age: int  # seconds that it holds, from when it was fetched
    text: bytes  # as it was fetched

    @property
    def active(self) -> bool:
        """Whether it asks for anything, be it only for a report."""
        return self.mode != "none"

    @property
    def lines(self) -> tuple[str, ...]:
        """For TLS reports (RFC 8460, section 4.4: policy-string)."""
        return tuple(line for line in _lines(self.text) if line)

    def matches(self, host: str) -> bool:
        """Whether an MX host, by its name in the MX record, is among `mx` (section 4.1)."""
        wanted = ascii_host(host)
        if wanted is None:
            return False
        _, dot, above = wanted.partition(".")
        return wanted in self.mx or bool(dot and above and f"*.{above}" in self.mx)


@dataclass(frozen=True, slots=True)
class StsAnswer:
    """A domain's policy, or None; `fault` says why there is none although the domain announces one, or why a
    kept one could not be replaced."""

    policy: Policy | None = None
    fault: TlsFault | None = None


def ascii_host(host: str) -> str | None:
    """A host name in A-labels and lower case, without a final dot; None if it is none."""
    try:
        return ascii_domain(parse_domain(host.removesuffix(".")))
    except (AddressError, UnicodeError):
        return None


def parse_record(records: Iterable[bytes]) -> str | None:
    """The policy's ID in the TXT records at `_mta-sts.` and the domain. None where there is not exactly one
    record of MTA-STS, or it is malformed: then the domain has no MTA-STS (section 3.1)."""
    ours = [
        record for record in records if record.startswith(_PREFIX) and record[7:].lstrip(b" \t")[:1] == b";"
    ]
    if len(ours) != 1:
        return None
    try:
        fields = [field.strip(" \t") for field in ours[0].decode("ascii").split(";")][1:]
    except UnicodeDecodeError:
        return None
    if fields and not fields[-1]:
        fields.pop()
    found: str | None = None
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals or not _NAME.fullmatch(name) or not _TXT_VALUE.fullmatch(value):
            return None
        if name == "id" and found is None:
            if not _ID.fullmatch(value):
                return None
            found = value
    return found


def parse_policy(text: bytes) -> Policy:
    """Section 3.2. Lines end in CRLF or LF; unknown fields, and all but the first of one that may not be
    repeated, are ignored. Raises PolicyError."""
    if len(text) > MAX_POLICY:
        raise PolicyError(f"the policy is longer than {MAX_POLICY} bytes")
    first: dict[str, str] = {}
    patterns: dict[str, None] = {}
    for number, line in enumerate(_lines(text), 1):
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise PolicyError(f"line {number} of the policy is not of the form key: value")
        value = value.strip(" \t")
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise PolicyError(f"line {number} of the policy has a control character")
        if name == "mx":
            patterns[_pattern(value, number)] = None
        else:
            first.setdefault(name, value)
    if first.get("version") != "STSv1":
        raise PolicyError("the policy's version is not STSv1")
    mode = first.get("mode", "")
    if mode not in ("enforce", "testing", "none"):
        raise PolicyError("the policy's mode is neither enforce, testing nor none")
    max_age = first.get("max_age", "")
    if not (max_age.isascii() and max_age.isdigit() and len(max_age) <= 10):
        raise PolicyError("the policy's max_age is no number of seconds")
    if not patterns and mode != "none":
        raise PolicyError("the policy names no MX host")
    return Policy(cast(Mode, mode), tuple(patterns), min(int(max_age), MAX_AGE), text)


def _pattern(value: str, number: int) -> str:
    star = value.startswith("*.")
    host = value[2:] if star else value
    known = ascii_host(host) if host.isascii() and len(host) <= MAX_DOMAIN else None
    if known is None or known.startswith("["):
        raise PolicyError(f"line {number} of the policy has no host name: {value[:60]!a}")
    return f"*.{known}" if star else known


def _lines(text: bytes) -> list[str]:
    return [line.removesuffix("\r").rstrip(" \t") for line in text.decode("utf-8", "replace").split("\n")]
