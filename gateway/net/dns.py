"""DNS look-ups: a stub resolver with a cache, over dnspython.

Nothing is raised for what the network or a server does: a look-up is answered by an `Answer`, by `NoRecords`
or by `DnsTrouble`, so that what is decided from answers can be decided by pure functions.

`authentic` says that the configured resolver has verified the answer by DNSSEC, all CNAMEs on the way
included (the AD bit, RFC 6840, section 5.7). It is never true unless the operator calls that resolver
validating: anybody can set a bit.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from socket import SOCK_STREAM
from typing import Any, Generic, TypeAlias, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.resolver
import dns.reversename
import outcome
import trio

from gateway.config.settings import DnsSettings
from gateway.mail.address import AddressError, ascii_domain, parse_domain
from gateway.together import Together

log = logging.getLogger(__name__)

MAX_TTL = 3600.0  # seconds that an answer is kept, however long its owner allows
MAX_NEGATIVE_TTL = 300.0  # seconds, of "there is none": what was forgotten is soon added
# Bytes of an answer. Reading one takes a tenth of a millisecond for each record, and nothing else gets done
# meanwhile: with the 64 KB that there may be, anybody who has a domain could stop us for half a second.
MAX_ANSWER = 16 * 1024
MAX_CACHE = 16 * 1024 * 1024  # bytes, about
_HERE = "127.0.0.1"  # asked where no name server is configured
# At a time, without those that have taken long: domains that answer nothing hold up no others.
_MAX_QUERIES = 100
_SLOW_AFTER = 1.0  # seconds
_UDP_PAYLOAD = 1232  # octets; larger datagrams may be fragmented, and fragments forged
_ENTRY = 300  # bytes that a cached answer takes beside its records
_RECORD = 150  # bytes that a record takes beside its text

R = TypeVar("R", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """There are such records; `records` is not empty. `canonical` is their name: where aliases led."""

    records: tuple[R, ...]
    authentic: bool = False
    canonical: str = ""


@dataclass(frozen=True, slots=True)
class NoRecords:
    """There are no such records; with `nxdomain` nothing at all of that name."""

    nxdomain: bool = False
    authentic: bool = False


@dataclass(frozen=True, slots=True)
class DnsTrouble:
    """It is not known, and may be later: time-out, SERVFAIL, nonsense. `text` is one line for people."""

    text: str


Reply: TypeAlias = Answer[R] | NoRecords | DnsTrouble


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    preference: int
    host: str  # in Unicode; "." in a null MX (RFC 7505)


@dataclass(frozen=True, slots=True)
class Tlsa:
    """RFC 6698, section 2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    """A type of record, and how one is read."""

    rdtype: dns.rdatatype.RdataType
    read: Callable[[Any], T]

    @property
    def name(self) -> str:
        return dns.rdatatype.to_text(self.rdtype)


def _domain(name: dns.name.Name) -> str:
    """A name in our form; one that is no domain of mail (with an underscore, say) as DNS writes it."""
    text = name.to_text(omit_final_dot=len(name) > 1).lower()
    try:
        return parse_domain(text)
    except AddressError:
        return text


_MX = _Kind(dns.rdatatype.MX, lambda rdata: Mx(rdata.preference, _domain(rdata.exchange)))
_A = _Kind(dns.rdatatype.A, lambda rdata: IPv4Address(rdata.address))
_AAAA = _Kind(dns.rdatatype.AAAA, lambda rdata: IPv6Address(rdata.address))
_CNAME = _Kind(dns.rdatatype.CNAME, lambda rdata: _domain(rdata.target))
_PTR = _Kind(dns.rdatatype.PTR, lambda rdata: _domain(rdata.target))
_TXT = _Kind(dns.rdatatype.TXT, lambda rdata: b"".join(rdata.strings))
_TLSA = _Kind(dns.rdatatype.TLSA, lambda rdata: Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert))


_Key = tuple[str, dns.rdatatype.RdataType]  # a name in lower case, and the type


