from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import dkim
import pytest
import trio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.dkim_body import BodyHash
from gateway.mail.dkim_body import Canonicalization as BodyCanonicalization
from gateway_dkim import signature
from gateway_dkim.signature import (
    OVERSIGNED,
    Canonicalization,
    PrivateKey,
    Signer,
    SigningKeyError,
    UnsignableMessage,
    dns_record,
    load_private_key,
)
from tests.counting import at_most

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()

MESSAGE = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net,\r\n carol@example.net\r\n"
    b"Subject: Hello  there\r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\n"
    b"Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\nX-Other: x\r\n\r\nHello  Bob. \r\n\r\n.\r\n\r\n\r\n"
)


class _VerifyKey:
    """PyNaCl's class by that name, made of cryptography: all that dkimpy lacks here for Ed25519."""

    def __init__(self, key: bytes, encoder: object) -> None:
        self._key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise _BadSignatureError from None


class _BadSignatureError(Exception):
    pass


@pytest.fixture(autouse=True)
def nacl(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        signing=SimpleNamespace(VerifyKey=_VerifyKey),
        encoding=SimpleNamespace(Base64Encoder=None),
        exceptions=SimpleNamespace(BadSignatureError=_BadSignatureError),
    )
    monkeypatch.setattr(dkim, "nacl", module, raising=False)


def verifies(message: bytes, key: PrivateKey, name: str = "sel._domainkey.example.org.") -> bool:
    records = {name.encode(): dns_record(key).encode()}

    def lookup(asked: bytes, timeout: float = 5) -> bytes | None:
        return records.get(asked)

    return bool(dkim.verify(message, dnsfunc=lookup))


def signed(key: PrivateKey, message: bytes = MESSAGE) -> bytes:
    return Signer("example.org", "sel", key).sign(message) + message


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        b"From: a@b.org\r\n\r\n",
        b"From: a@b.org\r\n\r\nno line end",
        b"From: a@b.org\r\n\r\n\r\n\r\n",
        b"From: a@b.org\r\n\r\n \t\r\n\t x\t\ty \r\n",
        b"From: a@b.org\n\nline feeds\nonly\n",
        b"From: a@b.org\r\nSubject:\r\n folded\r\n\tmore\r\nReferences: <a@b>\r\n\r\na\rb\r\r\n\r\n",
        "From: ü@b.org\r\nSubject: Grüße\r\n\r\nGrüße\r\n".encode(),
        b"From: a@b.org\r\n" + b"List-Unsubscribe: <x>\r\n" * 3 + b"\r\nx\r\n",
        b"From: a@b.org\r\nSubject: long " + b"word " * 150 + b"\r\n\r\n" + b"line\r\n" * 5000,
    ],
)
def test_signatures_verify(key: PrivateKey, message: bytes) -> None:
    assert verifies(signed(key, message), key)


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello  Bob", b"Hello  Eve"),
        (b"Subject: Hello", b"Subject: Goodbye"),
        (b"bob@", b"eve@"),
        (b"\r\n\r\nHello", b"\r\n\r\n\r\nHello"),
        (b".\r\n\r\n\r\n", b".\r\nmore\r\n"),
    ],
)
def test_changes_break_the_signature(key: PrivateKey, old: bytes, new: bytes) -> None:
    message = signed(key)
    assert old in message
    assert not verifies(message.replace(old, new, 1), key)


def test_a_feedback_loop_is_signed() -> None:
    loop = b"CFBL-Address: fbl@example.org; report=arf\r\nCFBL-Feedback-ID: 17\r\n"
    data = signed(RSA, loop + MESSAGE)
    assert verifies(data, RSA)
    for change in ((b"fbl@", b"eve@"), (b"ID: 17", b"ID: 18")):
        assert not verifies(data.replace(*change), RSA)


@pytest.mark.parametrize("canonicalization", get_args(Canonicalization))
def test_each_canonicalization_verifies(canonicalization: Canonicalization) -> None:
    message = MESSAGE.replace(b"Subject: Hello", b"sUBJECT:  Hello\t \r\n \t")
    signer = Signer("example.org", "sel", RSA, canonicalization)
    data = signer.sign(message) + message
    assert f"c={canonicalization};".encode() in data
    assert verifies(data, RSA)
    assert verifies(data.replace(b"\t \r\n \t", b" "), RSA) is canonicalization.startswith("relaxed")
    assert verifies(data.replace(b"Bob. ", b"Bob."), RSA) is canonicalization.endswith("relaxed")
    assert signer.sign(message + b"\r\n" * 9, now=1) == signer.sign(message, now=1)


@pytest.mark.parametrize("name", OVERSIGNED)
def test_nothing_that_is_signed_can_be_added(name: bytes) -> None:
    message = signed(RSA)
    field = name.title() + b": x\r\n"
    assert not verifies(field + message, RSA)
    assert not verifies(message.replace(b"X-Other", field + b"X-Other"), RSA)


def test_white_space_and_unsigned_fields_may_change() -> None:
    message = signed(RSA).replace(b"X-Other: x\r\n", b"X-Other: y\r\nX-More: z\r\n")
    message = message.replace(b"Subject: Hello  there", b"SUBJECT:  Hello\r\n\tthere ")
    message = message.replace(b"Hello  Bob. \r\n", b"Hello Bob.\r\n") + b"\r\n"
    assert verifies(message, RSA)


