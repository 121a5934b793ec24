"""SCRAM: the examples of the RFCs, each side against the other, and what is refused."""

from base64 import b64decode

import pytest

from gateway.smtp.scram import ScramClient, ScramError, ScramServer, derive, saslprep

BINDING = b"b" * 32

# RFC 7677 section 3 (SHA-256), RFC 5802 section 5 (SHA-1)
EXAMPLES = [
    (
        "sha256",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    (
        "sha1",
        "QSXCR+Q6sek8bf92",
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
]


@pytest.mark.parametrize(("digest", "salt", "client_nonce", "server_nonce", "proof", "signature"), EXAMPLES)
def test_example(
    digest: str, salt: str, client_nonce: str, server_nonce: str, proof: str, signature: str
) -> None:
    server = ScramServer(None, plus=False, digest=digest, nonce=server_nonce)
    client = ScramClient("user", "pencil", digest=digest, nonce=client_nonce)
    first = client.first()
    assert first == f"n,,n=user,r={client_nonce}".encode()
    assert server.read_first(first) == "user"
    challenge = server.first(derive("pencil", b64decode(salt), 4096, digest))
    assert challenge == f"r={client_nonce}{server_nonce},s={salt},i=4096".encode()
    final = client.final(challenge)
    assert final == f"c=biws,r={client_nonce}{server_nonce},p={proof}".encode()
    last = server.read_final(final)
    assert last == f"v={signature}".encode()
    client.verify(last)


SECRET = derive("pencil", b"salt", 2)


def exchange(client: ScramClient, server: ScramServer) -> bytes | None:
    server.read_first(client.first())
    return server.read_final(client.final(server.first(SECRET)))


@pytest.mark.parametrize("user", ["user", "a,b=c", "=2C", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_names_survive(user: str) -> None:
    assert ScramServer(None, plus=False).read_first(ScramClient(user, "x").first()) == user


def test_wrong_password() -> None:
    assert exchange(ScramClient("user", "pen"), ScramServer(None, plus=False)) is None


def test_channel_binding() -> None:
    assert exchange(ScramClient("user", "pencil", BINDING), ScramServer(BINDING, plus=True))


def test_another_channel() -> None:
    assert exchange(ScramClient("user", "pencil", b"x" * 32), ScramServer(BINDING, plus=True)) is None


def test_downgrade_is_seen() -> None:
    client = ScramClient("user", "pencil", can_bind=True)
    with pytest.raises(ScramError, match="changed the list"):
        ScramServer(BINDING, plus=False).read_first(client.first())
    assert exchange(client, ScramServer(None, plus=False))


def test_flag_is_bound_to_the_proof() -> None:
    server = ScramServer(None, plus=False)
    client = ScramClient("user", "pencil", can_bind=True)
    server.read_first(b"n" + client.first()[1:])  # somebody in between changed it
    assert server.read_final(client.final(server.first(SECRET))) is None


def test_proof_is_of_no_use_again() -> None:
    client = ScramClient("user", "pencil")
    server = ScramServer(None, plus=False)
    server.read_first(client.first())
    final = client.final(server.first(SECRET))
    other = ScramServer(None, plus=False)
    other.read_first(client.first())
    other.first(SECRET)
    assert other.read_final(final) is None


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b",",
        b"n",
        b"n,,",
        b"n,,n=user",
        b"n,,n=user,r=",
        b"n,,n=,r=x",
        b"n,,r=x,n=user",
        b"n,,m=x,n=user,r=x",
        b"n,x,n=user,r=x",
        b"n,a=other,n=user,r=x",
        b"n,,n=us=er,r=x",
        b"n,,n=\xff,r=x",
        b"n,,n=a\0b,r=x",
        b"p=tls-unique,,n=user,r=x",
        b"q,,n=user,r=x",
        b"n,,n=user,r=" + b"x" * 5000,
    ],
)
def test_malformed_first(plus: bool, message: bytes) -> None:
    with pytest.raises(ScramError):
        ScramServer(BINDING if plus else None, plus=plus).read_first(message)


def test_plus_and_its_flag_go_together() -> None:
    with pytest.raises(ScramError, match="needs channel binding"):
        ScramServer(BINDING, plus=True).read_first(b"n,,n=user,r=x")
    with pytest.raises(ScramError, match="no channel binding"):
        ScramServer(BINDING, plus=False).read_first(b"p=tls-exporter,,n=user,r=x")
    with pytest.raises(ValueError, match="no channel"):
        ScramServer(None, plus=True)


@pytest.mark.parametrize(
    "message",
    [b"", b"c=biws", b"c=biws,r=x", b"c=biws,r=xy,p=?", b"c=biws,r=xy,p=AAAA", b"p=AAAA", b"c=,r=xy,p=AAAA"],
)
def test_malformed_final(message: bytes) -> None:
    server = ScramServer(None, plus=False, nonce="y")
    server.read_first(b"n,,n=user,r=x")
    server.first(SECRET)
    with pytest.raises(ScramError):
        server.read_final(message)


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"r=x,s=AAAA,i=1",  # not longer than ours
        b"r=other,s=AAAA,i=1",
        b"r=xy,s=?,i=1",
        b"r=xy,s=AAAA,i=0",
        b"r=xy,s=AAAA,i=-1",
        b"r=xy,s=AAAA,i=999999999",
        b"e=other-error",
    ],
)
def test_client_refuses_the_challenge(challenge: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient("user", "pencil", nonce="x").final(challenge)


@pytest.mark.parametrize("last", [b"", b"e=invalid-proof", b"v=AAAA", b"v=?"])
def test_client_refuses_a_server_that_does_not_know(last: bytes) -> None:
    client, server = ScramClient("user", "pencil"), ScramServer(None, plus=False)
    server.read_first(client.first())
    client.final(server.first(SECRET))
    with pytest.raises(ScramError):
        client.verify(last)
    with pytest.raises(ScramError):
        ScramClient("user", "pencil").verify(b"v=")


def test_nothing_secret_is_shown() -> None:
    assert repr(SECRET) == "ScramSecret()"


@pytest.mark.parametrize(
    ("text", "prepared"),  # RFC 4013 section 3
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0007\u00e4", "\u0007\u00e4"),  # forbidden: as it is
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared
