"""What TLS connections may be: contexts of OpenSSL, for many connections each.

TLS 1.2 is the oldest version; there is no renegotiation and no ALPN. As a client we go on, for some minutes,
with the session of an earlier connection to the same host (RFC 8446, 2.2): such a handshake has no
certificate, and takes less time on both sides. What was found of the certificate then holds on.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from OpenSSL import SSL

from gateway.net.certificates import Certificate
from gateway.net.tls_results import FailureType, TlsFault

RESUME_FOR = 600.0  # seconds: so late we may learn that a certificate has expired
MAX_SESSIONS = 500  # a few kilobytes each
# Certificates between a peer's and that of a known authority. OpenSSL takes a hundred; with keys that are
# made for it a signature takes 4 ms, in which no other connection is served.
_MAX_BETWEEN = 8

# Of X509_verify_cert: what operators meet.
_VERIFY_ERRORS: dict[int, tuple[FailureType, str]] = {
    9: ("validation-failure", "is not valid yet"),
    10: ("certificate-expired", "has expired"),
    18: ("certificate-not-trusted", "is self-signed"),
    19: ("certificate-not-trusted", "comes from an authority that is not trusted"),
    20: ("certificate-not-trusted", "comes from an authority that is not known"),
    21: ("certificate-not-trusted", "comes from an authority that is not known"),
    22: ("validation-failure", "has too many authorities above it"),
    23: ("certificate-not-trusted", "was revoked"),
    26: ("validation-failure", "is not for servers"),
}


def server_context(certificate: Certificate) -> SSL.Context:
    """For many connections; raises nothing, since a Certificate has been checked."""
    context = _context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate.chain[0])
    for issuer in certificate.chain[1:]:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(certificate.key)
    return context


@dataclass(slots=True)
class Verification:
    """What was found of the peer's certificate; the app data of a client's connection."""

    fault: TlsFault | None = None  # at first that of the session which we ask the peer to go on with
    asked: bool = False  # the peer wants a new session: its certificate is looked at

    def add(self, error: int, ok: int) -> None:
        if not self.asked:
            self.asked, self.fault = True, None
        if not ok and self.fault is None:
            self.fault = verification_fault(error)


class _Kept(NamedTuple):
    session: SSL.Session | None  # None: the server could not go on with one
    fault: TlsFault | None  # of the certificate
    until: float  # of time.monotonic


class ClientContext:
    """The client's side, from `client_context` or `observing_context`."""

    def __init__(self, *, refuses: bool = False) -> None:
        """`refuses`: the handshake is to fail unless the certificate proves whom it is with."""
        self.openssl = _context(SSL.TLS_CLIENT_METHOD)
        self.refuses = refuses
        self._sessions: OrderedDict[str, _Kept] = OrderedDict()  # by host, the oldest first

    def connection(self, host: str) -> tuple[SSL.Connection, bool]:
        """A new one; and whether it goes on with an earlier session, should the peer want that."""
        made = SSL.Connection(self.openssl)
        kept = self._sessions.get(host)
        if kept is None or kept.session is None or kept.until <= time.monotonic():
            made.set_app_data(Verification())
            return made, False
        made.set_app_data(Verification(kept.fault))
        made.set_session(kept.session)
        return made, True

    def remember(self, host: str, ended: SSL.Connection) -> None:
        """Keep the session of a connection that began it, in place of any other with that host."""
        kept = self._sessions.get(host)
        if kept is not None and kept.session is None and kept.until > time.monotonic():
            return
        session = ended.get_session()
        if session is not None:
            self._keep(host, _Kept(session, ended.get_app_data().fault, time.monotonic() + RESUME_FOR))

    def give_none(self, host: str) -> None:
        """Each connection to the host begins a session, as long as one would have been kept."""
        self._keep(host, _Kept(None, None, time.monotonic() + RESUME_FOR))

    def _keep(self, host: str, kept: _Kept) -> None:
        self._sessions.pop(host, None)
        self._sessions[host] = kept
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)


def client_context(*, verified: bool, ca_file: str | None = None) -> ClientContext:
    """For many connections. `verified`: only with a certificate of an authority in `ca_file` (or known to
    this system) that is for the host asked for; else any certificate will do."""
    context = ClientContext(refuses=verified)
    if verified:
        _trust(context.openssl, ca_file)
        context.openssl.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def observing_context(*, ca_file: str | None = None) -> ClientContext:
    """For many connections of which `TlsStream.certificate_fault` is to tell: the handshake takes any
    certificate, but looks whether an authority in `ca_file` (or known to this system) vouches for it."""
    context = ClientContext()
    _trust(context.openssl, ca_file)
    context.openssl.set_verify(SSL.VERIFY_PEER, _observe)
    return context


def _trust(context: SSL.Context, ca_file: str | None) -> None:
    context.set_verify_depth(_MAX_BETWEEN)
    if ca_file is None:
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(ca_file)


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _verify(connection: SSL.Connection, _certificate: object, error: int, _depth: int, ok: int) -> bool:
    connection.get_app_data().add(error, ok)
    return bool(ok)


def _observe(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:
    _verify(connection, certificate, error, depth, ok)
    return True


def verification_fault(error: int) -> TlsFault:
    """Of an error of OpenSSL's X509_verify_cert."""
    unknown: tuple[FailureType, str] = (
        "validation-failure",
        f"could not be verified (OpenSSL error {error})",
    )
    kind, text = _VERIFY_ERRORS.get(error, unknown)
    return TlsFault(kind, f"the certificate {text}")
