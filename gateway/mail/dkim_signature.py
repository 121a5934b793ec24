"""DKIM signatures of a message that came in (RFC 6376, RFC 8301, RFC 8463): reading and checking them.

Pure: keys are looked up by the caller, and the body is hashed in pieces as it comes (`dkim_body`). Every
signature gets one DkimCheck, whatever is wrong with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from typing import Final, TypeAlias, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from gateway.mail.address import AddressError, ascii_domain, parse_domain
from gateway.mail.auth_results import DkimCheck, DkimResult
from gateway.mail.dkim_body import Canonicalization
from gateway.mail.headers import MAX_FIELDS

MAX_SIGNATURES = 10  # of one message that are looked at
MAX_FIELD = 16 * 1024  # octets of a DKIM-Signature
MAX_NAMES = 500  # in h=
MAX_KEY_RECORD = 4096  # octets
MIN_RSA_BITS = 1024  # RFC 8301, 3.2
MAX_RSA_BITS = 4096
_MAX_EXPONENT_BITS = 64  # a large one makes a check slow

_Canonical: TypeAlias = Mapping[Canonicalization, Callable[[bytes], bytes]]
PublicKey: TypeAlias = rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z)", re.MULTILINE)
_AT_LINE_START = re.compile(rb"^(?=[!-9;-~]++[ \t]*+:)", re.MULTILINE)
_WHITE = re.compile(rb"[ \t\r\n]++")
_TAG = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(rb"[0-9]{1,12}")
_ALGORITHMS: Final = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_PKCS1V15: Final = padding.PKCS1v15()
_SHA256: Final = hashes.SHA256()


class DkimSyntaxError(ValueError):
    """A signature or a key record is wrong; the message says what."""


class KeyUnusable(ValueError):
    """There is a key, and no signature made with it counts; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A DKIM-Signature field that could be read."""

    field: bytes  # as it stands in the message, with its last CRLF
    domain: str  # d=, canonical
    selector: str
    algorithm: str
    header: Canonicalization
    body: Canonicalization
    names: tuple[bytes, ...]  # h=, in lower case
    body_hash: bytes
    value: bytes  # b=
    identity_domain: str  # of i=
    expires: int | None  # seconds since 1970
    length: bool  # l= is there

    @property
    def key_name(self) -> str:
        """Where its key is in DNS."""
        return f"{self.selector}._domainkey.{ascii_domain(self.domain)}"

    def check(self, result: DkimResult, reason: str = "") -> DkimCheck:
        return DkimCheck(
            result=result,
            domain=self.domain,
            selector=self.selector,
            algorithm=self.algorithm,
            signature=base64.b64encode(self.value[:6]).decode(),
            reason=reason,
        )


# --- Reading signatures ---------------------------------------------------------------------------


def read_signatures(section: bytes) -> tuple[Signature | DkimCheck, ...]:
    """The first ten signatures of a header section, from the top; a DkimCheck for one that cannot be read."""
    if b"dkim-signature" not in section.lower():
        return ()
    fields = (field for name, field in split_fields(section) if name == b"dkim-signature")
    return tuple(_read(field) for field in islice(fields, MAX_SIGNATURES))


def split_fields(section: bytes) -> list[tuple[bytes, bytes]]:
    """The fields as they stand, each with its name in lower case. What is no field is left out."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while len(found) < MAX_FIELDS:
        field = _FIELD.match(section, at)
        if field is None:
            start = _AT_LINE_START.search(section, at + 1)
            if start is None:
                break
            at = start.start()
            continue
        found.append((field[1].lower(), field[0]))
        at = field.end()
    return found


def _read(field: bytes) -> Signature | DkimCheck:
    try:
        return _signature(field)
    except DkimSyntaxError as exc:
        return DkimCheck(result="neutral", reason=str(exc))


