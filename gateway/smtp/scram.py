"""SCRAM without I/O (RFC 5802, RFC 7677): both sides, with channel binding (`-PLUS`).

    server                                   client
                                             first()
    user = read_first(message)
    first(secret of user)
                                             final(message)
    read_final(message)
                                             verify(message)

What a password becomes is made by `derive`; a server never sees the password itself. Messages that are no
SCRAM raise ScramError; a wrong proof is no error, but the answer None.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64encode
from dataclasses import dataclass

MAX_MESSAGE = 4096  # octets of what a client says; names and nonces are far shorter
MAX_ITERATIONS = 1_000_000  # that a client lets a server ask for
_NONCE = 18  # random octets, 24 characters


class ScramError(ValueError):
    """The peer's message is malformed, or asks for what is not there. The text says which."""


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server keeps instead of a password (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "ScramSecret()"


def derive(password: str, salt: bytes, iterations: int, digest: str = "sha256") -> ScramSecret:
    """Takes milliseconds for some thousand iterations. The password is prepared as by `saslprep`."""
    salted = hashlib.pbkdf2_hmac(
        digest, saslprep(password).encode("utf-8", "surrogatepass"), salt, iterations
    )
    client_key = hmac.digest(salted, b"Client Key", digest)
    return ScramSecret(
        salt, iterations, hashlib.new(digest, client_key).digest(), hmac.digest(salted, b"Server Key", digest)
    )


class ScramServer:
    """One exchange. `binding` is the connection's channel binding data (`tls-exporter`, RFC 9266), None when
    it has none; `plus` says that the client chose the mechanism that uses it."""

    def __init__(
        self, binding: bytes | None, *, plus: bool, digest: str = "sha256", nonce: str | None = None
    ) -> None:
        if plus and binding is None:
            raise ValueError("there is no channel to bind to")
        self._binding, self._plus, self._digest = binding, plus, digest
        self._nonce = nonce or _new_nonce()
        self._gs2 = ""
        self._client_first = ""
        self._server_first = ""
        self._secret: ScramSecret | None = None

    def read_first(self, message: bytes) -> str:
        """The user's name. Raises ScramError, also when somebody in between hid that we can bind."""
        text = _decoded(message)
        flag, _, rest = text.partition(",")
        authzid, comma, bare = rest.partition(",")
        if not comma or not (authzid == "" or authzid.startswith("a=")):
            raise ScramError("malformed GS2 header")
        if self._plus:
            if not flag.startswith("p="):
                raise ScramError("the mechanism needs channel binding")
            if flag != "p=tls-exporter":
                raise ScramError("the only channel binding is tls-exporter")
        elif flag == "y":
            if self._binding is not None:
                raise ScramError("channel binding was offered: somebody changed the list of mechanisms")
        elif flag != "n":
            raise ScramError("the mechanism has no channel binding")
        name, nonce = _attributes(bare, "n", "r")
        user = _unescaped(name)
        if authzid and _unescaped(authzid[2:]) != user:
            raise ScramError("nobody can act for another user")
        self._gs2 = f"{flag},{authzid},"
        self._client_first = bare
        self._nonce = nonce + self._nonce
        return user

    def first(self, secret: ScramSecret) -> bytes:
        """The challenge."""
        self._secret = secret
        salt = b64encode(secret.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={secret.iterations}"
        return self._server_first.encode()

    def read_final(self, message: bytes) -> bytes | None:
        """The last word, by which the client knows us; None when the proof is wrong. Raises ScramError."""
        secret = self._secret
        if secret is None:
            raise RuntimeError("no challenge was made")
        without_proof, comma, proof_text = _decoded(message).rpartition(",")
        if not comma or not proof_text.startswith("p="):
            raise ScramError("no proof")
        channel, nonce = _attributes(without_proof, "c", "r")
        proof = _base64(proof_text[2:])
        if len(proof) != len(secret.stored_key):
            raise ScramError("malformed proof")
        bound = self._gs2.encode() + (self._binding or b"" if self._plus else b"")
        auth_message = f"{self._client_first},{self._server_first},{without_proof}".encode()
        signature = hmac.digest(secret.stored_key, auth_message, self._digest)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        good = hmac.compare_digest(hashlib.new(self._digest, client_key).digest(), secret.stored_key)
        good &= hmac.compare_digest(nonce.encode(), self._nonce.encode())
        good &= hmac.compare_digest(_base64(channel), bound)
        if not good:
            return None
        return b"v=" + b64encode(hmac.digest(secret.server_key, auth_message, self._digest))


class ScramClient:
    """One exchange. With `binding` the mechanism is the one that ends in -PLUS; `binding_type` says what kind
    it is of (RFC 5929, RFC 9266). `can_bind`: there would be channel binding, but the server did not offer
    that mechanism."""

    def __init__(
        self,
        user: str,
        password: str,
        binding: bytes | None = None,
        *,
        binding_type: str = "tls-exporter",
        can_bind: bool = False,
        digest: str = "sha256",
        nonce: str | None = None,
    ) -> None:
        self._password, self._binding, self._digest = password, binding, digest
        self._gs2 = f"p={binding_type},," if binding is not None else "y,," if can_bind else "n,,"
        name = saslprep(user).replace("=", "=3D").replace(",", "=2C")
        self._nonce = nonce or _new_nonce()
        self._bare = f"n={name},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return (self._gs2 + self._bare).encode()

    def final(self, challenge: bytes) -> bytes:
        """The proof. Raises ScramError."""
        server_first = _decoded(challenge)
        nonce, salt, iterations = _attributes(server_first, "r", "s", "i")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server's nonce does not go with ours")
        if not (iterations.isascii() and iterations.isdigit()) or len(iterations) > 9:
            raise ScramError("malformed iteration count")
        if not 0 < int(iterations) <= MAX_ITERATIONS:
            raise ScramError(f"{iterations} iterations are none or too many")
        channel = b64encode(self._gs2.encode() + (self._binding or b"")).decode()
        without_proof = f"c={channel},r={nonce}"
        password = saslprep(self._password).encode()
        salted = hashlib.pbkdf2_hmac(self._digest, password, _base64(salt), int(iterations))
        client_key = hmac.digest(salted, b"Client Key", self._digest)
        auth_message = f"{self._bare},{server_first},{without_proof}".encode()
        stored_key = hashlib.new(self._digest, client_key).digest()
        signature = hmac.digest(stored_key, auth_message, self._digest)
        server_key = hmac.digest(salted, b"Server Key", self._digest)
        self._signature = hmac.digest(server_key, auth_message, self._digest)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def verify(self, last: bytes) -> None:
        """Raises ScramError unless the server knows the password's secret too."""
        text = _decoded(last)
        if not text.startswith("v="):
            raise ScramError("the server refused" if text.startswith("e=") else "no signature")
        given = _base64(text[2:].partition(",")[0])
        if not self._signature or not hmac.compare_digest(given, self._signature):
            raise ScramError("the server does not know the password")


def saslprep(text: str) -> str:
    """RFC 4013, unassigned code points let through (as in queries). What it forbids is left as it is: such a
    password then matches only itself."""
    if text.isascii():
        return text
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    forbidden = any(
        check(c)
        for c in prepared
        for check in (
            stringprep.in_table_c12,
            stringprep.in_table_c21_c22,
            stringprep.in_table_c3,
            stringprep.in_table_c4,
            stringprep.in_table_c5,
            stringprep.in_table_c6,
            stringprep.in_table_c7,
            stringprep.in_table_c8,
            stringprep.in_table_c9,
        )
    )
    return text if forbidden else prepared


def _new_nonce() -> str:
    return b64encode(secrets.token_bytes(_NONCE)).decode()


def _decoded(message: bytes) -> str:
    if len(message) > MAX_MESSAGE:
        raise ScramError(f"message is longer than {MAX_MESSAGE} octets")
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ScramError("message is not UTF-8") from None
    if "\0" in text:
        raise ScramError("message has a NUL")
    return text


def _attributes(text: str, *names: str) -> list[str]:
    """The values of the leading attributes, which must be these; further ones are extensions and ignored, but
    a mandatory one (`m=`) stands first and is refused like any other."""
    found = text.split(",")
    if len(found) < len(names):
        raise ScramError(f"attribute {names[len(found)]} is missing")
    values = []
    for name, attribute in zip(names, found, strict=False):
        if not attribute.startswith(f"{name}=") or len(attribute) == 2:
            raise ScramError(f"attribute {name} is missing")
        values.append(attribute[2:])
    return values


def _unescaped(name: str) -> str:
    if name.replace("=2C", "").replace("=3D", "").find("=") >= 0:
        raise ScramError("malformed user name")
    return name.replace("=2C", ",").replace("=3D", "=")


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True)
    except ValueError:
        raise ScramError("not base64") from None
