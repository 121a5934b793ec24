"""Who an address belongs to: the configured accounts and domains. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from gateway.config.accounts import AccountSettings
from gateway.config.settings import Settings
from gateway.mail.address import Address, AddressError

T = TypeVar("T")


class Directory:
    """The configured accounts and domains, by address. Localparts are compared case-folded."""

    def __init__(self, settings: Settings) -> None:
        self.accounts: Mapping[str, AccountSettings] = settings.accounts
        self._domains = settings.domains
        self._exact = {
            _folded(address): name
            for name, account in settings.accounts.items()
            for address in account.addresses
        }
        self._aliases = {
            _folded(Address.parse(f"{alias}@{domain}")): accounts
            for domain, of_domain in settings.domains.items()
            for alias, accounts in of_domain.aliases.items()
        }
        self._postmaster = settings.postmaster
        self._hostname = settings.hostname

    def owner(self, address: Address) -> str | None:
        """The account that has this address, itself or before a catchall separator of its domain."""
        return self._find(self._exact, address)

    def _find(self, known: Mapping[Address, T], address: Address) -> T | None:
        """What is known of an address, or else of it cut at a catchall separator."""
        folded = _folded(address)
        domain = self._domains.get(folded.domain)
        if domain is None:
            return None
        found = known.get(folded)
        if found is not None:
            return found
        for separator in domain.catchall_separator:
            localpart, cut, _ = folded.localpart.partition(separator)
            if cut and localpart:
                found = known.get(Address(localpart, folded.domain))
                if found is not None:
                    return found
        return None

    def base(self, address: Address) -> Address:
        """The address without what follows a catchall separator of its domain, case folded. It need not be
        anybody's."""
        folded = _folded(address)
        domain = self._domains.get(folded.domain)
        localpart = folded.localpart
        for separator in domain.catchall_separator if domain is not None else ():
            localpart = localpart.partition(separator)[0] or localpart
        return Address(localpart, folded.domain)

    def may_send_from(self, account: str, address: Address) -> bool:
        return self.owner(address) == account

    def recipients(self, address: Address) -> tuple[str, ...]:
        """The accounts that mail for this address is delivered to; none when nobody has it.

        Its owner, else those of an alias, else postmaster's, else its domain's catchall account.
        """
        found = self.owner(address)
        if found is not None:
            return (found,)
        aliased = self._find(self._aliases, address)
        if aliased is not None:
            return tuple(dict.fromkeys(aliased))
        if self._postmaster and self.is_postmaster(address):
            return (self._postmaster,)
        domain = self._domains.get(address.domain)
        return (domain.catchall_account,) if domain is not None and domain.catchall_account else ()

    def is_postmaster(self, address: Address) -> bool:
        """Whether it is postmaster, in any case, of a domain of ours or of our host (RFC 5321, 4.5.1)."""
        ours = address.domain in self._domains or address.domain == self._hostname
        return ours and address.localpart.casefold() == "postmaster"

    def separators(self, domain: str) -> tuple[str, ...]:
        """A domain's catchall separators; none for one that is not configured."""
        settings = self._domains.get(domain)
        return tuple(filter(None, settings.catchall_separator)) if settings is not None else ()

    def domain_disabled(self, domain: str) -> bool:
        settings = self._domains.get(domain)
        return settings is not None and settings.disabled


def _folded(address: Address) -> Address:
    localpart = address.localpart.casefold()
    if localpart == address.localpart:
        return address
    try:
        return Address(localpart, address.domain)
    except AddressError:  # some letters fold to several, and a localpart grows too long: it stays as it is
        return address
