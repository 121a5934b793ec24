"""Certificates: what the loader says of files, what localserve makes, and whom one is for."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway.errors import ConfigError
from gateway.net.certificates import MAX_FILE, Names, load_certificate, names_of, self_signed
from tests.net.authority import root
from tests.net.certificates import certificate, pem
from tests.net.odd_certificates import UNREADABLE, of_version_4, unreadable

NOW = datetime(2026, 11, 20, tzinfo=UTC)


PEM_OF_VERSION_4 = ssl.DER_cert_to_PEM_cert(of_version_4(root())).encode()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    for path, data in zip(paths, pem(), strict=True):
        path.write_bytes(data)
    return paths


def private_pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_loads(files: tuple[Path, Path]) -> None:
    loaded = load_certificate(*files)
    assert loaded.chain == certificate().chain
    assert "localhost" in repr(loaded)
    assert "key" not in repr(loaded).lower()


def test_one_file_for_both_and_a_chain(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    issuer, _ = self_signed(NOW)
    both.write_bytes(pem()[1] + pem()[0] + issuer)
    assert len(load_certificate(both, both).chain) == 2


@pytest.mark.parametrize(
    ("which", "content", "says"),
    [
        (0, None, "tls.certificate: {path}: there is no such file"),
        (1, None, "tls.key: {path}: there is no such file"),
        (0, b"", "tls.certificate: {path}: holds no certificate that can be read"),
        (0, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
        (0, PEM_OF_VERSION_4, "tls.certificate: {path}: holds no certificate that can be read"),
        (1, b"", "tls.key: {path}: holds no private key that can be read"),
        (1, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (0, b"x" * (MAX_FILE + 1), "is over 1048576 bytes"),
        (1, private_pem(ed25519.Ed25519PrivateKey.generate()), "neither an RSA nor an elliptic curve key"),
        (1, private_pem(rsa.generate_private_key(65537, 1024)), "has 1024 bits; RSA keys need 2048"),
        (1, private_pem(ed25519.Ed25519PrivateKey.generate(), b"secret"), "is encrypted"),
        (1, self_signed(NOW)[1], "does not belong to the first certificate in"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    files: tuple[Path, Path], which: int, content: bytes | None, says: str
) -> None:
    if content is None:
        files[which].unlink()
    else:
        files[which].write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_certificate(*files)
    assert says.format(path=files[which]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_file(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"tls\.certificate: .*: cannot be read: Is a directory"):
        load_certificate(tmp_path, files[1])


def test_self_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Build-7.Example.ORG", "not a name", "x" * 64):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        made = x509.load_pem_x509_certificate(self_signed(NOW, ["192.0.2.1", "localhost"])[0])
        names = names_of(made)
        assert set(names.ips) == {ip_address(ip) for ip in ("127.0.0.1", "::1", "192.0.2.1")}
        assert names.dns == (("localhost", "build-7.example.org") if "." in name else ("localhost",))
        assert made.not_valid_before_utc < NOW < made.not_valid_after_utc - timedelta(days=3000)


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("mail.example.org", True),
        ("MAIL.EXAMPLE.ORG.", True),
        ("a.wild.example", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        ("b\u00fccher.example", True),
        ("other.example.org", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("example", False),
        ("", False),
    ],
)
def test_names(host: str, matches: bool) -> None:
    names = Names(
        ("mail.example.org", "*.wild.example", "xn--bcher-kva.example", "*.example", "*"),
        (ip_address("192.0.2.1"),),
    )
    assert names.match(host) is matches


def test_a_wildcard_of_a_whole_top_level_matches_nothing() -> None:
    assert not Names(("*.org",), ()).match("example.org")
    assert not Names(("*",), ()).match("localhost")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_names_that_cannot_be_read(kind: str) -> None:
    assert names_of(unreadable(kind, root(), "mx.example.org").certificate) == Names((), ())
