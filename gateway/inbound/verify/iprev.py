"""Names of an address that have the address: reverse DNS, confirmed (RFC 8601, section 3)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from gateway.inbound.verify.lookups import Lookups
from gateway.mail.auth_results import IprevCheck
from gateway.net.dns import Answer, DnsTrouble, Reply

MAX_NAMES = 10  # of an address that are looked at (RFC 7208, 4.6.4 has the same)


async def check_iprev(lookups: Lookups, ip: IPv4Address | IPv6Address) -> IprevCheck:
    found = await lookups.ptr(ip)
    if isinstance(found, DnsTrouble):
        return IprevCheck(result="temperror", reason=found.text)
    if not isinstance(found, Answer):
        return IprevCheck(result="permerror", reason="the address has no name")
    trouble = ""
    for name in found.records[:MAX_NAMES]:
        addresses = await addresses_like(lookups, name, ip)
        if isinstance(addresses, DnsTrouble):
            trouble = addresses.text
        elif isinstance(addresses, Answer) and ip in addresses.records:
            return IprevCheck(result="pass", name=name)
    if trouble:
        return IprevCheck(result="temperror", reason=trouble)
    return IprevCheck(result="fail", reason="no name of the address has the address")


async def addresses_like(
    lookups: Lookups, name: str, ip: IPv4Address | IPv6Address
) -> Reply[IPv4Address] | Reply[IPv6Address]:
    """The addresses of a host in the family of `ip`."""
    return await (lookups.ipv4(name) if ip.version == 4 else lookups.ipv6(name))
