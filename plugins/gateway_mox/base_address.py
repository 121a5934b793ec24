"""`mox.base_address`: addresses that likely reach the same person have one base address.

The localpart up to its first "+", and of that up to its first "-", without dots; if nothing is left of it,
the whole localpart. All of it in lower case, unless that would be too long.
"""

from __future__ import annotations

from gateway import Address, AddressError, hookimpl


@hookimpl
def base_address(address: Address) -> Address:
    cut = address.localpart.partition("+")[0].partition("-")[0].replace(".", "")
    base = Address(cut or address.localpart, address.domain)
    try:
        return Address(base.localpart.lower(), base.domain)
    except AddressError:  # some letters have longer small forms, and a localpart grows too long: it stays
        return base
