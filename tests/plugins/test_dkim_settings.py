"""[plugin.dkim]: whose mail is signed, however the domain is spelt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway import Address
from gateway.errors import ConfigError
from gateway_dkim.plugin import Dkim
from tests.hooks.helpers import a_submission, load

DATA = b"From: jo@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def keys(tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "key.pem"
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return [{"selector": "a", "key": str(path)}]


async def signed(sender: str, domains: dict[str, Any]) -> bytes:
    hooks = load({"dkim": Dkim()}, {"plugin": {"dkim": {"domains": domains}}})
    submission = replace(a_submission(), header_from=Address.parse(sender))
    found: bytes = await hooks.for_account("").sign(data=DATA, submission=submission)
    assert found.endswith(DATA)
    return found.removesuffix(DATA)


@pytest.mark.parametrize(
    ("domain", "sender", "said"),
    [
        ("example.org", "jo@example.org", b"d=example.org;"),
        ("Example.ORG", "jo@example.org", b"d=example.org;"),
        ("example.org", "jo@EXAMPLE.org", b"d=example.org;"),
        ("xn--bcher-kva.example", "jo@bücher.example", b"d=xn--bcher-kva.example;"),
        ("BÜCHER.example", "jo@xn--bcher-kva.example", b"d=xn--bcher-kva.example;"),
    ],
)
async def test_every_spelling(keys: list[dict[str, str]], domain: str, sender: str, said: bytes) -> None:
    assert said in await signed(sender, {domain: keys})


async def test_a_domain_without_keys(keys: list[dict[str, str]]) -> None:
    assert await signed("jo@other.example", {"Example.ORG": keys}) == b""


SAME = "plugin.dkim.domains: {} and {} are the same domain; keep one of them"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("example.org", "Example.ORG"), SAME.format("'example.org'", "'Example.ORG'")),
        (
            ("bücher.example", "xn--bcher-kva.example"),
            SAME.format("'b\\xfccher.example'", "'xn--bcher-kva.example'"),
        ),
        (("a b",), "plugin.dkim.domains.\"a b\": domain 'a b' has an empty, too long or misspelt label"),
    ],
)
async def test_names_that_will_not_do(keys: list[dict[str, str]], names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await signed("jo@example.org", dict.fromkeys(names, keys))
    assert str(raised.value) == said
