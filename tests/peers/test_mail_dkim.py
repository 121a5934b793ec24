"""What the plugin signs, verified by another implementation, perl's Mail::DKIM (`make system`).

Debian's does not know Ed25519 and passes over it; OpenDKIM verifies such signatures in test_opendkim.py.
"""

from __future__ import annotations

from pathlib import Path

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from gateway import Address, Submission
from gateway_dkim.plugin import Dkim, DkimSettings
from gateway_dkim.signature import OVERSIGNED, PrivateKey, dns_record
from tests.dns_server import DnsServer, dns_server

UNKNOWN = "invalid (unsupported algorithm ed25519-sha256)"
SCRIPT = Path(__file__).with_name("mail_dkim.pl")
KEYS: dict[str, PrivateKey] = {
    "2026r": rsa.generate_private_key(65537, 2048),
    "2026e": ed25519.Ed25519PrivateKey.generate(),
}
ALICE = Address.parse("alice@example.org")
MESSAGE = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net,\r\n\tcarol@example.net\r\n"
    b"Subject: Hello  there\r\nDate: Fri, 20 Nov 2026 10:59:58 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"List-Unsubscribe: <https://example.org/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"\r\n.Hello  Bob. \r\n\r\n.\r\n" + "Grüße\r\n\r\n\r\n".encode()
)


async def signed(directory: Path, message: bytes = MESSAGE) -> bytes:
    """As the plugin does it, with a key of each kind for one domain."""
    selectors = []
    for selector, key in KEYS.items():
        path = directory / f"{selector}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        selectors.append({"selector": selector, "key": str(path)})
    settings = DkimSettings.model_validate(
        {"domains": {"example.org": selectors}}, context={"config_dir": directory}
    )
    submission = Submission(
        id="1",
        account="app",
        login=ALICE,
        via="api",
        reverse_path=ALICE,
        header_from=ALICE,
        recipients=(Address.parse("bob@example.net"),),
        data=message,
        message_id="<1@example.org>",
        subject="Hello  there",
    )
    data = await Dkim().sign(message, submission, settings)
    assert data is not None
    return data


def publish(dns: DnsServer) -> None:
    for selector, key in KEYS.items():
        text = dns_record(key)
        strings = [text[start : start + 255] for start in range(0, len(text), 255)]
        dns.add(f"{selector}._domainkey.example.org", "TXT", " ".join(f'"{one}"' for one in strings))


async def verified(dns: DnsServer, message: bytes) -> dict[str, str]:
    """What Mail::DKIM says of each selector's signature."""
    done = await trio.run_process(
        ["perl", str(SCRIPT), str(dns.port)],
        stdin=message,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode() + "\nmissing? run `make system`"
    lines = [line.split(" ", 3) for line in done.stdout.decode().splitlines()]
    assert {(selector, algorithm, domain) for selector, algorithm, domain, _ in lines} == {
        ("2026r", "rsa-sha256", "example.org"),
        ("2026e", "ed25519-sha256", "example.org"),
    }
    return {selector: result for selector, _, _, result in lines}


async def test_both_signatures_verify(tmp_path: Path) -> None:
    async with dns_server() as dns:
        publish(dns)
        assert await verified(dns, await signed(tmp_path)) == {
            "2026r": "pass",
            "2026e": UNKNOWN,
        }


async def test_what_was_changed_does_not(tmp_path: Path) -> None:
    async with dns_server() as dns:
        publish(dns)
        message = await signed(tmp_path)
        changed = await verified(dns, message.replace(b"Hello  Bob", b"Hello  Eve"))
        assert changed["2026r"].startswith("fail (body has been altered)")
        for name in OVERSIGNED:
            added = await verified(dns, name.title() + b": x\r\n" + message)
            assert not any(result == "pass" for result in added.values()), name