def test_the_field() -> None:
    field = Signer("bücher.example", "s1.mail", ED25519).sign(MESSAGE, now=1_795_172_398)
    assert field.startswith(b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;")
    assert field.endswith(b"\r\n")
    assert field.count(b"\n") == field.count(b"\r\n")
    assert max(map(len, field.split(b"\r\n"))) <= 78
    tags = dkim.util.parse_tag_value(field.partition(b":")[2])
    assert (tags[b"d"], tags[b"s"], tags[b"t"]) == (b"xn--bcher-kva.example", b"s1.mail", b"1795172398")
    assert b"l" not in tags
    names = [name.strip() for name in tags[b"h"].split(b":")]
    assert all(names.count(name) == 1 + (name + b":" in MESSAGE.lower()) for name in OVERSIGNED)
    assert Signer("bücher.example", "s1.mail", ED25519).sign(MESSAGE, now=1_795_172_398) == field


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "no From"),
        (b"To: a@b.org\r\n\r\nx", "no From"),
        (b"\r\nFrom: a@b.org\r\n\r\nx", "no From"),
        (b" folded\r\nFrom: a@b.org\r\n\r\n", "can't be signed"),
        (b"From: a@b.org\r\nno field\r\n\r\n", "can't be signed"),
        (b"From: a@b.org\r\n" + b"To: x\r\n" * 1000 + b"\r\n", "more than 200"),
    ],
)
def test_what_can_not_be_signed(message: bytes, reason: str) -> None:
    with pytest.raises(UnsignableMessage, match=reason):
        Signer("example.org", "sel", ED25519).sign(message)


@pytest.mark.parametrize(
    ("domain", "selector"),
    [("", "s"), ("a b", "s"), ("a.org; x=y", "s"), ("a.org", ""), ("a.org", "s; d=x"), ("a.org", "s\r\n")],
)
def test_domain_and_selector_are_checked(domain: str, selector: str) -> None:
    with pytest.raises(ValueError, match="DKIM"):
        Signer(domain, selector, ED25519)


def pem(key: Any, password: bytes | None = None, form: Any = serialization.PrivateFormat.PKCS8) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))


def test_keys_load_from_pem() -> None:
    loaded = load_private_key(pem(RSA))
    assert isinstance(loaded, rsa.RSAPrivateKey)
    assert loaded.private_numbers() == RSA.private_numbers()
    assert isinstance(
        load_private_key(pem(RSA, form=serialization.PrivateFormat.TraditionalOpenSSL)), rsa.RSAPrivateKey
    )
    assert dns_record(load_private_key(pem(ED25519).decode())) == dns_record(ED25519)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "not PEM"),
        (lambda: base64.b64encode(bytes(32)), "not PEM"),
        (lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (lambda: pem(ED25519)[:60], "no private key"),
        (lambda: pem(ED25519, b"secret"), "encrypted"),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "DKIM knows RSA and Ed25519"),
        (
            lambda: ED25519.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            "no private key",
        ),
    ],
)
def test_keys_that_can_not_sign(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(SigningKeyError, match=reason):
        load_private_key(make())


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n\r\n", b"a", b"b", b"\r"])).map(b"".join))
def test_the_canonical_body_is_dkimpys(body: bytes) -> None:
    assert digest(body, "relaxed") == hashlib.sha256(Relaxed.canonicalize_body(whole_lines(body))).digest()
    assert digest(body, "simple") == hashlib.sha256(Simple.canonicalize_body(whole_lines(body))).digest()


def whole_lines(body: bytes) -> bytes:
    """dkimpy leaves space before an end without CRLF; in transport every line gets its CRLF first."""
    return body if not body or body.endswith(b"\r\n") else body + b"\r\n"


def digest(body: bytes, canonicalization: BodyCanonicalization) -> bytes:
    one = BodyHash(canonicalization)
    one.update(body)
    return one.digest()


def test_canonicalizing_takes_linear_time() -> None:
    with at_most(1_000):
        signed(ED25519, b"From: a@b.org\r\n\r\n" + (b" " * 997 + b"x\r\n") * 5000 + b" " * 1_000_000)
        signed(ED25519, b"From: a@b.org\r\n\r\n" + b"\r\n" * 2_000_000)


@given(
    st.lists(st.sampled_from([b"", b"word", b" a  b\t", b"\t", b"x" * 300, b" "]), max_size=30),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from(["simple", "relaxed"]),
)
def test_digest_in_pieces_is_that_of_the_whole(
    lines: list[bytes], piece: int, ended: bool, canonicalization: BodyCanonicalization
) -> None:
    body = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    message = b"From: a@b.example\r\n" * 3 + b"\r\n" + body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signature, "PIECE", piece)
        found = trio.run(signature.body_digest, message, canonicalization)
    canonical = (Relaxed if canonicalization == "relaxed" else Simple).canonicalize_body(whole_lines(body))
    assert found == hashlib.sha256(canonical).digest()


async def test_small_or_odd_messages_are_done_in_one_go() -> None:
    assert await signature.body_digest(b"From: a@b.example\r\n\r\nsmall\r\n") is None
    assert await signature.body_digest(b"From: a@b.example\r\n\r\n" + b"lone\nend\r\n" * 20_000) is None
