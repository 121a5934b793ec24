"""DKIM signatures (RFC 6376, RFC 8463): a message in, the header field to put before it out."""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal

import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from gateway.mail.address import AddressError, ascii_domain, parse_domain
from gateway.mail.dkim_body import BodyHash
from gateway.mail.dkim_body import Canonicalization as OneCanonicalization
from gateway.mail.dkim_signature import CANONICAL, signed_data, split_fields

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
# Of the header and the body (RFC 6376, 3.4): relaxed signatures bear changes of white space on the way.
Canonicalization = Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]
_PARTS: Final[Mapping[Canonicalization, tuple[OneCanonicalization, OneCanonicalization]]] = {
    "relaxed/relaxed": ("relaxed", "relaxed"),
    "relaxed/simple": ("relaxed", "simple"),
    "simple/relaxed": ("simple", "relaxed"),
    "simple/simple": ("simple", "simple"),
}

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
# RFC 9477, 3.1.2, wants these signed; a mailbox provider takes no notice of them otherwise.
_SIGNED: Final = frozenset({*OVERSIGNED, b"cfbl-address", b"cfbl-feedback-id"})
MAX_SIGNED_FIELDS = 200  # of one message; each of the above may occur once

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_LINE_END = re.compile(rb"\r?\n")
_PKCS1V15: Final = padding.PKCS1v15()
_SHA256: Final = hashes.SHA256()
_WIDTH = 76  # octets of a line of the field, where it can be broken

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

    def __init__(
        self,
        domain: str,
        selector: str,
        private_key: PrivateKey,
        canonicalization: Canonicalization = "relaxed/relaxed",
    ) -> None:
        try:
            self.domain = ascii_domain(parse_domain(domain))
        except AddressError as exc:
            raise ValueError(f"DKIM domain: {exc}") from None
        if not _SELECTOR.fullmatch(selector):
            raise ValueError(f"DKIM selector {selector!a} is no DNS name")
        self.selector = selector
        self.canonicalization = canonicalization
        self.of_header, self.of_body = _PARTS[canonicalization]
        self._key = check_key(private_key)
        algorithm = "rsa-sha256" if isinstance(self._key, rsa.RSAPrivateKey) else "ed25519-sha256"
        self._beginning = f"DKIM-Signature: v=1; a={algorithm}; c={canonicalization};".encode()
        self._whose = _folded((f"d={self.domain};", f"s={selector};"))

    def sign(self, message: bytes, now: int | None = None, body_digest: bytes | None = None) -> bytes:
        """The DKIM-Signature field with its CRLF, to be put before `message`.

        `body_digest` is what the function of that name answers for the message and `of_body`, where it was
        asked before. Lines of the message end in CRLF; a lone LF is signed as CRLF. `now` is the time of
        signing in seconds since 1970, by default the clock's. Raises UnsignableMessage.
        """
        if message.count(b"\n") != message.count(b"\r\n"):
            message = _LINE_END.sub(b"\r\n", message)
        head, _, body = message.partition(b"\r\n\r\n")
        fields = _fields(head.removesuffix(b"\r\n"))
        names = *(name for name, _ in fields), *OVERSIGNED
        by_name: dict[bytes, list[bytes]] = {}
        for name, field in fields:
            by_name.setdefault(name, []).append(field)
        tags = (
            self._beginning + b" t=%d;" % (int(time.time()) if now is None else now),
            self._whose,
            _names_tag(names),
            b" bh=" + base64.b64encode(body_digest or _digest(body, self.of_body)) + b";",
            b" b=",
        )
        field = b"\r\n".join(tags)
        value = self._value(signed_data(names, by_name, field, CANONICAL[self.of_header]))
        return field + b"\r\n ".join(_lines(base64.b64encode(value))) + b"\r\n"

    def _value(self, data: bytes) -> bytes:
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


# --- A message ------------------------------------------------------------------------------------


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields to be signed of a header section, from the top. Raises UnsignableMessage."""
    section = b"" if head.startswith(b"\r\n") else head + b"\r\n"
    if section.startswith(b"From "):  # of an mbox file
        section = section.partition(b"\r\n")[2]
    fields = split_fields(section)
    signed = [(name, field) for name, field in fields if name in _SIGNED]
    if not any(name == b"from" for name, _ in signed):
        raise UnsignableMessage("header can't be signed: there is no From")
    if sum(len(field) for _, field in fields) != len(section):
        raise UnsignableMessage("header can't be signed: not all of its lines are fields")
    if len(signed) > MAX_SIGNED_FIELDS:
        raise UnsignableMessage(f"header can't be signed: more than {MAX_SIGNED_FIELDS} fields to be signed")
    return signed


async def body_digest(message: bytes, canonicalization: OneCanonicalization = "relaxed") -> bytes | None:
    """The SHA-256 of a large message's body, canonicalized, the event loop having its turns.

    None for a message that is small, or has line ends other than CRLF: `Signer.sign` does these in one go.
    """
    if len(message) <= PIECE or message.count(b"\n") != message.count(b"\r\n"):
        return None
    start = message.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    body = BodyHash(canonicalization)
    for piece in range(start, len(message), PIECE):
        await trio.lowlevel.checkpoint()
        body.update(message[piece : piece + PIECE])
    return body.digest()


def _digest(body: bytes, canonicalization: OneCanonicalization) -> bytes:
    whole = BodyHash(canonicalization)
    whole.update(body)
    return whole.digest()


# --- The field ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _names_tag(names: tuple[bytes, ...]) -> bytes:
    """h=, remembered: most messages have the same fields."""
    listed = b" : ".join(names).decode("ascii")
    return _folded((f"h={listed};",))


def _folded(words: Iterable[str]) -> bytes:
    return (
        textwrap.fill(
            " ".join(words),
            _WIDTH,
            initial_indent=" ",
            subsequent_indent=" ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        .replace("\n", "\r\n")
        .encode("ascii")
    )


def _lines(value: bytes) -> list[bytes]:
    step = _WIDTH - len(" b=")
    return [value[start : start + step] for start in range(0, len(value), step)]
