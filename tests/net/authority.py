"""Certificate authorities for tests: chains of any length, with names and times as they are wanted."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and those above it, the nearest first."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> list[x509.Certificate]:
        return [self.certificate, *self.above]

    @property
    def pem(self) -> bytes:
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in self.chain)

    def issue(
        self,
        *names: str,
        days: int = 30,
        ca: bool = False,
        usage: x509.ObjectIdentifier | None = None,
        key: Key | None = None,
        path_length: int | None = None,
    ) -> Issued:
        """A certificate below this one. `days` below zero: it expired that long ago. Without `names` none."""
        title = names[0] if names else f"Below {self.certificate.subject.rfc4514_string()}"[:60]
        return _sign(self, title, names, days=days, ca=ca, usage=usage, key=key, path_length=path_length)

    def server_context(self) -> ssl.SSLContext:
        """For the standard library's TLS."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory() as directory:
            path = Path(directory, "both.pem")
            path.write_bytes(self.pem + private)
            context.load_cert_chain(path)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority and no other."""
        data = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=data)


def new_root(title: str = "Test Root", *, key: Key | None = None) -> Issued:
    return _sign(None, title, (), days=30, ca=True, usage=None, key=key, path_length=None)


@cache
def root() -> Issued:
    """The one that most tests use."""
    return new_root()


def _sign(
    issuer: Issued | None,
    title: str,
    names: tuple[str, ...],
    *,
    days: int,
    ca: bool,
    usage: x509.ObjectIdentifier | None,
    key: Key | None,
    path_length: int | None,
) -> Issued:
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    signer = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 90 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), False)
    if not ca:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([usage or ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(signer, digest)
    return Issued(certificate, key, () if issuer is None else tuple(issuer.chain))


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
