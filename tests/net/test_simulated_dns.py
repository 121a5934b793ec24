"""DNS for development: what there is, and that nobody is asked."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from pydantic import ValidationError

from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.net.dns import Answer, Mx, NoRecords
from gateway.net.simulated_dns import simulated_resolver
from gateway_dkim.signature import dns_record

RSA = rsa.generate_private_key(65537, 1024)
ED25519 = ed25519.Ed25519PrivateKey.generate()


def settings(**dns: Any) -> Settings:
    return Settings.model_validate(
        {
            "hostname": "mail.example.org",
            "smtp": {"listen": ["192.0.2.1:25", "0.0.0.0:1025", "[::]:1025"]},
            "domains": {"bücher.example": {}, "example.org": {}},
            "dns": {"simulated": True, **dns},
        }
    )


def write(path: Path, key: Any) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.mark.parametrize(
    "domain", ["bücher.example", "xn--bcher-kva.example", "Example.ORG", "mail.example.org"]
)
async def test_configured_domains(tmp_path: Path, domain: str) -> None:
    dns = simulated_resolver(settings(), tmp_path)
    spf = await dns.txt(domain)
    assert isinstance(spf, Answer)
    assert spf.records == (b"v=spf1 ip4:127.0.0.1 ip4:192.0.2.1 ip6:::1 -all",)
    dmarc = await dns.txt(f"_dmarc.{domain}")
    assert isinstance(dmarc, Answer)
    assert dmarc.records == (b"v=DMARC1; p=reject",)
    mx = await dns.mx(domain)
    assert isinstance(mx, Answer)
    assert mx.records == (Mx(0, "mail.example.org"),)


async def test_the_host_has_its_name_and_its_addresses(tmp_path: Path) -> None:
    dns = simulated_resolver(settings(), tmp_path)
    for ip in (ip_address("127.0.0.1"), ip_address("192.0.2.1"), ip_address("::1")):
        names = await dns.ptr(ip)
        assert isinstance(names, Answer)
        assert names.records == ("mail.example.org",)
        found = await (dns.ipv4 if ip.version == 4 else dns.ipv6)("mail.example.org")
        assert isinstance(found, Answer)
        assert ip in found.records


async def test_nothing_else_exists(tmp_path: Path) -> None:
    dns = simulated_resolver(settings(), tmp_path)
    assert await dns.txt("example.com") == NoRecords(nxdomain=True)
    assert await dns.ipv4("example.org") == NoRecords(nxdomain=False)
    assert await dns.tlsa("mail.example.org", 25) == NoRecords(nxdomain=True)
    assert await dns.txt("\udcff.example") == NoRecords(nxdomain=True)


async def test_keys(tmp_path: Path) -> None:
    write(tmp_path / "rsa.pem", RSA)
    write(tmp_path / "ed.pem", ED25519)
    keys = {"a._domainkey.example.org": "rsa.pem", "B._domainkey.example.org": str(tmp_path / "ed.pem")}
    dns = simulated_resolver(settings(simulated_keys=keys), tmp_path)
    for name, key in (("a", RSA), ("b", ED25519)):
        found = await dns.txt(f"{name}._domainkey.example.org")
        assert isinstance(found, Answer)
        assert found.records == (dns_record(key).encode(),)


async def test_keys_of_a_domain_in_unicode(tmp_path: Path) -> None:
    write(tmp_path / "key.pem", ED25519)
    dns = simulated_resolver(settings(simulated_keys={"A._domainkey.Bücher.example": "key.pem"}), tmp_path)
    assert isinstance(await dns.txt("a._domainkey.xn--bcher-kva.example"), Answer)
    with pytest.raises(ConfigError, match="is no name in DNS; write SELECTOR"):
        simulated_resolver(settings(simulated_keys={"a._domainkey.\ufffd.example": "key.pem"}), tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read (No such file or directory)"), (b"x", "holds no private key that can be read")],
)
def test_keys_that_cannot_be_read(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        simulated_resolver(settings(simulated_keys={"a._domainkey.example.org": "key.pem"}), tmp_path)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("dns.simulated_keys.'a._domainkey.example.org': ")


@pytest.mark.parametrize(
    ("dns", "problem"),
    [
        ({"nameservers": ["127.0.0.1"]}, "simulated: no server is asked then; leave nameservers out"),
        ({"simulated": False, "simulated_keys": {"a": "b"}}, "simulated_keys: needs simulated = true"),
    ],
)
def test_settings_that_do_not_go_together(dns: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(**dns)
