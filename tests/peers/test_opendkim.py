"""DKIM with OpenDKIM (`make system`), RSA and Ed25519: each verifies what the other signs."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway.clock import Clock
from gateway.inbound.verify.dkim import check_dkim
from gateway.mail.dkim_body import BodyHash
from gateway.mail.dkim_signature import Signature, read_signatures
from gateway.offload import Offload
from gateway_dkim.signature import Canonicalization, PrivateKey, Signer, dns_record
from tests.inbound.verify.zones import Zones
from tests.peers.programs import program

KEYS: dict[str, PrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
HEADER = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net,\r\n\tcarol@example.net\r\n"
    b"Subject: Hello  there\r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\nMessage-ID: <1@example.org>\r\n"
)
MESSAGE = HEADER + b"\r\n.Hello  Bob. \r\n\r\n.\r\n" + "Grüße\t\r\n\r\n\r\n".encode()

each_key = pytest.mark.parametrize("kind", KEYS)
each_form = pytest.mark.parametrize("canonicalization", get_args(Canonicalization))


async def opendkim(directory: Path, message: bytes, **settings: str) -> str:
    """What it says to one message."""
    (directory / "conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (directory / "message").write_bytes(message)
    done = await trio.run_process(
        [program("opendkim"), "-x", str(directory / "conf"), "-t", str(directory / "message"), "-vv"],
        capture_stdout=True,
        capture_stderr=True,
    )
    return done.stdout.decode()


async def verified(directory: Path, kind: str, message: bytes) -> str:
    keys = directory / "keys"
    keys.write_text(f"{kind}._domainkey.example.org {dns_record(KEYS[kind])}\n")
    said = await opendkim(directory, message, Mode="v", TestPublicKeys=str(keys))
    assert f"header.a={kind}-sha256 header.s={kind}" in said
    [result] = re.findall(r"dkim=(\w+)", said)
    return str(result)


@each_key
@each_form
async def test_it_verifies_ours(tmp_path: Path, kind: str, canonicalization: Canonicalization) -> None:
    signed = Signer("example.org", kind, KEYS[kind], canonicalization).sign(MESSAGE) + MESSAGE
    assert f"c={canonicalization};".encode() in signed
    assert await verified(tmp_path, kind, signed) == "pass"
    assert await verified(tmp_path, kind, signed.replace(b"Hello  Bob", b"Hello  Eve")) == "fail"
    assert await verified(tmp_path, kind, signed.replace(b"Hello  there", b"Hello  where")) == "fail"
    # White space may change on the way where the signature is relaxed.
    header, body = canonicalization.split("/")
    changed = signed.replace(b"Hello  there", b"Hello there")
    assert await verified(tmp_path, kind, changed) == ("pass" if header == "relaxed" else "fail")
    changed = signed.replace(b"Bob. \r\n", b"Bob.\r\n")
    assert await verified(tmp_path, kind, changed) == ("pass" if body == "relaxed" else "fail")


@pytest.mark.parametrize(
    ("kind", "canonicalization"),
    # With simple header and Ed25519 it makes signatures that it does not verify itself.
    [pair for pair in product(KEYS, get_args(Canonicalization)) if pair[0] == "rsa" or pair[1][0] == "r"],
)
async def test_we_verify_its(tmp_path: Path, kind: str, canonicalization: Canonicalization) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(
        KEYS[kind].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key_file.chmod(0o600)
    said = await opendkim(
        tmp_path,
        MESSAGE,
        Mode="s",
        Domain="example.org",
        Selector=kind,
        KeyFile=str(key_file),
        RequireSafeKeys="no",  # for /tmp is anybody's
        SignatureAlgorithm=f"{kind}-sha256",
        Canonicalization=canonicalization,
    )
    [field] = re.findall(r"hname='DKIM-Signature' hvalue='([^']*)'", said)
    signature = b"DKIM-Signature: " + field.replace("\n", "\r\n").encode() + b"\r\n"
    assert await checked(kind, signature + MESSAGE) == "pass"
    assert await checked(kind, signature + MESSAGE.replace(b"Bob", b"Eve")) == "fail"


async def checked(kind: str, message: bytes) -> str:
    """What our verifier says."""
    dns = Zones()
    dns.add(f"{kind}._domainkey.example.org", "TXT", dns_record(KEYS[kind]).encode())
    header, _, body = message.partition(b"\r\n\r\n")
    header += b"\r\n\r\n"
    [signature] = read_signatures(header)
    assert isinstance(signature, Signature)
    body_hash = BodyHash(signature.body)
    body_hash.update(body)
    hashes, now = {signature.body: body_hash.digest()}, int(Clock().now().timestamp())
    async with Offload.open() as offload:
        [check] = await check_dkim(dns, offload, header, (signature,), hashes, now)
    return check.result
