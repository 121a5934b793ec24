"""The transports `smtp`, `submission` and `submissions`: every message to one host."""

from __future__ import annotations

from gateway import Network, Transport, TransportType, hookimpl
from gateway_smtp.settings import (
    NextHopSettings,
    SmtpTransportSettings,
    SubmissionsTransportSettings,
    SubmissionTransportSettings,
)
from gateway_smtp.transport import NextHopTransport


class Smtp:
    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        return {
            "smtp": TransportType(SmtpTransportSettings, _make),
            "submission": TransportType(SubmissionTransportSettings, _make),
            "submissions": TransportType(SubmissionsTransportSettings, _make),
        }


def _make(name: str, settings: NextHopSettings, network: Network) -> Transport:
    return NextHopTransport(name, settings, network)
