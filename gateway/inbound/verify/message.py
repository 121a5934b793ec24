"""A message that comes in, while and after it comes: what of it can be verified, is (RFC 7208, 6376, 7489).

Its header section is kept until the results can be written above it; its body is hashed on the way past, in
the canonicalizations that its signatures want. So nothing is read twice, and no message is ever in memory.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

import trio

from gateway.clock import Clock
from gateway.inbound.verify.dkim import check_dkim
from gateway.inbound.verify.dmarc import Author, Policy, decide, find_policy, read_author
from gateway.inbound.verify.iprev import check_iprev
from gateway.inbound.verify.lookups import Lookups, at_once
from gateway.inbound.verify.spf import check_spf
from gateway.mail.address import Address
from gateway.mail.auth_results import (
    AuthResults,
    Disowned,
    DkimCheck,
    IprevCheck,
    SpfCheck,
    authentication_results,
    without_forged,
)
from gateway.mail.dkim_body import BodyHash, Canonicalization
from gateway.mail.dkim_signature import (
    Signature,
    read_signatures,
)
from gateway.mail.headers import MAX_SECTION
from gateway.mail.public_suffix import suffix_list
from gateway.offload import Offload
from gateway.recent import Recent

IPREV_LIMIT = 20.0  # seconds
NO_FROM = Author(problem="there is no From")
TOO_LONG = "the header section is too long"
MAX_FROM_FIELDS = 10
_FROM = re.compile(rb"^from[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who hands a message in, and what it says of itself."""

    ip: IPv4Address | IPv6Address
    helo: str
    mail_from: Address | None  # None is the null sender


class Verifier:
    """For all messages."""

    def __init__(
        self,
        hostname: str,
        lookups: Lookups,
        offload: Offload,
        clock: Clock,
        sample: Callable[[], float] = random.random,
    ) -> None:
        self.hostname, self.lookups, self.offload, self.clock = hostname, lookups, offload, clock
        self.sample = sample
        self.iprev: Recent[IprevCheck] = Recent(clock.monotonic)  # by address
        self.spf: Recent[SpfCheck] = Recent(clock.monotonic)  # by address, EHLO name and identity: see _spf
        self.policies: Recent[Policy] = Recent(clock.monotonic)  # by domain
        suffix_list()  # now, rather than while mail waits

    def message(self) -> IncomingMessage:
        return IncomingMessage(self)


