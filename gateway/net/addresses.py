"""Which addresses may be connected to where others choose: a webhook's URL, the mail servers of a domain.

Without a limit an account, or whoever has a domain, could have the gateway talk to services that only its own
network reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_UNICAST = IPv6Network("2000::/3")  # all global unicast that is assigned (RFC 4291, 2.4)
_6TO4 = IPv6Network("2002::/16")  # RFC 3056: tunnels to any IPv4 address; deprecated by RFC 7526


def allowed(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    """Whether the address is a public one, or in one of the networks that the operator allows."""
    address = _unwrap(address)
    return _is_public(address) or any(address in network for network in networks)


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that packets to an IPv4-mapped or NAT64 address reach."""
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    # is_global alone is true for multicast, for site-local and for addresses that hold an IPv4 address.
    if isinstance(address, IPv6Address) and (address not in _UNICAST or address in _6TO4):
        return False
    return address.is_global and not address.is_multicast
