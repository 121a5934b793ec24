"""`mox.base_address`: addresses that likely reach the same person have one base address.

The localpart in lower case, up to its first "+", and of that up to its first "-", without dots. If nothing is
left of it, the whole localpart in lower case.
"""

from __future__ import annotations

from gateway import Address, hookimpl


@hookimpl
def base_address(address: Address) -> Address:
    whole = address.localpart.lower()
    base = whole.partition("+")[0].partition("-")[0].replace(".", "")
    return Address(base or whole, address.domain)
