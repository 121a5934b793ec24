"""DKIM signatures (RFC 6376, RFC 8463): a message in, the header field to put before it out.

dkimpy canonicalizes the header, hashes, folds and writes the field. Ours are:

- the private-key operation, by cryptography: RSA in Python takes milliseconds, Ed25519 needs PyNaCl there;
- finding the header and the body: dkimpy cuts the whole body into lines and joins them again;
- canonicalizing the body: dkimpy's expression for space before a line end takes quadratic time.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import Final, Literal, NamedTuple, get_args

import dkim
import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from dkim.canonicalization import CanonicalizationPolicy

from gateway import AddressError
from gateway.mail.address import ascii_domain, parse_domain
from gateway.mail.dkim_body import BodyHash
from gateway.mail.dkim_body import Canonicalization as BodyCanonicalization

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
# Of the header and the body (RFC 6376, 3.4): relaxed signatures bear changes of white space on the way.
Canonicalization = Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]

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
_POLICIES: Final = {c: CanonicalizationPolicy.from_c_value(c.encode()) for c in get_args(Canonicalization)}
_PREHASHED: Final = utils.Prehashed(hashes.SHA256())
_PKCS1V15: Final = padding.PKCS1v15()


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
        self.of_body: BodyCanonicalization = "relaxed" if canonicalization.endswith("relaxed") else "simple"
        self._key = _Key(check_key(private_key))

    def sign(self, message: bytes, now: int | None = None, body_digest: bytes | None = None) -> bytes:
        """The DKIM-Signature field with its CRLF, to be put before `message`.

        `body_digest` is what the function of that name answers for the message and `of_body`, where it was
        asked before. Lines of the message end in CRLF; a lone LF is signed as CRLF. `now` is the time of
        signing in seconds since 1970, by default the clock's. Raises UnsignableMessage.
        """
        try:
            signing = _Signing(message, signature_algorithm=self._key.algorithm)
            return signing.signature(
                self.domain,
                self.selector,
                self._key,
                self.canonicalization,
                int(time.time()) if now is None else now,
                body_digest or _digest(signing.body, self.of_body),
            )
        except (dkim.DKIMException, IndexError) as exc:
            raise UnsignableMessage(f"header can't be signed: {exc}") from None


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


class _Signature(NamedTuple):
    signature: bytes


class _Key:
    """A key as dkimpy calls it."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.algorithm = b"rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else b"ed25519-sha256"

    def sign(self, digest: bytes) -> _Signature:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return _Signature(self._key.sign(digest, _PKCS1V15, _PREHASHED))
        return _Signature(self._key.sign(digest))


class _Signing(dkim.DKIM):  # type: ignore[misc]  # dkimpy has no types
    """One message being signed."""

    def set_message(self, message: bytes) -> None:
        """Keeps the fields to be signed, as dkimpy wants them, and the body."""
        if message.count(b"\n") != message.count(b"\r\n"):
            headers, self.body = dkim.rfc822_parse(message)
        else:
            head, _, self.body = message.partition(b"\r\n\r\n")
            headers, _ = dkim.rfc822_parse(head)
        self.headers = [header for header in headers if header[0].lower() in _SIGNED]
        if not any(name.lower() == b"from" for name, _ in self.headers):
            raise dkim.MessageFormatError("there is no From")
        if len(self.headers) > MAX_SIGNED_FIELDS:
            raise dkim.MessageFormatError(f"more than {MAX_SIGNED_FIELDS} fields to be signed")

    def signature(
        self,
        domain: str,
        selector: str,
        key: _Key,
        canonicalization: Canonicalization,
        now: int,
        body_digest: bytes,
    ) -> bytes:
        self.hasher = hashlib.sha256
        # Here this only tells dkimpy to leave the signing to the key; what is written is in the field "a".
        self.signature_algorithm = b"ed25519-sha256"
        present = [name.lower() for name, _ in self.headers]
        fields = [
            (b"v", b"1"),
            (b"a", key.algorithm),
            (b"c", canonicalization.encode("ascii")),
            (b"d", domain.encode("ascii")),
            (b"s", selector.encode("ascii")),
            (b"t", str(now).encode("ascii")),
            (b"h", b" : ".join((*present, *OVERSIGNED))),
            (b"bh", base64.b64encode(body_digest)),
            (b"b", b"0" * 60),  # dkimpy puts the signature here; as long as this, it starts a line of its own
        ]
        # What is signed and absent adds nothing to the hash: dkimpy need not look for it.
        value: bytes = self.gen_header(fields, present, _POLICIES[canonicalization], b"DKIM-Signature", key)
        return b"DKIM-Signature: " + value


async def body_digest(message: bytes, canonicalization: BodyCanonicalization = "relaxed") -> bytes | None:
    """The SHA-256 of a large message's body, canonicalized, the event loop having its turns.

    None for a message that is small, or has line ends other than CRLF: `Signer.sign` does these in one go.
    """
    if len(message) <= PIECE or not message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n"):
        return None
    start = message.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    body = BodyHash(canonicalization)
    for piece in range(start, len(message), PIECE):
        await trio.lowlevel.checkpoint()
        body.update(message[piece : piece + PIECE])
    return body.digest()


def _digest(body: bytes, canonicalization: BodyCanonicalization) -> bytes:
    whole = BodyHash(canonicalization)
    whole.update(body)
    return whole.digest()
