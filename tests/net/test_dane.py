"""DANE: every kind of TLSA record against chains that are theirs and chains that are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.dane import MAX_CHAIN, MAX_OCTETS, MAX_RECORDS, MAX_SIGNATURES, usable, verify
from gateway.net.dns import Tlsa
from tests.net.authority import Issued, Key, new_root, root
from tests.net.odd_certificates import UNREADABLE, of_version_4, slow_key, unreadable

HOST = "mx.example.org"
NAMES = [HOST, "example.org"]
NOW = datetime.now(UTC)


@cache
def middle() -> Issued:
    return root().issue(ca=True)


@cache
def server() -> Issued:
    return middle().issue(HOST)


@cache
def stranger() -> Issued:
    return new_root("Another Root").issue(HOST)


def tlsa(certificate: x509.Certificate, usage: int, selector: int, matching: int) -> Tlsa:
    if selector == 0:
        data = certificate.public_bytes(Encoding.DER)
    else:
        data = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digests: dict[int, Callable[[bytes], bytes]] = {
        0: lambda data: data,
        1: lambda data: hashlib.sha256(data).digest(),
        2: lambda data: hashlib.sha512(data).digest(),
    }
    return Tlsa(usage, selector, matching, digests[matching](data))


def kinds(usage: int) -> list[tuple[int, int, int]]:
    return [(usage, selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


def said(chain: list[x509.Certificate], *records: Tlsa, now: datetime = NOW) -> str | None:
    """The fault, as the type and the text."""
    assert usable(records) == records  # or it is no test of `verify`
    fault = verify(chain, records, NAMES, now)
    return None if fault is None else f"{fault.type}: {fault.text}"


NO_RECORD = "validation-failure: no TLSA record is for the server's certificate"
OTHER_HOST = "certificate-host-mismatch: the certificate is not for mx.example.org or example.org"
UNTRUSTED = "certificate-not-trusted: the certificate comes from an authority that is not trusted"
EXPIRED = "certificate-expired: the certificate has expired"

# --- The server's own certificate: DANE-EE (3) ------------------------------------------------------


@pytest.mark.parametrize("kind", kinds(3))
def test_the_certificate_itself(kind: tuple[int, int, int]) -> None:
    record = tlsa(server().certificate, *kind)
    assert said(server().chain, record) is None
    assert said([server().certificate], record) is None
    assert said(stranger().chain, record) == NO_RECORD
    other = tlsa(stranger().certificate, *kind)
    assert said(server().chain, other) == NO_RECORD
    if kind[2] == 1:
        assert said(server().chain, other, record) is None  # one is enough


@pytest.mark.parametrize("kind", kinds(3))
def test_names_times_and_purposes_do_not_matter_for_it(kind: tuple[int, int, int]) -> None:
    odd = root().issue("other.example", days=-30, usage=ExtendedKeyUsageOID.CODE_SIGNING)
    assert said([odd.certificate], tlsa(odd.certificate, *kind)) is None


@pytest.mark.parametrize("kind", kinds(3))
def test_only_the_first_certificate_is_the_servers(kind: tuple[int, int, int]) -> None:
    assert said(server().chain, tlsa(middle().certificate, *kind)) == NO_RECORD


def test_a_new_certificate_for_the_same_key() -> None:
    renewed = root().issue(HOST, key=server().key)
    assert said(renewed.chain, tlsa(server().certificate, 3, 1, 1)) is None
    assert said(renewed.chain, tlsa(server().certificate, 3, 0, 1)) == NO_RECORD


# --- An authority: DANE-TA (2) ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", kinds(2))
@pytest.mark.parametrize("authority", [middle, root])
def test_an_authority_that_is_sent(kind: tuple[int, int, int], authority: Callable[[], Issued]) -> None:
    record = tlsa(authority().certificate, *kind)
    assert said(server().chain, record) is None
    assert said(stranger().chain, record) == (UNTRUSTED if kind == (2, 0, 0) else NO_RECORD)


@pytest.mark.parametrize("kind", kinds(2))
def test_an_authority_that_is_not_sent(kind: tuple[int, int, int]) -> None:
    """It has to be in DNS as a whole, as a certificate or as a key."""
    chain = [server().certificate, middle().certificate]
    expected = None if kind[2] == 0 else NO_RECORD
    assert said(chain, tlsa(root().certificate, *kind)) == expected
    assert said([server().certificate], tlsa(middle().certificate, *kind)) == expected
    assert said([server().certificate], tlsa(root().certificate, *kind)) is not None  # one is missing


@pytest.mark.parametrize("kind", kinds(2))
def test_the_servers_own_certificate_is_no_authority(kind: tuple[int, int, int]) -> None:
    assert said(server().chain, tlsa(server().certificate, *kind)) is not None
    assert said([server().certificate, *server().chain], tlsa(server().certificate, *kind)) is not None


@pytest.mark.parametrize("kind", kinds(2))
def test_the_authority_must_vouch_for_it(kind: tuple[int, int, int]) -> None:
    """Anybody can send the certificate of an authority along."""
    chain = [stranger().certificate, root().certificate]
    fault = said(chain, tlsa(root().certificate, *kind))
    assert fault is not None
    assert "not known" in fault


@pytest.mark.parametrize("kind", kinds(2))
@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: middle().issue("other.example"), OTHER_HOST),
        (lambda: middle().issue(), OTHER_HOST),
        (lambda: middle().issue(HOST, days=-1), EXPIRED),
        (lambda: root().issue(ca=True, days=-1).issue(HOST), EXPIRED),
        (
            lambda: middle().issue(HOST, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            "validation-failure: the certificate is not for servers",
        ),
        (lambda: root().issue("not.an.authority").issue(HOST), "validation-failure: the certificate could"),
        (lambda: root().issue(ca=True, path_length=0).issue(ca=True).issue(HOST), "validation-failure: "),
        (lambda: middle().issue("example.org"), None),
        (lambda: middle().issue("*.example.org"), None),
        (lambda: middle().issue(HOST, usage=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), None),
    ],
)
def test_it_must_be_valid_and_for_the_host(
    kind: tuple[int, int, int], make: Callable[[], Issued], fault: str | None
) -> None:
    found = said(make().chain, tlsa(root().certificate, *kind))
    assert found == fault if fault is None else str(found).startswith(fault)


@pytest.mark.parametrize("kind", kinds(2))
def test_the_times_of_the_authority_itself_do_not_matter(kind: tuple[int, int, int]) -> None:
    old = root().issue(ca=True, days=-1)
    assert said(old.issue(HOST).chain, tlsa(old.certificate, *kind)) is None


def test_time_is_the_one_that_is_given() -> None:
    record = tlsa(root().certificate, 2, 0, 1)
    assert said(server().chain, record, now=datetime(2100, 1, 1, tzinfo=UTC)) == EXPIRED
    fault = said(server().chain, record, now=datetime(2000, 1, 1, tzinfo=UTC))
    assert fault == "validation-failure: the certificate is not valid yet"


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_keys_of_authorities(make: Callable[[], Key]) -> None:
    authority = new_root("With a Key", key=make())
    leaf = authority.issue(HOST)
    bare = tlsa(authority.certificate, 2, 1, 0)
    assert said([leaf.certificate], bare) is None
    assert said(leaf.chain, tlsa(authority.certificate, 2, 1, 1)) is None
    assert said(leaf.chain, tlsa(authority.certificate, 2, 0, 2)) is None
    assert said([server().certificate], bare) == NO_RECORD
    assert said([authority.issue("other.example").certificate], bare) == OTHER_HOST
    assert said([authority.issue(HOST, days=-1).certificate], bare) == EXPIRED


def test_an_authority_or_the_certificate() -> None:
    wrong, right = tlsa(stranger().certificate, 3, 1, 1), tlsa(root().certificate, 2, 0, 1)
    assert said(server().chain, wrong, right) is None
    both = tlsa(stranger().above[0], 2, 0, 1), right
    assert said(server().chain, *both) is None
    assert said(server().chain, *reversed(both)) is None


def test_nothing_sent() -> None:
    assert (
        said([], tlsa(server().certificate, 3, 1, 1)) == "validation-failure: the server sent no certificate"
    )


# --- Certificates that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_certificate_that_cannot_be_read(kind: str) -> None:
    """Not all of it has to be, with DANE-EE (3)."""
    odd = unreadable(kind, root(), HOST)
    assert said(odd.chain, tlsa(odd.certificate, 3, 1, 1)) is None
    assert said(odd.chain, tlsa(root().certificate, 2, 0, 1)) is not None
    assert said(odd.chain, tlsa(root().certificate, 2, 1, 0)) is not None


# --- What takes too long ----------------------------------------------------------------------------

TOO_MUCH = (
    "validation-failure: the server's certificates are too large, or too many for the TLSA records, to "
    "verify them all"
)


def long_chain(certificates: int) -> list[x509.Certificate]:
    issued = root()
    for _ in range(certificates - 2):
        issued = issued.issue(ca=True)
    return issued.issue(HOST).chain


def test_a_long_chain() -> None:
    record = tlsa(root().certificate, 2, 0, 1)
    assert said(long_chain(MAX_CHAIN), record) is None
    longer = long_chain(MAX_CHAIN + 1)
    assert (
        said(longer, record)
        == "validation-failure: the server sent 11 certificates, and no more than 10 are verified"
    )
    assert said(longer, tlsa(longer[0], 3, 1, 1)) is None  # nothing is verified then
    assert said(longer, tlsa(stranger().certificate, 3, 1, 1)) == NO_RECORD


def test_many_bare_keys() -> None:
    keys = [tlsa(new_root().certificate, 2, 1, 0) for _ in range(MAX_RECORDS - 1)]
    known = tlsa(root().certificate, 2, 1, 0)
    enough = MAX_SIGNATURES // 2 - 1  # after them the known one is tried, and the path from it verified
    chain = [server().certificate, middle().certificate]
    assert said(chain, *keys[: enough - 1], known) is None
    assert said(chain, *keys, known) == TOO_MUCH
    assert said(chain, *keys[:enough]) == NO_RECORD


def test_many_authorities() -> None:
    """Of one name, so that each is tried for what it has signed."""
    others = [tlsa(new_root().certificate, 2, 0, 0) for _ in range(MAX_RECORDS - 1)]
    known = tlsa(root().certificate, 2, 0, 0)
    chain = [server().certificate, middle().certificate]
    assert said(chain, *others[:5], known) is None
    assert said(chain, *others, known) == TOO_MUCH


def test_large_certificates() -> None:
    """Each name is held against each constraint of those above it."""
    large = root().issue(HOST, *(f"host-{number}.example.org" for number in range(1000)))
    assert len(large.certificate.public_bytes(Encoding.DER)) > MAX_OCTETS
    assert said(large.chain, tlsa(root().certificate, 2, 0, 1)) == TOO_MUCH
    assert said(large.chain, tlsa(large.certificate, 3, 0, 1)) is None


def test_a_key_that_is_slow_by_design() -> None:
    slow = new_root(key=slow_key())
    chain = slow.issue(HOST).chain
    too_large = "validation-failure: an authority of the server's certificate has too large a key"
    assert said(chain, tlsa(slow.certificate, 2, 0, 1)) == too_large
    assert said(chain[:1], tlsa(slow.certificate, 2, 0, 0)) == too_large
    assert said(chain[:1], tlsa(slow.certificate, 2, 1, 0)) == NO_RECORD


# --- What can be used -------------------------------------------------------------------------------

DIGEST, LONG = b"x" * 32, b"x" * 64


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (Tlsa(3, 1, 1, DIGEST), True),
        (Tlsa(2, 0, 2, LONG), True),
        (Tlsa(0, 0, 1, DIGEST), False),
        (Tlsa(1, 1, 1, DIGEST), False),
        (Tlsa(4, 1, 1, DIGEST), False),
        (Tlsa(255, 1, 1, DIGEST), False),
        (Tlsa(3, 2, 1, DIGEST), False),
        (Tlsa(3, 255, 1, DIGEST), False),
        (Tlsa(3, 1, 3, DIGEST), False),
        (Tlsa(3, 1, 255, DIGEST), False),
        (Tlsa(3, 1, 1, LONG), False),
        (Tlsa(3, 1, 1, b""), False),
        (Tlsa(3, 1, 2, DIGEST), False),
        (Tlsa(3, 0, 0, b"no certificate"), False),
        (Tlsa(3, 1, 0, b"no key"), False),
        (Tlsa(3, 0, 0, of_version_4(root())), False),
        (Tlsa(2, 0, 0, b""), False),
    ],
)
def test_usable(record: Tlsa, good: bool) -> None:
    assert usable([record]) == ((record,) if good else ())


def test_a_certificate_is_no_key() -> None:
    data = server().certificate.public_bytes(Encoding.DER)
    assert usable([Tlsa(3, 0, 0, data)]) == (Tlsa(3, 0, 0, data),)
    assert usable([Tlsa(3, 1, 0, data)]) == ()


def test_the_strongest_digest_counts() -> None:
    weak, strong = Tlsa(3, 1, 1, DIGEST), Tlsa(3, 1, 2, LONG)
    whole = tlsa(server().certificate, 3, 1, 0)
    others = Tlsa(3, 0, 1, DIGEST), Tlsa(2, 1, 1, DIGEST)
    assert usable([weak, strong, whole, *others]) == (strong, whole, *others)
    assert usable([weak, whole, weak]) == (weak, whole)
    broken = Tlsa(3, 1, 2, b"too short")  # does not stand in the way of another
    assert usable([weak, broken]) == (weak,)


def test_many_records() -> None:
    records = [Tlsa(3, 1, 1, number.to_bytes(32)) for number in range(1000)]
    assert usable(records) == tuple(records[:MAX_RECORDS])


@given(
    st.lists(
        st.builds(
            Tlsa,
            st.integers(0, 4),
            st.integers(0, 2),
            st.integers(0, 3),
            st.binary(max_size=70) | st.just(DIGEST) | st.just(LONG),
        ),
        max_size=8,
    )
)
def test_no_record_by_chance_is_for_a_chain(records: list[Tlsa]) -> None:
    assert verify(server().chain, usable(records), NAMES, NOW) is not None
