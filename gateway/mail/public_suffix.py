"""Organizational domains, by the public suffix list (RFC 7489, section 3.2)."""

from __future__ import annotations

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList


@cache
def suffix_list() -> PublicSuffixList:
    """The list that is installed with the library. Reading it takes some 35 ms, once."""
    return PublicSuffixList()


@lru_cache(maxsize=4096)
def organizational_domain(domain: str) -> str:
    """Of a canonical domain; one that is itself a public suffix, or "localhost", is its own."""
    return suffix_list().privatesuffix(domain) or domain
