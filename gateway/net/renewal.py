"""The certificate of the listeners, which is read again when its files change: a renewal needs no restart."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import trio
from OpenSSL import SSL

from gateway.errors import ConfigError
from gateway.net.certificates import load_certificate
from gateway.net.tls_contexts import server_context

LOOK_AFTER = 10.0  # seconds: a handshake costs more than looking, but not if everybody looks

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class RenewedCertificate:
    """Two PEM files and what was read from them last. Raises ConfigError if they are of no use at the start.

    Later it says so in the log, once, and goes on with what it has: who renews a certificate writes one file
    after the other.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._stamp = self._refused = _stamp(self._files)
        self._looked = float("-inf")
        self._context = self._load()

    def context(self) -> SSL.Context:
        """For a connection that begins."""
        now = trio.current_time()
        if now - self._looked >= LOOK_AFTER:
            self._looked = now
            self._look()
        return self._context

    def _look(self) -> None:
        stamp = _stamp(self._files)
        if stamp == self._stamp:
            return
        try:
            self._context = self._load()
            log.info("tls.certificate: %s: it was renewed, and is in use", self._files[0])
        except ConfigError as exc:
            if stamp != self._refused:
                log.error("%s; the certificate that was read before stays in use", exc)
            self._refused = stamp
        else:
            self._stamp = stamp

    def _load(self) -> SSL.Context:
        certificate = load_certificate(*self._files)
        if certificate.expires < datetime.now(UTC):
            log.warning("tls.certificate: %s: expired on %s", self._files[0], certificate.expires)
        return server_context(certificate)


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """What changes when a file is written or replaced; links are followed."""
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0, 0))  # loading it says what is wrong
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)
