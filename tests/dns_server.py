"""A recursive resolver for tests: on real sockets, with the records and faults that it is told to have."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

from gateway.config.settings import DnsSettings

Fault = Literal[
    "SERVFAIL",
    "REFUSED",
    "silent",  # no answer at all
    "truncated",  # over UDP
    "truncated for ever",  # over TCP too
    "forged id",  # a wrong answer with another ID comes first
    "forged question",  # a wrong answer to another question comes first
    "other names",  # the answer to this question has records of another name only
    "more names",  # it has these besides the right ones
    "garbage",
    "tcp broken",  # truncated over UDP; the TCP connection is closed in the middle of the answer
]


@dataclass
class _Records:
    texts: list[str]
    ttl: int
    secure: bool


@dataclass
class DnsServer:
    """Answers from its records, following CNAMEs; NXDOMAIN for names without any.

    `secure` records make authentic answers, as a validating resolver calls them, where all of a chain are.
    `asked` has every question that came, such as "example.org MX".
    """

    port: int = 0
    arrived: trio.Event = field(default_factory=trio.Event)  # set by the first question
    asked: list[str] = field(default_factory=list)
    secure_denial: bool = False  # what is not there is authentically not there
    lying: bool = False  # it calls everything authentic
    soa: str = "."  # the zone whose SOA goes with what is not there; "" for none
    _records: dict[tuple[str, str], _Records] = field(default_factory=dict)
    _faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, rdtype: str, *texts: str, ttl: int = 300, secure: bool = False) -> None:
        """Records as a zone file has them, such as `add("example.org", "MX", "10 mx.example.org.")`."""
        self._records[name, rdtype] = _Records(list(texts), ttl, secure)
        self._names[name] += 1

    def remove(self, name: str, rdtype: str) -> None:
        del self._records[name, rdtype]
        self._names[name] -= 1

    def fail(self, name: str, rdtype: str, fault: Fault) -> None:
        """From now on; `repair` ends it."""
        self._faults[name, rdtype] = fault

    def repair(self, name: str, rdtype: str) -> None:
        del self._faults[name, rdtype]

    def settings(self, *, validating: bool = True, timeout: float = 2.0) -> DnsSettings:
        """Of a resolver that asks this server."""
        return DnsSettings(nameservers=("127.0.0.1",), port=self.port, validating=validating, timeout=timeout)

    # --- Answers ---

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        rdtype = dns.rdatatype.to_text(question.rdtype)
        name, secure, seen = _text(question.name), True, 0
        while True:
            found = self._records.get((name, rdtype))
            alias = None if found else self._records.get((name, "CNAME"))
            if alias is None or seen > 20:
                break
            seen += 1
            secure = secure and alias.secure
            response.answer.append(dns.rrset.from_text(name + ".", alias.ttl, "IN", "CNAME", *alias.texts))
            name = alias.texts[0].removesuffix(".")
        if found:
            secure = secure and found.secure
            response.answer.append(
                dns.rrset.from_text(name + ".", found.ttl, dns.rdataclass.IN, rdtype, *found.texts)
            )
        elif seen <= 20:
            secure = secure and self.secure_denial
            if not self._names.get(name):
                response.set_rcode(dns.rcode.NXDOMAIN)
            if self.soa:
                response.authority.append(
                    dns.rrset.from_text(self.soa, 60, "IN", "SOA", "ns. hostmaster. 1 3600 600 86400 60")
                )
        if (secure and query.flags & dns.flags.AD) or self.lying:
            response.flags |= dns.flags.AD
        return response

    def _says(self, data: bytes, *, tcp: bool) -> list[bytes]:
        """The datagrams, or messages, that answer one."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, rdtype = _text(question.name), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {rdtype}" + (" TCP" if tcp else ""))
        self.arrived.set()
        fault = self._faults.get((name, rdtype))
        if fault in ("SERVFAIL", "REFUSED"):
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.from_text(fault))
            return [response.to_wire()]
        answer = self._answer(query)
        if fault in ("other names", "more names"):
            if fault == "other names":
                answer.answer.clear()
            for section in (answer.answer, answer.additional):
                section.append(dns.rrset.from_text("victim.example.", 300, "IN", "MX", "1 forged.example."))
        whole = answer.to_wire(max_size=65535)
        if fault == "silent":
            return []
        if fault == "garbage":
            return [data[:2] + b"\xff" * 40]
        if fault in ("forged id", "forged question"):
            return [self._forged(query, other_id=fault == "forged id"), whole]
        if fault == "truncated for ever" or (
            not tcp and (fault in ("truncated", "tcp broken") or len(whole) > 1232)
        ):
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        return [whole[:-5]] if fault == "tcp broken" else [whole]

    @staticmethod
    def _forged(query: dns.message.Message, *, other_id: bool) -> bytes:
        question = query.question[0]
        forged = dns.message.make_response(query)
        name = question.name if other_id else dns.name.from_text("forged.example.")
        if other_id:
            forged.id = query.id ^ 1
        else:
            forged.question[0] = dns.rrset.RRset(name, question.rdclass, question.rdtype)
        forged.flags |= dns.flags.AD
        forged.answer.append(dns.rrset.from_text(name, 300, "IN", "MX", "1 forged.example."))
        return forged.to_wire()

    # --- Sockets ---

    async def _serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            data, address = await sock.recvfrom(65535)
            for answer in self._says(data, tcp=False):
                await sock.sendto(answer, address)

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        buffer = b""
        try:
            while data := await stream.receive_some():
                buffer += data
                while len(buffer) >= 2 and len(buffer) >= 2 + (size := int.from_bytes(buffer[:2])):
                    question, buffer = buffer[2 : 2 + size], buffer[2 + size :]
                    for answer in self._says(question, tcp=True):
                        cut = self._is_cut(question)
                        await stream.send_all((len(answer) + cut).to_bytes(2) + answer)
                        if cut:
                            return
        except trio.BrokenResourceError:
            pass
        finally:
            await stream.aclose()

    def _is_cut(self, question: bytes) -> int:
        asked = dns.message.from_wire(question).question[0]
        key = _text(asked.name), dns.rdatatype.to_text(asked.rdtype)
        return 5 if self._faults.get(key) == "tcp broken" else 0


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """One that runs on 127.0.0.1 while the body does; see `port`, and `settings` for a resolver."""
    server = DnsServer()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        listener = await _bind_both(udp)
        server.port = udp.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._serve_udp, udp)
            nursery.start_soon(trio.serve_listeners, server._serve_tcp, [listener])
            yield server
            nursery.cancel_scope.cancel()


async def _bind_both(udp: trio.socket.SocketType) -> trio.SocketListener:
    """One port for UDP and TCP, chosen by the system for one of them and free for the other."""
    while True:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        try:
            await udp.bind(listener.socket.getsockname())
        except OSError as exc:
            await listener.aclose()
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return listener


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
