"""SCRAM with GNU SASL, each side of ours with the other of its, with and without channel binding (RFC 9266).

Its library comes with msmtp (`make system`).
"""

from __future__ import annotations

import ctypes
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library

import pytest

from gateway.smtp.scram import ScramClient, ScramServer, derive

BINDING = b"b" * 32  # what tls-exporter gives
USER, PASSWORD = "us,er=", "pencil \N{ROMAN NUMERAL NINE}"
AUTHID, PASSWORD_PROPERTY, TLS_EXPORTER = 1, 3, 25  # of Gsasl_property
OK, NEEDS_MORE = 0, 1

each_mechanism = pytest.mark.parametrize(
    ("digest", "mechanism"),
    [
        ("sha256", "SCRAM-SHA-256"),
        ("sha256", "SCRAM-SHA-256-PLUS"),
        ("sha1", "SCRAM-SHA-1"),
        ("sha1", "SCRAM-SHA-1-PLUS"),
    ],
)
each_fault = pytest.mark.parametrize("fault", ["", "password", "channel"])


class Gsasl:
    """One side of an exchange."""

    def __init__(self, library: ctypes.CDLL, session: ctypes.c_void_p) -> None:
        self._library, self._session = library, session

    def set(self, number: int, value: str) -> None:
        self._library.gsasl_property_set(self._session, number, value.encode())

    def step(self, said: bytes) -> tuple[int, bytes]:
        """What the library answers, and what it would send."""
        answer = ctypes.c_char_p()
        code = self._library.gsasl_step64(self._session, b64encode(said), ctypes.byref(answer))
        return code, b64decode(answer.value or b"")


@contextmanager
def gsasl(side: str, mechanism: str, password: str, binding: bytes) -> Iterator[Gsasl]:
    name = find_library("gsasl")
    assert name is not None, "libgsasl is not installed, and these tests are about it; run: make system"
    library = ctypes.CDLL(name)
    context, session = ctypes.c_void_p(), ctypes.c_void_p()
    assert library.gsasl_init(ctypes.byref(context)) == OK
    try:
        start = getattr(library, f"gsasl_{side}_start")
        assert start(context, mechanism.encode(), ctypes.byref(session)) == OK
        try:
            one = Gsasl(library, session)
            one.set(PASSWORD_PROPERTY, password)
            if side == "client":
                one.set(AUTHID, USER)
            if mechanism.endswith("-PLUS"):
                one.set(TLS_EXPORTER, b64encode(binding).decode())
            yield one
        finally:
            library.gsasl_finish(session)
    finally:
        library.gsasl_done(context)


def faulty(mechanism: str, fault: str) -> tuple[str, bytes, bool]:
    """The client's password and channel, and whether the login is to fail."""
    if fault == "password":
        return "pen", BINDING, True
    return PASSWORD, b"x" * 32 if fault == "channel" else BINDING, fault == "channel" and "PLUS" in mechanism


@each_mechanism
@each_fault
def test_our_client(digest: str, mechanism: str, fault: str) -> None:
    password, binding, fails = faulty(mechanism, fault)
    client = ScramClient(USER, password, binding if "PLUS" in mechanism else None, digest=digest)
    with gsasl("server", mechanism, PASSWORD, BINDING) as server:
        code, challenge = server.step(client.first())
        assert code == NEEDS_MORE
        code, last = server.step(client.final(challenge))
        assert (code == OK) is not fails
        if not fails:
            client.verify(last)


@each_mechanism
@each_fault
def test_our_server(digest: str, mechanism: str, fault: str) -> None:
    password, binding, fails = faulty(mechanism, fault)
    plus = "PLUS" in mechanism
    server = ScramServer(BINDING if plus else None, plus=plus, digest=digest)
    with gsasl("client", mechanism, password, binding) as client:
        code, first = client.step(b"")
        assert (code, server.read_first(first)) == (NEEDS_MORE, USER)
        code, final = client.step(server.first(derive(PASSWORD, b"salt of 16 bytes", 4096, digest)))
        assert code == NEEDS_MORE
        last = server.read_final(final)
        assert (last is None) is fails
        if last is not None:
            assert client.step(last)[0] == OK
