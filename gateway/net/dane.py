"""DANE for SMTP (RFC 7671, RFC 7672): which TLSA records are of use, and which certificates they are for.

Pure but for OpenSSL, which verifies chains. That the records are authentic is for the caller to know: forged
ones prove nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from gateway.net.certificates import UNREADABLE, names_of
from gateway.net.dns import Tlsa
from gateway.net.tls_contexts import verification_fault
from gateway.net.tls_results import TlsFault

MAX_RECORDS = 32  # that a chain is held against
# Whoever has both the records and the server chooses how much there is to verify, and while OpenSSL does, no
# other connection is served. Together the bounds keep that below 50 ms; chains that people use have four
# certificates, and an authority or two in DNS.
MAX_CHAIN = 10  # certificates
MAX_SIGNATURES = 24  # 0.7 ms each on the slowest curve
MAX_OCTETS = 20 * 1024  # of paths: each name is held against each name constraint above it
# A signature that was made with another key takes 3 ms and more, and up to 4 with a large exponent.
_MAX_RSA, _MAX_EXPONENT = 8192, 32  # bits

# Certificate usages. PKIX-TA (0) and PKIX-EE (1) are of no use for SMTP (RFC 7672, section 3.1.3).
_TA, _EE = 2, 3
_CERTIFICATE, _KEY = 0, 1  # selectors
_FULL, _SHA256, _SHA512 = 0, 1, 2  # matching types
_DIGESTS = {_SHA256: hashlib.sha256, _SHA512: hashlib.sha512}
_SIZES = {_SHA256: 32, _SHA512: 64}

# Of OpenSSL. Times are looked at here: those of an authority that is in DNS do not matter, as its owner says
# there that it is one (RFC 5280, section 6.1: a trust anchor is a name and a key).
_NO_CHECK_TIME = 0x200000
_NOT_YET_VALID, _EXPIRED = 9, 10

_NO_RECORD = TlsFault("validation-failure", "no TLSA record is for the server's certificate")


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that a certificate can be held against, each once, and at most MAX_RECORDS.

    Of several digests for the same usage and selector only the strongest counts (RFC 7671, section 9), so
    that a weak one can be given up by adding a strong one.
    """
    good = tuple(dict.fromkeys(record for record in records if _is_usable(record)))[:MAX_RECORDS]
    strongest: dict[tuple[int, int], int] = {}
    for record in good:
        key = record.usage, record.selector
        strongest[key] = max(record.matching, strongest.get(key, _FULL))
    return tuple(
        record for record in good if record.matching in (_FULL, strongest[record.usage, record.selector])
    )


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (_TA, _EE) or record.selector not in (_CERTIFICATE, _KEY):
        return False
    if record.matching in _SIZES:
        return len(record.data) == _SIZES[record.matching]
    if record.matching != _FULL:
        return False
    return (_certificate(record.data) if record.selector == _CERTIFICATE else _key(record.data)) is not None


def verify(
    chain: Sequence[x509.Certificate], records: Iterable[Tlsa], names: Iterable[str], now: datetime
) -> TlsFault | None:
    """Whether the chain that a peer sent, its own certificate first, is one that usable records are for.

    With DANE-EE (3) the peer's certificate or key must be the record's; its names and times do not matter
    (RFC 7672, section 3.1.1). With DANE-TA (2) it must be valid, for one of `names`, and come from the
    record's authority, by way of what the peer sent (section 3.1.2).
    """
    if not chain:
        return TlsFault("validation-failure", "the server sent no certificate")
    records = list(records)
    if any(record.usage == _EE and _matches(record, chain[0]) for record in records):
        return None
    authorities = [record for record in records if record.usage == _TA]
    if not authorities:
        return _NO_RECORD
    if len(chain) > MAX_CHAIN:
        text = f"the server sent {len(chain)} certificates, and no more than {MAX_CHAIN} are verified"
        return TlsFault("validation-failure", text)
    try:
        return _verify_by(authorities, chain, list(names), now, _Effort())
    except _TooMuch:
        return TlsFault(
            "validation-failure",
            "the server's certificates are too large, or too many for the TLSA records, to verify them all",
        )


def _verify_by(
    authorities: Iterable[Tlsa],
    chain: Sequence[x509.Certificate],
    names: Sequence[str],
    now: datetime,
    effort: _Effort,
) -> TlsFault | None:
    fault = _NO_RECORD
    tried = set[_Anchor]()
    for anchor in (anchor for record in authorities for anchor in _anchors(record, chain, effort)):
        if anchor in tried:
            continue
        tried.add(anchor)
        found = _verify_below(anchor, chain, names, now, effort)
        if found is None:
            return None
        fault = found
    return fault


class _TooMuch(Exception):
    """More than is done for one connection."""


