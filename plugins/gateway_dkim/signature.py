"""DKIM signatures (RFC 6376, RFC 8463): a message in, the header field to put before it out."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from functools import lru_cache
from typing import Final

import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from gateway.mail.address import AddressError, ascii_domain, parse_domain
from gateway.mail.dkim_body import BodyHash, relaxed_lines
from gateway.mail.dkim_signature import relaxed_field

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

MIN_RSA_BITS = 1024  # RFC 8301, 3.2: shorter ones are refused by verifiers
MAX_RSA_BITS = 4096  # and longer ones need not be understood

# Each is signed once more than it occurs, so that nobody can add another one (RFC 6376, 8.15).
OVERSIGNED: Final = (
    b"from",
    b"to",
    b"cc",
    b"bcc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"references",
    b"in-reply-to",
    b"content-type",
    b"mime-version",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
_SIGNED: Final = frozenset(OVERSIGNED)
MAX_SIGNED_FIELDS = 200  # of one message; each of the above may occur once

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_FIELD = re.compile(rb"([!-9;-~]++):[^\n]*+(?:\n[ \t][^\n]*+)*+\n")
_LINE_END = re.compile(rb"\r?\n")
_SHA256: Final = hashes.SHA256()
_PKCS1V15: Final = padding.PKCS1v15()
_LINE = 72  # octets: of a longer signature or list of names the rest goes to the next line

PIECE = 64 * 1024  # bytes: what the event loop has time for at once


class SigningKeyError(ValueError):
    """The key can't sign for DKIM; the message says why."""


class UnsignableMessage(ValueError):
    """The message has no header that could be signed; the message of the error says why."""


class Signer:
    """Signs for one domain with one key. May be used from several threads at once.

    `domain` may be internationalized; `selector` is what stands before `._domainkey` in DNS. Raises
    ValueError for either, SigningKeyError for a key that verifiers would refuse.
    """

    def __init__(self, domain: str, selector: str, private_key: PrivateKey) -> None:
        try:
            self.domain = ascii_domain(parse_domain(domain))
        except AddressError as exc:
            raise ValueError(f"DKIM domain: {exc}") from None
        if not _SELECTOR.fullmatch(selector):
            raise ValueError(f"DKIM selector {selector!a} is no DNS name")
        self.selector = selector
        self._key = check_key(private_key)
        algorithm = "rsa" if isinstance(private_key, rsa.RSAPrivateKey) else "ed25519"
        self._start = (
            f"DKIM-Signature: v=1; a={algorithm}-sha256; c=relaxed/relaxed;\r\n"
            f" d={self.domain}; s={selector};"
        ).encode("ascii")

    def sign(self, message: bytes, now: int | None = None, body_digest: bytes | None = None) -> bytes:
        """The DKIM-Signature field with its CRLF, to be put before `message`.

        `body_digest` is what the function of that name answers for the message, where it was asked before.

        Lines of the message end in CRLF; a lone LF is signed as CRLF.
        relaxed/relaxed, the whole body. `now` is the time of signing in seconds since 1970, by default the
        clock's. Raises UnsignableMessage.
        """
        if message.count(b"\n") != message.count(b"\r\n"):
            message = _LINE_END.sub(b"\r\n", message)
        head, _, body = message.partition(b"\r\n\r\n")
        names, fields = _signed_fields(head if head.endswith(b"\r\n") else head + b"\r\n")
        if body_digest is None:
            body_digest = hashlib.sha256(relaxed_body(body)).digest()
        field = b"%b t=%d;\r\n h=%b;\r\n bh=%b;\r\n b=" % (
            self._start,
            time.time() if now is None else now,
            _h_tag(names),
            base64.b64encode(body_digest),
        )
        signature = base64.b64encode(self._sign(fields + relaxed_field(field).removesuffix(b"\r\n")))
        lines = [signature[start : start + _LINE] for start in range(0, len(signature), _LINE)]
        return field + b"\r\n ".join(lines) + b"\r\n"

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, _PKCS1V15, _SHA256)
        return self._key.sign(hashlib.sha256(data).digest())


def load_private_key(pem: bytes | str) -> PrivateKey:
    """An RSA or Ed25519 key from unencrypted PEM (PKCS #8 or PKCS #1). Raises SigningKeyError, never with any
    of the key in its message."""
    data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
    if b"-----BEGIN" not in data:
        raise SigningKeyError("key is not PEM: no BEGIN line")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise SigningKeyError("key is encrypted; store it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyError("PEM holds no private key that can be read") from None
    return check_key(key)


def check_key(key: object) -> PrivateKey:
    """`key` if it is one that DKIM verifiers take, else SigningKeyError."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SigningKeyError(f"key is {type(key).__name__}; DKIM knows RSA and Ed25519")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise SigningKeyError(f"RSA key has {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are usable")
    return key


def dns_record(key: PrivateKey) -> str:
    """The TXT record to publish at `<selector>._domainkey.<domain>` (RFC 6376, 3.6.1; RFC 8463, 3)."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        data = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(data).decode()}"
    data = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(data).decode()}"


def _signed_fields(section: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """What h= names, and these fields in relaxed canonicalization (RFC 6376, 5.4.2).

    Of several fields of a name the last is taken first. Raises UnsignableMessage.
    """
    names: list[bytes] = []
    found: dict[bytes, list[bytes]] = {}
    at = 0
    while at < len(section) and (field := _FIELD.match(section, at)):
        at = field.end()
        name = field[1].lower()
        if name in _SIGNED:
            names.append(name)
            found.setdefault(name, []).append(relaxed_field(field[0]))
    if at < len(section) and not section.startswith(b"\r\n"):
        line = section[at : section.find(b"\n", at)]
        raise UnsignableMessage(f"header can't be signed: {line[:80]!a} is no field")
    if b"from" not in found:
        raise UnsignableMessage("header can't be signed: there is no From")
    if len(names) > MAX_SIGNED_FIELDS:
        raise UnsignableMessage(f"header can't be signed: more than {MAX_SIGNED_FIELDS} fields to be signed")
    return (*names, *OVERSIGNED), b"".join(found[name].pop() for name in names)


@lru_cache(maxsize=100)  # an application's messages mostly have the same fields
def _h_tag(names: tuple[bytes, ...]) -> bytes:
    """The value of h=, folded."""
    lines = [b""]
    for name in names:
        part = b" : " + name if lines[0] else name
        if len(lines[-1]) + len(part) > _LINE:
            lines.append(b"")
        lines[-1] += part
    return b"\r\n".join(lines)


async def body_digest(message: bytes) -> bytes | None:
    """The SHA-256 of a large message's body in relaxed canonicalization, the event loop having its turns.

    None for a message that is small, or has line ends other than CRLF: `Signer.sign` does these in one go.
    """
    if len(message) <= PIECE or not message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n"):
        return None
    start = message.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    body = BodyHash("relaxed")
    for piece in range(start, len(message), PIECE):
        await trio.lowlevel.checkpoint()
        body.update(message[piece : piece + PIECE])
    return body.digest()


def relaxed_body(body: bytes) -> bytes:
    """The body in relaxed canonicalization (RFC 6376, 3.4.4), in linear time. Lines end in CRLF."""
    if not body:
        return b""
    body = relaxed_lines(body if body.endswith(b"\r\n") else body + b"\r\n")
    end = len(body.rstrip(b"\r\n"))
    ends = body[end:]
    if ends != b"\r\n" * (len(ends) // 2):  # a lone CR stands before the end
        end = len(body)
        while body.endswith(b"\r\n", 0, end):
            end -= 2
    return body[:end] + b"\r\n" if end else b""
