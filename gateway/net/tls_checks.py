"""How a connection stands against the checks of a host: what refuses it, and what is to be reported."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from gateway.net import dane
from gateway.net.plan import Check, TlsNeed
from gateway.net.tls import TlsStream
from gateway.net.tls_results import UNREADABLE_CERTIFICATE, TlsFault

logger = logging.getLogger(__name__)

NO_STARTTLS = TlsFault("starttls-not-supported", "the server does not offer STARTTLS")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to; without a fault it passed."""

    check: Check
    fault: TlsFault | None = None

    @property
    def refuses(self) -> bool:
        """Whether nothing may be delivered on this connection."""
        return self.check.enforced and self.fault is not None


def with_tls(need: TlsNeed, stream: TlsStream, now: datetime) -> tuple[Verdict, ...]:
    """After the handshake, which is to be made with an `observing_context` and `need.server_name`."""
    return tuple(Verdict(check, check.fault or _fault(check, stream, now)) for check in need.checks)


def without_tls(need: TlsNeed, fault: TlsFault = NO_STARTTLS) -> tuple[Verdict, ...]:
    """For a server that does not offer STARTTLS, or with which the handshake failed."""
    return tuple(Verdict(check, check.fault or fault) for check in need.checks)


def _fault(check: Check, stream: TlsStream, now: datetime) -> TlsFault | None:
    try:
        if check.type == "tlsa":
            return dane.verify(stream.peer_chain, check.tlsa, check.names, now)
        if check.type == "sts":
            return stream.certificate_fault(check.names[0])
    except Exception:
        # Whoever runs the server chose the certificate's every octet: what two libraries raise of it proves
        # nothing but that it is of no use, and must not keep the message from the next host.
        logger.debug("a certificate cannot be read", exc_info=True)
        return UNREADABLE_CERTIFICATE
    return None