class IncomingMessage:
    """One message. `write` all of it, then ask for `results`, then for the `head` to be stored."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._section = bytearray()
        self._complete = False
        self._disowned: Disowned | None = None  # the section, if it is too long to be kept
        self._author = NO_FROM
        self._signatures: tuple[Signature | DkimCheck, ...] = ()
        self._hashes: dict[Canonicalization, BodyHash] = {}

    async def write(self, data: bytes) -> bytes:
        """The next octets. The answer, mostly of the body, is to be stored behind the head."""
        if not self._complete:
            before = len(self._section)
            self._section += data
            end = _end_of_header(self._section, max(0, before - 3))
            if end is None and len(self._section) <= MAX_SECTION:
                return b""
            data = await self._header_ends(end)
        elif self._disowned is not None:
            return self._disowned.write(data)
        for body_hash in self._hashes.values():
            body_hash.update(data)
        return data

    async def results(self, client: Client) -> AuthResults:
        """After the last octet."""
        if not self._complete:
            await self._header_ends(len(self._section))
        verifier, lookups = self._verifier, self._verifier.lookups
        hashes = {canonicalization: one.digest() for canonicalization, one in self._hashes.items()}
        now = int(verifier.clock.now().timestamp())
        identities = dict.fromkeys((client.mail_from, None))
        iprev = verifier.iprev.get(client.ip)
        spf = {identity: verifier.spf.get((client.ip, client.helo, identity)) for identity in identities}
        policies = {domain: verifier.policies.get(domain) for domain in self._author.domains}
        dkim: tuple[DkimCheck, ...] = ()

        async def find_names() -> None:
            nonlocal iprev
            iprev = await _iprev(lookups, client.ip)
            if iprev.result != "temperror":
                verifier.iprev.keep(client.ip, iprev)

        async def check_sender(identity: Address | None) -> None:
            check = spf[identity] = await _spf(verifier, client, identity)
            if check.result != "temperror":
                verifier.spf.keep((client.ip, client.helo, identity), check)

        async def find(domain: str) -> None:
            policy = policies[domain] = await find_policy(lookups, domain)
            if not policy.trouble:
                verifier.policies.keep(domain, policy)

        async def check_signatures() -> None:
            nonlocal dkim
            section = bytes(self._section)
            dkim = await check_dkim(lookups, verifier.offload, section, self._signatures, hashes, now)

        await at_once(
            *([] if iprev is not None else [find_names]),
            *(partial(check_sender, identity) for identity, known in spf.items() if known is None),
            *(partial(find, domain) for domain, known in policies.items() if known is None),
            check_signatures,
        )
        sender, helo = spf[client.mail_from], spf[None]
        assert iprev is not None
        assert sender is not None
        assert helo is not None
        found = {domain: policy for domain, policy in policies.items() if policy is not None}
        return AuthResults(
            iprev=iprev,
            spf=sender,
            helo=helo,
            dkim=dkim,
            dmarc=decide(self._author, found, sender, dkim, verifier.sample),
        )

    def head(self, results: AuthResults, client: Client) -> bytes:
        """Our Authentication-Results and the header section, without those that others wrote in our name."""
        hostname = self._verifier.hostname
        field = authentication_results(
            hostname, results, peer=str(client.ip), mail_from=client.mail_from, helo=client.helo
        )
        section = bytes(self._section)
        return field + (section if self._disowned is not None else without_forged(section, hostname))

    def rest(self) -> bytes:
        """What is to be stored behind all that `write` answered."""
        return b"" if self._disowned is None else self._disowned.rest()

    async def _header_ends(self, end: int | None) -> bytes:
        """Reads the section; what came behind it. None: it is longer than what is read of one."""
        self._complete = True
        if end is None:
            section = bytes(self._section)
            self._author = await self._verifier.offload.run_on_message(section, _read_beginning)
            self._disowned = Disowned()
            self._section[:] = self._disowned.write(section)
            return b""
        body = bytes(self._section[end:])
        del self._section[end:]
        section = bytes(self._section)
        self._author, self._signatures = await self._verifier.offload.run_on_message(section, _read)
        for signature in self._signatures:
            if isinstance(signature, Signature):
                self._hashes.setdefault(signature.body, BodyHash(signature.body))
        return body


def _end_of_header(section: bytearray, start: int) -> int | None:
    if section.startswith(b"\r\n"):
        return 2
    end = section.find(b"\r\n\r\n", start)
    return None if end < 0 else end + 4


def _read(section: bytes) -> tuple[Author, tuple[Signature | DkimCheck, ...]]:
    return read_author(_from(section)), read_signatures(section)


def _read_beginning(section: bytes) -> Author:
    """Of a section that is too long to be read: its signatures hold for nothing, and it passes by none."""
    author = read_author(_from(section))
    return replace(author, problem=TOO_LONG, unread=author.unread or not author.domains)


def _from(section: bytes) -> list[bytes]:
    """All From fields, but for those of many that are too many anyway; however many others there are."""
    return [match[1] for match in islice(_FROM.finditer(section), MAX_FROM_FIELDS)]


async def _iprev(lookups: Lookups, ip: IPv4Address | IPv6Address) -> IprevCheck:
    with trio.move_on_after(IPREV_LIMIT):
        return await check_iprev(lookups, ip)
    return IprevCheck(result="temperror", reason=f"it took longer than {IPREV_LIMIT:g} s")


async def _spf(verifier: Verifier, client: Client, sender: Address | None) -> SpfCheck:
    """Of the sender, or for None of the EHLO name, which a null sender's MAIL FROM is too (RFC 7208, 2.4)."""
    check = partial(check_spf, verifier.lookups, ip=client.ip, helo=client.helo, receiver=verifier.hostname)
    if sender is None:
        return await check(domain=client.helo, localpart="", identity="helo")
    return await check(domain=sender.domain, localpart=sender.localpart, identity="mailfrom")