def _signature(field: bytes) -> Signature:
    """Raises DkimSyntaxError."""
    if len(field) > MAX_FIELD:
        raise DkimSyntaxError(f"the signature is longer than {MAX_FIELD} octets")
    tags = parse_tags(field.partition(b":")[2])
    for name in ("v", "a", "b", "bh", "d", "h", "s"):
        if name not in tags:
            raise DkimSyntaxError(f"{name}= is missing")
    if tags["v"] != b"1":
        raise DkimSyntaxError("v= is not 1")
    algorithm = _text(tags, "a").lower()
    if algorithm not in _ALGORITHMS:
        raise DkimSyntaxError(f"a={algorithm[:40]!a} is no algorithm that counts")
    try:
        domain = parse_domain(_text(tags, "d"))
        identity = parse_domain(_text(tags, "i").rpartition("@")[2]) if "i" in tags else domain
    except AddressError as exc:
        raise DkimSyntaxError(str(exc)) from None
    if identity != domain and not identity.endswith("." + domain):
        raise DkimSyntaxError("i= is of another domain than d=")
    selector = _text(tags, "s")
    if (
        len(selector) + len(ascii_domain(domain)) > 230
        or not _SELECTOR.fullmatch(selector)
        or domain[0] == "["
    ):
        raise DkimSyntaxError("s= and d= name no key")
    header, _, body = _text(tags, "c", "simple/simple").lower().partition("/")
    if header not in ("simple", "relaxed") or (body or "simple") not in ("simple", "relaxed"):
        raise DkimSyntaxError("c= is no canonicalization")
    names = tuple(_WHITE.sub(b"", name).lower() for name in tags["h"].split(b":", MAX_NAMES + 1))
    if len(names) > MAX_NAMES:
        raise DkimSyntaxError(f"h= has more than {MAX_NAMES} names")
    if b"from" not in names:
        raise DkimSyntaxError("h= is without From")
    if "q" in tags and b"dns/txt" not in _WHITE.sub(b"", tags["q"]).lower().split(b":"):
        raise DkimSyntaxError("q= has no method that is known")
    expires, signed = _number(tags, "x"), _number(tags, "t")
    if expires is not None and signed is not None and expires < signed:
        raise DkimSyntaxError("x= is before t=")
    return Signature(
        field=field,
        domain=domain,
        selector=selector,
        algorithm=algorithm,
        header=cast(Canonicalization, header),
        body=cast(Canonicalization, body or "simple"),
        names=names,
        body_hash=_base64(tags, "bh"),
        value=_base64(tags, "b"),
        identity_domain=identity,
        expires=expires,
        length="l" in tags,
    )


def parse_tags(text: bytes) -> dict[str, bytes]:
    """A tag list (RFC 6376, 3.2), values without space around. Raises DkimSyntaxError."""
    tags: dict[str, bytes] = {}
    for part in text.split(b";", 100):
        name, equals, value = part.partition(b"=")
        name = name.strip()
        if not name and not equals:
            if part.strip():
                raise DkimSyntaxError("something stands between two tags")
            continue
        if not equals or not _TAG.fullmatch(name):
            raise DkimSyntaxError(f"{part[:40]!a} is no tag")
        key = name.decode("ascii")
        if key in tags:
            raise DkimSyntaxError(f"{key}= is there twice")
        tags[key] = value.strip()
    return tags


def _text(tags: Mapping[str, bytes], name: str, default: str = "") -> str:
    try:
        return tags[name].decode("utf-8") if name in tags else default
    except UnicodeDecodeError:
        raise DkimSyntaxError(f"{name}= is not UTF-8") from None


def _number(tags: Mapping[str, bytes], name: str) -> int | None:
    if name not in tags:
        return None
    if not _NUMBER.fullmatch(tags[name]):
        raise DkimSyntaxError(f"{name}= is no number")
    return int(tags[name])


def _base64(tags: Mapping[str, bytes], name: str) -> bytes:
    try:
        data = base64.b64decode(_WHITE.sub(b"", tags[name]), validate=True)
    except binascii.Error:
        data = b""
    if not data:
        raise DkimSyntaxError(f"{name}= is not base64")
    return data


# --- Keys -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A key record that can be used. `exact`: i= must have the very domain of d=."""

    public: PublicKey
    testing: bool
    exact: bool


@lru_cache(maxsize=256)
def parse_key(record: bytes) -> Key:
    """A key record (RFC 6376, 3.6.1). Raises DkimSyntaxError, KeyUnusable."""
    if len(record) > MAX_KEY_RECORD:
        raise DkimSyntaxError(f"the key record is longer than {MAX_KEY_RECORD} octets")
    tags = parse_tags(record)
    if tags.get("v", b"DKIM1") != b"DKIM1" or "p" not in tags:
        raise DkimSyntaxError("the key record is none of DKIM")
    if not tags["p"]:
        raise DkimSyntaxError("the key is revoked")
    if "h" in tags and b"sha256" not in _listed(tags["h"]):
        raise DkimSyntaxError("the key is not for SHA-256")
    if "s" in tags and not {b"*", b"email"} & _listed(tags["s"]):
        raise DkimSyntaxError("the key is not for email")
    flags = _listed(tags.get("t", b""))
    public = _public_key(tags.get("k", b"rsa").lower(), _base64(tags, "p"))
    return Key(public, testing=b"y" in flags, exact=b"s" in flags)


