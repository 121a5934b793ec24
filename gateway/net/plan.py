"""The way of a message to a domain, as data: what DNS and policies said, and what was decided from it.

`gateway.net.hosts` decides, `gateway.net.find_hosts` asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, TypeAlias

from gateway.net.dns import DnsTrouble, Mx, NoRecords, Reply, Tlsa
from gateway.net.mta_sts import StsAnswer
from gateway.net.tls_results import PolicyType, TlsFault

IpAddress: TypeAlias = IPv4Address | IPv6Address
Families: TypeAlias = Sequence[Literal[4, 6]]

# --- Answers, and what is to be decided from them ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswers:
    """What DNS says of one host.

    `ipv4` and `ipv6` are None where they were not asked for; `alias` is the host's own CNAME, asked for where
    `alias_matters`. `tlsa` has what was asked of each of `tlsa_bases`, until one `is_conclusive`.
    """

    name: str
    ipv4: Reply[IPv4Address] | None = None
    ipv6: Reply[IPv6Address] | None = None
    alias: Reply[str] | None = None
    tlsa: tuple[tuple[str, Reply[Tlsa]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A domain (in Unicode, or an address literal in its brackets) and what is known of it.

    `require_tls`: True for REQUIRETLS, False for TLS-Required: No. `hosts` are those of `candidates`, or
    the first of them where these are enough.
    """

    domain: str
    require_tls: bool | None = None
    mx: Reply[Mx] = field(default_factory=NoRecords)
    sts: StsAnswer | DnsTrouble = field(default_factory=StsAnswer)
    hosts: tuple[HostAnswers, ...] = ()


# --- The decision -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A policy about a connection: what TLS reports (RFC 8460) tell the results of.

    If it is `enforced`, a fault ends the delivery to that host. `names`: the certificate has to be for one of
    these (in A-labels). `tlsa`: usable records, of which one has to be for the chain. `fault` is known before
    anybody has connected. A check of the type "no-policy-found" is that there is no policy.
    """

    type: PolicyType
    domain: str  # whose policy it is
    enforced: bool = False
    names: tuple[str, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()
    fault: TlsFault | None = None
    strings: tuple[str, ...] = ()  # the policy as reports show it
    mx: tuple[str, ...] = ()  # patterns, of MTA-STS


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsNeed:
    """What TLS a host needs. There is always at least one check.

    `required`: without STARTTLS, or when the handshake fails, nothing is delivered; else plain text will do.
    `server_name` is for SNI: RFC 7672, section 8.1, wants the name of the TLSA records.
    """

    required: bool
    server_name: str  # in A-labels; "" for an address literal
    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether only a server that proved who it is gets the message."""
        return any(check.enforced for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no delivery. There was no SMTP reply, so there is no code, only an RFC 3463 status."""

    permanent: bool
    enhanced: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host to try. `addresses` are in the order to try, and not empty."""

    name: str  # as the MX record has it
    addresses: tuple[IpAddress, ...]
    dual_stack: bool  # it has IPv4 and IPv6 addresses that may be used
    tls: TlsNeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A host that is not tried. `check` is the policy that refused it, with its fault, if one did."""

    name: str
    failure: Failure
    check: Check | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where to deliver. `failure` is set where there is no host.

    `require_tls`: a host must offer REQUIRETLS besides. `policy_fault`: why the policy that the domain
    announces could not be had, for TLS reports. `only`: no host was skipped, and chance had no part in it, so
    that the same answers lead to the same plan.
    """

    hosts: tuple[Host, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    failure: Failure | None = None
    require_tls: bool = False
    policy_fault: TlsFault | None = None
    only: bool = False
