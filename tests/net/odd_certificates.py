"""Certificates that `cryptography` will not read, though OpenSSL does, and keys that take long to verify."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from tests.net.authority import DAY, Issued

UNREADABLE = ("x400Address", "extension twice")
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_OID, _OTHER_OID = "1.2.3.4", "1.2.3.5"


def unreadable(kind: str, authority: Issued, name: str) -> Issued:
    """For a host, with a name of a kind that `cryptography` does not have, or with an extension twice."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    dns = b"\x82" + bytes([len(name)]) + name.encode()
    names = b"\xa3\x02\x30\x00" + dns if kind == "x400Address" else dns
    sequence = b"\x30" + bytes([len(names)]) + names
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, sequence), False)
    )
    if kind == "extension twice":
        for oid in (_OID, _OTHER_OID):
            null = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")
            builder = builder.add_extension(null, critical=False)
    assert isinstance(authority.key, ec.EllipticCurvePrivateKey)
    certificate = builder.sign(authority.key, hashes.SHA256())
    if kind == "extension twice":
        signed = certificate.tbs_certificate_bytes.replace(b"\x2a\x03\x05", b"\x2a\x03\x04")
        certificate = _signed(signed, authority.key)
    return Issued(certificate, key, tuple(authority.chain))


def of_version_4(issued: Issued) -> bytes:
    """The same certificate of a version that does not exist, in DER."""
    der = issued.certificate.public_bytes(Encoding.DER)
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03")


def slow_key() -> rsa.RSAPrivateKey:
    """A good key of which the public half has the large exponent."""
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    large, small = numbers.d, numbers.public_numbers.e
    return rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        small,
        rsa.rsa_crt_dmp1(small, numbers.p),
        rsa.rsa_crt_dmq1(small, numbers.q),
        numbers.iqmp,
        rsa.RSAPublicNumbers(large, numbers.public_numbers.n),
    ).private_key()


def _signed(signed: bytes, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    signature = b"\0" + key.sign(signed, ec.ECDSA(hashes.SHA256()))
    body = signed + _ECDSA_WITH_SHA256 + _element(0x03, signature)
    return x509.load_der_x509_certificate(_element(0x30, body))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(2)
    return bytes([tag, 0x82]) + size + content if len(content) > 127 else bytes([tag, len(content)]) + content
