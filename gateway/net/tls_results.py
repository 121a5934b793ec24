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