def _listed(value: bytes) -> set[bytes]:
    return set(_WHITE.sub(b"", value).split(b":"))


def _public_key(kind: bytes, data: bytes) -> PublicKey:
    if kind == b"ed25519":
        try:
            return ed25519.Ed25519PublicKey.from_public_bytes(data)
        except ValueError:
            raise DkimSyntaxError("the Ed25519 key cannot be read") from None
    if kind != b"rsa":
        raise DkimSyntaxError(f"k={kind[:20]!a} is no kind of key that is known")
    try:
        key = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise DkimSyntaxError("the RSA key cannot be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise DkimSyntaxError("the key is not of RSA")
    if key.key_size < MIN_RSA_BITS:
        raise KeyUnusable(f"the RSA key has only {key.key_size} bits")
    if key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
        raise KeyUnusable(f"the RSA key is too large ({key.key_size} bits)")
    return key


# --- Checking -------------------------------------------------------------------------------------


def check_signatures(
    section: bytes,
    signed: Sequence[tuple[Signature, bytes]],
    body_hashes: Mapping[Canonicalization, bytes],
    now: int,
) -> tuple[DkimCheck, ...]:
    """Each signature of a header section with its key record; `body_hashes` by canonicalization."""
    fields: dict[bytes, list[bytes]] = {}
    for name, field in split_fields(section) if signed else ():
        fields.setdefault(name, []).append(field)
    canonical: _Canonical = {"simple": _ended, "relaxed": cache(relaxed_field)}
    return tuple(
        _check(signature, record, fields, canonical, body_hashes[signature.body], now)
        for signature, record in signed
    )


def early_verdict(signature: Signature, now: int) -> DkimCheck | None:
    """What can be said of a signature without its key and the body."""
    if signature.length:
        return signature.check("fail", "l= leaves a part of the body unsigned")
    if signature.expires is not None and signature.expires < now:
        return signature.check("fail", "the signature has expired")
    return None


def _check(
    signature: Signature,
    record: bytes,
    fields: Mapping[bytes, Sequence[bytes]],
    canonical: _Canonical,
    body_hash: bytes,
    now: int,
) -> DkimCheck:
    early = early_verdict(signature, now)
    if early is not None:
        return early
    try:
        key = parse_key(record)
    except DkimSyntaxError as exc:
        return signature.check("permerror", str(exc))
    except KeyUnusable as exc:
        return signature.check("fail", str(exc))
    if key.exact and signature.identity_domain != signature.domain:
        return signature.check("permerror", "i= is of a subdomain, which the key is not for")
    if isinstance(key.public, rsa.RSAPublicKey) != (_ALGORITHMS[signature.algorithm] == "rsa"):
        return signature.check("permerror", "the key is of another kind than a=")
    failed: DkimResult = "neutral" if key.testing else "fail"
    if signature.body_hash != body_hash:
        return signature.check(failed, "the body was changed")
    data = _signed_data(signature, fields, canonical[signature.header])
    try:
        if isinstance(key.public, rsa.RSAPublicKey):
            key.public.verify(signature.value, data, _PKCS1V15, _SHA256)
        else:
            key.public.verify(signature.value, hashlib.sha256(data).digest())
    except InvalidSignature:
        return signature.check(failed, "the signature is not of this header, or of another key")
    return signature.check("pass")


def _signed_data(
    signature: Signature, fields: Mapping[bytes, Sequence[bytes]], canonical: Callable[[bytes], bytes]
) -> bytes:
    """The fields that h= names, from the bottom, and the signature without its value (RFC 6376, 3.7)."""
    taken: dict[bytes, int] = {}
    data = bytearray()
    for name in signature.names:
        count = taken[name] = taken.get(name, 0) + 1
        there = fields.get(name, ())
        if count <= len(there):
            data += canonical(there[-count])
    data += canonical(_without_value(signature.field)).removesuffix(b"\r\n")
    return bytes(data)


def _ended(field: bytes) -> bytes:
    return field if field.endswith(b"\n") else field + b"\r\n"


def relaxed_field(field: bytes) -> bytes:
    """RFC 6376, 3.4.2."""
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + _WHITE.sub(b" ", value).strip(b" ") + b"\r\n"


def _without_value(field: bytes) -> bytes:
    """A DKIM-Signature field with nothing behind b=."""
    name, _, text = field.removesuffix(b"\n").removesuffix(b"\r").partition(b":")
    parts = text.split(b";")
    for number, part in enumerate(parts):
        tag, equals, _ = part.partition(b"=")
        if equals and tag.strip() == b"b":
            parts[number] = tag + equals
    return name + b":" + b";".join(parts)
