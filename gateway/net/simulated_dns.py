"""DNS for development: configured domains have what lets mail from this machine pass SPF, DKIM and DMARC.

Nothing else exists, and nobody is asked.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.mail.address import ascii_domain
from gateway.net.dns import Answer, Mx, NoRecords, Reply, Resolver, _Kind, ascii_name

T = TypeVar("T")

Records = Mapping[tuple[str, str], tuple[Any, ...]]  # by name and type

_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class SimulatedResolver(Resolver):
    """Answers from records that it is given."""

    def __init__(self, records: Records) -> None:
        self.validating = False
        self._records = records
        self._names = {name for name, _ in records}

    async def _ask(self, name: str, kind: _Kind[T], prefix: str = "") -> Reply[T]:
        await trio.lowlevel.checkpoint()
        try:
            asked = (prefix + ascii_name(name)).lower()
        except UnicodeError:
            return NoRecords(nxdomain=True)
        found = self._records.get((asked, kind.name))
        return Answer(found, canonical=asked) if found else NoRecords(nxdomain=asked not in self._names)


def simulated_resolver(settings: Settings, config_dir: Path) -> SimulatedResolver:
    """For the domains of a configuration. Raises ConfigError for a key that cannot be read."""
    ours = {*_LOOPBACK, *(ip_address(listen.host) for listen in settings.smtp.listen)}
    addresses = sorted((ip for ip in ours if not ip.is_unspecified), key=lambda ip: (ip.version, ip))
    allowed = " ".join(f"ip{ip.version}:{ip}" for ip in addresses)
    hostname = ascii_domain(settings.hostname)
    records: dict[tuple[str, str], tuple[Any, ...]] = {
        (hostname, "A"): tuple(ip for ip in addresses if ip.version == 4),
        (hostname, "AAAA"): tuple(ip for ip in addresses if ip.version == 6),
    }
    for ip in addresses:
        records[ip.reverse_pointer, "PTR"] = (settings.hostname,)
    for domain in (settings.hostname, *settings.domains):
        name = ascii_domain(domain)
        records[name, "TXT"] = (f"v=spf1 {allowed} -all".encode(),)
        records[f"_dmarc.{name}", "TXT"] = (b"v=DMARC1; p=reject",)
        records[name, "MX"] = (Mx(0, settings.hostname),)
    for name, path in settings.dns.simulated_keys.items():
        try:
            asked = ascii_name(name).lower()
        except UnicodeError:
            raise ConfigError(
                f"dns.simulated_keys.{name!r}: is no name in DNS; write SELECTOR._domainkey.DOMAIN"
            ) from None
        records[asked, "TXT"] = (_key_record(name, config_dir / path),)
    return SimulatedResolver(records)


def _key_record(name: str, path: Path) -> bytes:
    """A DKIM key record, of the private key in a file."""
    where = f"dns.simulated_keys.{name!r}: {path}"
    try:
        public = serialization.load_pem_private_key(path.read_bytes(), password=None).public_key()
    except OSError as exc:
        raise ConfigError(f"{where}: cannot be read ({exc.strerror}); a DKIM key is to be there") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: holds no private key that can be read; make another") from None
    if isinstance(public, ed25519.Ed25519PublicKey):
        kind, data = "ed25519", public.public_bytes_raw()
    else:
        kind = "rsa"
        data = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return f"v=DKIM1; k={kind}; p={base64.b64encode(data).decode()}".encode()
