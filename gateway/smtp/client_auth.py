"""The client's side of AUTH (RFC 4954), without I/O: which mechanism, and what is said in it.

Three rules hold throughout:

1. The best mechanism that both sides know comes first. Once a server has seen what proves the password, its
   refusal is final; before that it says no more than that this mechanism is not for us, and the next one is
   taken.
2. A SCRAM server must prove that it knows the password too: its yes without that is a failure.
3. Nothing that holds the password, or a response, is shown: what a server says back of it is replaced.
"""

import binascii
import hmac
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gateway.smtp.replies import Reply
from gateway.smtp.scram import ScramClient, ScramError, saslprep

# The best first. PLAIN comes last, and only by request: it hands the password to whoever answers.
MECHANISMS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "CRAM-MD5")
PLAIN = "PLAIN"

_MAX_LINE = 510  # octets of AUTH with its initial response, without CRLF (RFC 4954 section 4)
_HIDDEN = "(hidden)"
_SHORTEST_HIDDEN = 4  # characters: what is shorter would be found in any text


@dataclass(frozen=True, slots=True)
class Credentials:
    """What we log in with. `plain`: PLAIN may be used; `without_tls`: over a connection without TLS too.

    Raises ValueError for what no mechanism can send.
    """

    username: str
    password: str
    plain: bool = False
    without_tls: bool = False

    def __post_init__(self) -> None:
        for name, value in (("user name", self.username), ("password", self.password)):
            if not value or "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
                raise ValueError(f"the {name} is empty, or has a NUL")

    def __repr__(self) -> str:
        return "Credentials()"


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """What ties a login to its TLS connection (RFC 9266, RFC 5929)."""

    kind: Literal["tls-exporter", "tls-server-end-point"]
    data: bytes


class Login:
    """The login on one connection: mechanism after mechanism, as far as it goes."""

    def __init__(
        self, credentials: Credentials, offered: Iterable[str], binding: ChannelBinding | None
    ) -> None:
        self._credentials = credentials
        self._offered = tuple(offered)
        self._binding = binding
        usable = (*MECHANISMS, *([PLAIN] if credentials.plain else []))
        self._left = [
            name
            for name in usable
            if name in self._offered and (binding is not None or not name.endswith("-PLUS"))
        ]
        self._secrets = {credentials.password, _encoded(credentials.password.encode())}
        self._mechanism: _Mechanism | None = None
        self.name = ""  # of the mechanism in use
        self.fault = ""  # what is wrong with the server's last challenge

    @property
    def proven(self) -> bool:
        """The server has seen what proves the password."""
        return self._mechanism is not None and self._mechanism.proven

    def next_command(self) -> str | None:
        """AUTH with the next mechanism, None when there is none left."""
        if not self._left:
            return None
        self.name, self.fault = self._left.pop(0), ""
        self._mechanism = _mechanism(self.name, self._credentials, self._offered, self._binding)
        command = f"AUTH {self.name}"
        first = self._mechanism.initial
        if first is None:
            return command
        line = f"{command} {self._secret(first)}"
        if len(line) > _MAX_LINE:
            return command
        self._mechanism.initial_sent()
        return line

    def answer(self, challenge: str) -> bytes | None:
        """The line that answers a challenge; `*` ends what the server does wrong. Raises nothing."""
        assert self._mechanism is not None
        try:
            response = self._mechanism.answer(binascii.a2b_base64(challenge.encode(), strict_mode=True))
        except ScramError as error:
            self.fault = str(error)
        except ValueError:
            self.fault = "challenge is not base64"
        else:
            return self._secret(response).encode()
        return None

    def accepted(self) -> bool:
        """Whether the server's yes counts; else `fault` says why not."""
        if not self.fault and self._mechanism is not None and not self._mechanism.verified:
            self.fault = "the server did not show that it knows the password"
        return not self.fault

    def nothing_to_use(self) -> str:
        """In words, for a server that has no mechanism for us."""
        offered = ", ".join(name[:20] for name in self._offered[:20]) or "no mechanism"
        if PLAIN in self._offered and not self._credentials.plain:
            return f"the server offers {offered}, and PLAIN is not allowed"
        return f"the server offers {offered}, and none of them can be used"

    def without_secrets(self, reply: Reply) -> Reply:
        """What a server says, without what we said."""
        lines = reply.lines
        for secret in self._secrets:
            if len(secret) >= _SHORTEST_HIDDEN:
                lines = tuple(line.replace(secret, _HIDDEN) for line in lines)
        return replace(reply, lines=lines)

    def _secret(self, response: bytes) -> str:
        text = _encoded(response)
        if text:
            self._secrets.add(text)
        return text


class _Mechanism(ABC):
    """`initial` goes with AUTH itself, None where the server speaks first. `proven` and `verified`: each side
    has shown the other that it knows the password."""

    def __init__(self, initial: bytes | None) -> None:
        self.initial = initial
        self.proven = False
        self.verified = True

    def initial_sent(self) -> None:
        """The server has `initial`."""
        self.initial = None

    def answer(self, challenge: bytes) -> bytes:
        """Raises ScramError."""
        if self.initial is not None:  # it was too long for the line of AUTH
            initial = self.initial
            self.initial_sent()
            return initial
        return self._answer(challenge)

    @abstractmethod
    def _answer(self, challenge: bytes) -> bytes:
        """Raises ScramError."""


class _Scram(_Mechanism):
    def __init__(self, exchange: ScramClient) -> None:
        super().__init__(exchange.first())
        self._exchange = exchange
        self.verified = False

    def _answer(self, challenge: bytes) -> bytes:
        if not self.proven:
            response = self._exchange.final(challenge)
            self.proven = True
            return response
        if self.verified:
            raise ScramError("one challenge too many")
        self._exchange.verify(challenge)
        self.verified = True
        return b""


class _CramMd5(_Mechanism):
    """RFC 2195."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(None)
        self._credentials = credentials

    def _answer(self, challenge: bytes) -> bytes:
        if self.proven:
            raise ScramError("one challenge too many")
        self.proven = True
        password = saslprep(self._credentials.password).encode()
        digest = hmac.digest(password, challenge, "md5").hex()
        return f"{saslprep(self._credentials.username)} {digest}".encode()


class _Plain(_Mechanism):
    """RFC 4616."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(f"\0{credentials.username}\0{credentials.password}".encode())

    def initial_sent(self) -> None:
        super().initial_sent()
        self.proven = True

    def _answer(self, challenge: bytes) -> bytes:
        raise ScramError("one challenge too many")


def _mechanism(
    name: str, credentials: Credentials, offered: tuple[str, ...], binding: ChannelBinding | None
) -> _Mechanism:
    if name == PLAIN:
        return _Plain(credentials)
    if name == "CRAM-MD5":
        return _CramMd5(credentials)
    digest = "sha256" if name.startswith("SCRAM-SHA-256") else "sha1"
    user, password = credentials.username, credentials.password
    if name.endswith("-PLUS") and binding is not None:
        scram = ScramClient(user, password, binding.data, binding_type=binding.kind, digest=digest)
    else:
        # Only if the server offers no binding at all may we say that we could (RFC 5802 section 6).
        can_bind = binding is not None and not any(one.endswith("-PLUS") for one in offered)
        scram = ScramClient(user, password, can_bind=can_bind, digest=digest)
    return _Scram(scram)


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
