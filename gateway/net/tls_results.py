"""What becomes of TLS, in the words of RFC 8460 (SMTP TLS reporting), section 4.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PolicyType = Literal["tlsa", "sts", "no-policy-found"]

FailureType = Literal[
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",  # any other
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
]


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Why TLS, or the policy about it, is not as it should be. `text` is one line for people."""

    type: FailureType
    text: str


UNREADABLE_CERTIFICATE = TlsFault("validation-failure", "the server's certificate cannot be read")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsResult:
    """How one connection stood against one policy, or against there being none (section 4.4). Domains are
    as in the queue, addresses without brackets; what is not known is empty."""

    recipient_domain: str
    policy_type: PolicyType
    policy_domain: str
    mx_host: str = ""
    remote_ip: str = ""
    local_ip: str = ""
    result: FailureType | Literal[""] = ""  # empty: a success
    detail: str = ""  # of a failure, one line for people
    policy: tuple[str, ...] = ()  # as reports show it
    mx: tuple[str, ...] = ()  # patterns, of MTA-STS
