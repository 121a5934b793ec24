"""Certificates for tests: made once, since a key takes time."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import SSL

from gateway.net.certificates import Certificate, load_certificate, self_signed
from gateway.net.tls_contexts import ClientContext, client_context, server_context


@cache
def pem() -> tuple[bytes, bytes]:
    """A certificate for localhost and its key."""
    return self_signed(datetime.now(UTC), ["mx.example.org"])


@cache
def certificate() -> Certificate:
    with TemporaryDirectory() as directory:
        paths = Path(directory, "certificate.pem"), Path(directory, "key.pem")
        for path, data in zip(paths, pem(), strict=True):
            path.write_bytes(data)
        return load_certificate(*paths)


@cache
def server_tls() -> SSL.Context:
    return server_context(certificate())


@cache
def client_tls() -> ClientContext:
    """Verifies nothing."""
    return client_context(verified=False)


@cache
def verifying_tls() -> ClientContext:
    """Knows the certificate above and no other."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "ca.pem")
        path.write_bytes(pem()[0])
        return client_context(verified=True, ca_file=str(path))