class Resolver:
    """Looks things up. For all tasks; equal questions at the same time are asked once.

    Names are given in Unicode or as A-labels, without a final dot. Where no name server is configured, here
    or in the system, the one of this machine is asked (as resolv.conf(5) has it).
    """

    asked = 0  # look-ups that the cache had no answer to

    def __init__(self, settings: DnsSettings) -> None:
        self.validating = settings.validating
        try:
            inner = dns.asyncresolver.Resolver(configure=not settings.nameservers)
        except (dns.resolver.NoResolverConfiguration, OSError) as exc:
            log.warning(
                "dns.nameservers: none are set, and /etc/resolv.conf names none (%s); %s is asked", exc, _HERE
            )
            inner = dns.asyncresolver.Resolver(configure=False)
            inner.nameservers = [_HERE]
        if settings.nameservers:
            inner.nameservers = list(settings.nameservers)
        inner.port = settings.port
        inner.lifetime = settings.timeout
        inner.timeout = settings.timeout / 3  # for each server, which may be asked again
        inner.use_edns(0, 0, _UDP_PAYLOAD)
        inner.flags = dns.flags.RD | (dns.flags.AD if settings.validating else 0)
        self._inner = inner
        self._backend: Any = _BoundedBackend()
        self._cache = _Cache(MAX_CACHE)
        self._together = Together[Reply[Any]]()
        self._limiter = trio.CapacityLimiter(_MAX_QUERIES)

    async def mx(self, domain: str) -> Reply[Mx]:
        return await self._ask(domain, _MX)

    async def ipv4(self, host: str) -> Reply[IPv4Address]:
        return await self._ask(host, _A)

    async def ipv6(self, host: str) -> Reply[IPv6Address]:
        return await self._ask(host, _AAAA)

    async def txt(self, name: str) -> Reply[bytes]:
        """The strings of each record are joined (RFC 7208, section 3.3)."""
        return await self._ask(name, _TXT)

    async def tlsa(self, host: str, port: int) -> Reply[Tlsa]:
        """For TCP (RFC 6698, section 3)."""
        return await self._ask(host, _TLSA, f"_{port}._tcp.")

    async def ptr(self, address: IPv4Address | IPv6Address) -> Reply[str]:
        name = dns.reversename.from_address(str(address))
        return await self._ask(name.to_text(omit_final_dot=True), _PTR)

    async def cname(self, name: str) -> Reply[str]:
        """The alias that is at this very name; it is not followed."""
        return await self._ask(name, _CNAME)

    async def _ask(self, name: str, kind: _Kind[T], prefix: str = "") -> Reply[T]:
        key = (prefix + name.lower(), kind.rdtype)
        known = self._cache.get(key)
        if known is not None:  # without a checkpoint: a delivery asks for five things and more
            return known
        self.asked += 1
        try:
            asked = dns.name.from_text(prefix + ascii_name(name), dns.name.root)
        except (dns.exception.DNSException, UnicodeError):
            return NoRecords(nxdomain=True)  # nothing can have that name
        return await self._together.run(key, partial(self._query, asked, kind, key))

    async def _query(self, name: dns.name.Name, kind: _Kind[T], key: _Key) -> Reply[T]:
        reply: Reply[T]
        question = f"{name.to_text(omit_final_dot=True)} {kind.name}"
        try:
            found = await self._in_turn(
                partial(
                    self._inner.resolve,
                    name,
                    kind.rdtype,
                    raise_on_no_answer=False,
                    search=False,
                    backend=self._backend,
                )
            )
        except dns.resolver.NXDOMAIN as exc:
            response = exc.kwargs["responses"][name]
            reply = NoRecords(nxdomain=True, authentic=self._authentic(response))
            ttl = _ttl(response, response.resolve_chaining())
        except dns.resolver.LifetimeTimeout as exc:
            return DnsTrouble(f"DNS: no answer in time for {question}{_faults(exc)}")
        except dns.resolver.NoNameservers as exc:
            return DnsTrouble(f"DNS: no answer for {question}{_faults(exc)}")
        except (dns.exception.DNSException, OSError) as exc:
            return DnsTrouble(f"DNS: no answer for {question}: {_line(exc)}")
        else:
            if found.response.flags & dns.flags.TC:  # over TCP, where nothing has to be left out
                return DnsTrouble(f"DNS: no answer for {question}: {found.nameserver}: truncated over TCP")
            authentic = self._authentic(found.response)
            ttl = _ttl(found.response, found.chaining_result)
            if found.rrset is None:
                reply = NoRecords(authentic=authentic)
            else:
                records = tuple(kind.read(rdata) for rdata in found.rrset)
                reply = Answer(records, authentic, _domain(found.canonical_name))
        longest = MAX_TTL if isinstance(reply, Answer) else MAX_NEGATIVE_TTL
        self._cache.put(key, reply, min(ttl, longest))
        return reply

    async def _in_turn(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask when there is a place, and give it up when that takes long."""
        place = object()
        await self._limiter.acquire_on_behalf_of(place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold, place)
            result = await outcome.acapture(ask)
            nursery.cancel_scope.cancel()
        return result.unwrap()

    async def _hold(self, place: object) -> None:
        try:
            await trio.sleep(_SLOW_AFTER)
        finally:
            self._limiter.release_on_behalf_of(place)

    def _authentic(self, response: dns.message.Message) -> bool:
        return self.validating and bool(response.flags & dns.flags.AD)


def _ttl(response: dns.message.Message, result: dns.message.ChainingResult) -> float:
    """Seconds that the answer may be kept. That there is nothing: only with an SOA, whose owner says how long
    (RFC 2308, section 5); dnspython would keep it all the same."""
    if result.answer is None and not any(
        rrset.rdtype == dns.rdatatype.SOA and result.canonical_name.is_subdomain(rrset.name)
        for rrset in response.authority
    ):
        return 0.0
    return result.minimum_ttl


def ascii_name(name: str) -> str:
    """A name as DNS has it; also one with labels that no domain of mail has. Raises UnicodeError."""
    return name if name.isascii() else ascii_domain(name)


class _BoundedBackend:
    """trio's sockets for dnspython. An answer over TCP that is longer than MAX_ANSWER is not read; those over
    UDP are short."""

    def __init__(self) -> None:
        self._backend: Any = dns.asyncbackend.get_backend("trio")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def make_socket(self, *args: Any, **how: Any) -> Any:
        made = await self._backend.make_socket(*args, **how)
        if made.type == SOCK_STREAM:
            made.recv = partial(_bounded, made.recv)
        return made


async def _bounded(
    receive: Callable[[int, float | None], Awaitable[bytes]], size: int, timeout: float | None
) -> bytes:
    """`size`: all that is left of the answer."""
    if size > MAX_ANSWER:
        raise OSError(f"an answer of {size} bytes, which is more than {MAX_ANSWER}")
    return await receive(size, timeout)


class _Cache:
    """Answers by question, until they expire; what was used longest ago makes room."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._size = 0
        self._entries: OrderedDict[_Key, tuple[Reply[Any], float, int]] = OrderedDict()

    def get(self, key: _Key) -> Reply[Any] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        reply, expires, _ = entry
        if trio.current_time() >= expires:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return reply

    def put(self, key: _Key, reply: Reply[Any], ttl: float) -> None:
        if key in self._entries:
            self._remove(key)
        if ttl <= 0:
            return
        size = _ENTRY + len(key[0])
        if isinstance(reply, Answer):
            size += sum(_RECORD + (len(r) if isinstance(r, str | bytes) else 0) for r in reply.records)
        self._entries[key] = (reply, trio.current_time() + ttl, size)
        self._size += size
        while self._size > self._max_size:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: _Key) -> None:
        self._size -= self._entries.pop(key)[2]


def _faults(exc: dns.resolver.LifetimeTimeout | dns.resolver.NoNameservers) -> str:
    """What the servers said last, each."""
    said: dict[str, str] = {}
    for server, tcp, _port, fault, _response in exc.kwargs.get("errors") or ():
        if tcp or not isinstance(fault, dns.message.Truncated):
            said[str(server).removeprefix("Do53:").partition("@")[0]] = _line(fault)
    return "".join(f"{', ' if number else ': '}{s}: {what}" for number, (s, what) in enumerate(said.items()))


def _line(fault: object) -> str:
    if isinstance(fault, dns.exception.Timeout):
        return "timed out"
    if isinstance(fault, dns.message.ChainTooLong):
        return "its aliases (CNAME) have no end"
    if isinstance(fault, EOFError):
        return "hung up in the middle of its answer"
    text = str(fault).splitlines() or [""]
    return text[0][:200] or type(fault).__name__
