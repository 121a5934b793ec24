"""Certificates: loaded from files with clear errors, made for development, and whose they are."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import ConfigError

MAX_FILE = 1024 * 1024  # bytes of a certificate or key file; a long chain has 20 kB
# What `cryptography` raises of a certificate, or a key, that it will not read: not all of it is a ValueError.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
SELF_SIGNED_DAYS = 3650  # of a certificate that nobody but its maker's machine trusts


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, its own first, and the private key that belongs to it."""

    chain: tuple[x509.Certificate, ...]
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:  # never the key
        return f"Certificate({self.chain[0].subject.rfc4514_string()!r})"

    @property
    def expires(self) -> datetime:
        return self.chain[0].not_valid_after_utc


def load_certificate(certificate: Path, key: Path) -> Certificate:
    """Read two PEM files, or one that holds both. Raises ConfigError."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(_read("tls.certificate", certificate)))
    except UNREADABLE as exc:
        raise ConfigError(
            f"tls.certificate: {certificate}: holds no certificate that can be read ({_line(exc)}); give a "
            "PEM file, the certificate first and its chain behind it"
        ) from None
    try:
        private = serialization.load_pem_private_key(_read("tls.key", key), password=None)
    except TypeError:
        raise ConfigError(f"tls.key: {key}: is encrypted; write it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError(
            f"tls.key: {key}: holds no private key that can be read ({_line(exc)}); give a PEM file"
        ) from None
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ConfigError(f"tls.key: {key}: is neither an RSA nor an elliptic curve key; make one of these")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < 2048:
        raise ConfigError(f"tls.key: {key}: has {private.key_size} bits; RSA keys need 2048 or more")
    if private.public_key() != chain[0].public_key():
        raise ConfigError(f"tls.key: {key}: does not belong to the first certificate in {certificate}")
    return Certificate(chain, private)


def _line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0].partition(". See ")[0]


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{setting}: {path}: there is no such file") from None
    except OSError as exc:
        raise ConfigError(f"{setting}: {path}: cannot be read: {exc.strerror}") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{setting}: {path}: is over {MAX_FILE} bytes: that is no PEM file of this kind")
    return data


def self_signed(now: datetime, names: Iterable[str] = ()) -> tuple[bytes, bytes]:
    """A certificate and its key, both PEM, for this machine: `localhost`, the loopback addresses, its host
    name, and `names` (host names or IP addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    wanted = dict.fromkeys(["localhost", "127.0.0.1", "::1", *_own_name(), *names])
    alternatives = [_general_name(name) for name in wanted]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a clock that is a little behind
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        # It is its own authority, so that a client can be told to trust it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _own_name() -> list[str]:
    """This machine's name, if it can stand in a certificate."""
    name = socket.gethostname().lower()
    labels = name.split(".")
    good = name.isascii() and len(name) <= 253
    return [name] if good and all(_is_label(label) for label in labels) else []


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label.replace("-", "a").replace("_", "a").isalnum()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True, slots=True)
class Names:
    """Whom a certificate is for: its subject alternative names. The subject's common name does not count
    (RFC 9525, section 2)."""

    dns: tuple[str, ...]
    ips: tuple[IPv4Address | IPv6Address, ...]

    def match(self, host: str) -> bool:
        """Whether it is for this host name or IP address; `*` stands for one whole label, the leftmost."""
        try:
            return ip_address(host) in self.ips
        except ValueError:
            pass
        wanted = host.lower().rstrip(".")
        if not wanted.isascii():
            wanted = wanted.encode("idna").decode("ascii")
        above = wanted.partition(".")[2]
        return any(
            name == wanted or ("." in above and name == f"*.{above}")
            for name in (given.lower().rstrip(".") for given in self.dns)
        )


def names_of(certificate: x509.Certificate) -> Names:
    """Empty when it names nobody, or cannot be read."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return Names((), ())
    return Names(
        tuple(found.get_values_for_type(x509.DNSName)),
        tuple(
            ip
            for ip in found.get_values_for_type(x509.IPAddress)
            if isinstance(ip, IPv4Address | IPv6Address)
        ),
    )
