"""DNS for `direct`: the MX hosts of any number of domains. `python -m benchmarks.mx_zone PORT`

dN.example has one of the hosts of `benchmarks.mx_sinks`, silentN.example one of those that
`benchmarks.direct` has accept connections and say nothing. Nothing else is there.
"""

from __future__ import annotations

import re
import socket
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from benchmarks.mx_sinks import HOSTS

SILENT_HOSTS = 100
_SOA = "ns. hostmaster. 1 3600 600 86400 300"


def answer(data: bytes) -> bytes:
    query = dns.message.from_wire(data)
    [question] = query.question
    name, rdtype = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    response = dns.message.make_response(query, recursion_available=True)
    text = _record(name, rdtype)
    if text:
        response.answer.append(dns.rrset.from_text(name, 3600, "IN", rdtype, text))
    else:
        if not (_record(name, "A") or _record(name, "MX")):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text(".", 300, "IN", "SOA", _SOA))
    return response.to_wire()


def _record(name: str, rdtype: str) -> str:
    if rdtype == "MX" and (domain := re.fullmatch(r"d(\d+)\.example\.", name)):
        return f"10 mx{int(domain[1]) % HOSTS}.test."
    if rdtype == "MX" and (domain := re.fullmatch(r"silent(\d+)\.example\.", name)):
        return f"10 silent{int(domain[1]) % SILENT_HOSTS}.test."
    if rdtype == "A" and (host := re.fullmatch(r"silent(\d+)\.test\.", name)):
        return f"127.0.2.{int(host[1]) + 1}"
    if rdtype == "A" and (host := re.fullmatch(r"mx(\d+)\.test\.", name)):
        return f"127.0.1.{int(host[1]) + 1}"
    return ""


def _serve(port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", port))
        # Nobody asks over TCP: it shows that the port is served.
        with socket.create_server(("127.0.0.1", port)):
            while True:
                data, address = datagrams.recvfrom(4096)
                datagrams.sendto(answer(data), address)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