@dataclass(slots=True)
class _Effort:
    """What may still be done for one connection."""

    signatures: int = MAX_SIGNATURES
    octets: int = MAX_OCTETS

    def spend(self, signatures: int, octets: int = 0) -> None:
        """Raises _TooMuch."""
        self.signatures -= signatures
        self.octets -= octets
        if self.signatures < 0 or self.octets < 0:
            raise _TooMuch


@dataclass(frozen=True, slots=True)
class _Anchor:
    """Where a chain may end: at the record's authority itself, or at what was signed with its bare key."""

    certificate: x509.Certificate
    is_authority: bool


def _anchors(record: Tlsa, chain: Sequence[x509.Certificate], effort: _Effort) -> Iterable[_Anchor]:
    others = (certificate for certificate in chain[1:] if certificate != chain[0])
    sent = [_Anchor(certificate, True) for certificate in others if _matches(record, certificate)]
    if sent or record.matching != _FULL:
        return sent
    # The peer need not send an authority that is in DNS as a whole.
    if record.selector == _CERTIFICATE:
        authority = _certificate(record.data)
        return [] if authority is None or authority == chain[0] else [_Anchor(authority, True)]
    key = _key(record.data)
    return () if key is None else _signed_by(key, chain, effort)


def _signed_by(key: PublicKeyTypes, chain: Sequence[x509.Certificate], effort: _Effort) -> Iterator[_Anchor]:
    if not _is_quick(key):
        return
    for certificate in chain:
        effort.spend(1)
        if _is_signed_by(certificate, key):
            yield _Anchor(certificate, False)


def _verify_below(
    anchor: _Anchor, chain: Sequence[x509.Certificate], names: Sequence[str], now: datetime, effort: _Effort
) -> TlsFault | None:
    authorities = {*chain[1:], anchor.certificate}
    if not all(_is_quick(certificate.public_key()) for certificate in authorities):
        return TlsFault("validation-failure", "an authority of the server's certificate has too large a key")
    octets = sum(len(one.public_bytes(Encoding.DER)) for one in {chain[0], *authorities})
    effort.spend(len(chain), octets)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(anchor.certificate))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME)
    own, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        path = crypto.X509StoreContext(store, own, others).get_verified_chain()
    except crypto.X509StoreContextError as exc:
        return verification_fault(exc.errors[0])
    for certificate in (part.to_cryptography() for part in path):
        if anchor.is_authority and certificate == anchor.certificate:
            break
        if now < certificate.not_valid_before_utc:
            return verification_fault(_NOT_YET_VALID)
        if now > certificate.not_valid_after_utc:
            return verification_fault(_EXPIRED)
    if not _is_for_servers(chain[0]):
        return TlsFault("validation-failure", "the certificate is not for servers")
    whose = names_of(chain[0])
    if not any(whose.match(name) for name in names):
        return TlsFault("certificate-host-mismatch", f"the certificate is not for {' or '.join(names)}")
    return None


def _is_for_servers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except UNREADABLE:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    whole = record.selector == _CERTIFICATE
    data = certificate.public_bytes(Encoding.DER) if whole else _key_info(certificate)
    digest = _DIGESTS.get(record.matching)
    return (data if digest is None else digest(data).digest()) == record.data


def _is_quick(key: PublicKeyTypes) -> bool:
    """Whether its signatures may be verified: neither a large RSA key, nor DSA, which nobody has in TLS."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size <= _MAX_RSA and key.public_numbers().e.bit_length() <= _MAX_EXPONENT
    return not isinstance(key, dsa.DSAPublicKey)


def _is_signed_by(certificate: x509.Certificate, key: PublicKeyTypes) -> bool:
    """Whatever names say: a bare key has none."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        digest, parameters = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey):
            if digest is None or not isinstance(parameters, padding.PKCS1v15 | padding.PSS):
                return False
            key.verify(signature, signed, parameters, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if digest is None:
                return False
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, TypeError, *UNREADABLE):
        return False
    return True


def _certificate(data: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(data)
    except UNREADABLE:
        return None


def _key(data: bytes) -> PublicKeyTypes | None:
    try:
        return load_der_public_key(data)
    except UNREADABLE:
        return None


def _key_info(certificate: x509.Certificate) -> bytes:
    """The subjectPublicKeyInfo as it is in the certificate (RFC 5280, section 4.1): made anew from the
    key, it might be written in another way."""
    der = certificate.tbs_certificate_bytes
    start, _ = _content(der, 0)
    has_version = der[start] == 0xA0
    for _ in range(6 if has_version else 5):  # serial number, algorithm, issuer, validity, subject
        start = _content(der, start)[1]
    return der[start : _content(der, start)[1]]


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at an offset starts and ends."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start])
    return start, start + size
