"""The transport to one host, a smarthost or a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from gateway import Delivery, Outcome
from gateway.net.smtp_client import SmtpConnection, TlsPolicy, connect_smtp
from gateway.smtp import results
from gateway_smtp.connections import Connections, Kept
from gateway_smtp.handover import error_text, hand_over, in_time
from gateway_smtp.settings import NextHopSettings

NOT_VERIFIED = Outcome.permanent(
    "the message requires verified TLS, which this transport does not have", code=554, enhanced="5.7.30"
)


class NextHopTransport:
    """Delivers to one next hop, on connections that are kept for a while."""

    def __init__(self, name: str, settings: NextHopSettings) -> None:
        self._name, self._settings = name, settings
        self._connections = Connections(settings.keep)

    async def serve(self) -> None:
        await self._connections.serve()

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        if delivery.messages[0].require_tls and not self._settings.verified:
            return [NOT_VERIFIED] * len(delivery.messages)
        hop = _OneHost(self._name, self._settings, self._connections, delivery.hostname)

        async def deliver(found: dict[int, Outcome]) -> None:
            await hand_over(hop, delivery, range(len(delivery.messages)), found)

        return await in_time(self._name, delivery, deliver)


@dataclass(frozen=True, slots=True)
class _OneHost:
    """The host, as a NextHop."""

    transport: str
    settings: NextHopSettings
    connections: Connections
    hostname: str  # ours

    @property
    def host(self) -> str:
        return self.settings.host

    async def connection(self, *, new: bool = False) -> Kept:
        kept = None if new else self.connections.take(self.hostname)
        if kept is None:
            now = trio.current_time()
            connection = await self._open()
            kept = Kept(connection, self.hostname, now, tls_used=connection.tls_used)
        return kept

    def give_back(self, kept: Kept) -> None:
        self.connections.give_back(kept)

    def error(self, answer: results.Result) -> str:
        if answer.reply is None and (repair := self._to_repair(answer)):
            return f"transport {self.transport!r}: {answer.text}; {repair} of [transports.{self.transport}]"
        return error_text(answer)

    def _to_repair(self, answer: results.Result) -> str:
        if answer.stage == "auth":
            return "repair auth"
        if answer.stage in ("connect", "starttls") and answer.text.startswith(
            ("no TLS: ", "the certificate ")
        ):
            return "see host, port, tls, ca_file and tls_verify"
        return ""

    async def _open(self) -> SmtpConnection:
        settings = self.settings.client_settings(self.hostname)
        connection = await connect_smtp(self.settings.host, self.settings.port, settings)
        if (
            settings.tls is TlsPolicy.OPPORTUNISTIC
            and connection.failure is not None
            and connection.failure.stage == "starttls"
            and connection.failure.reply is None
        ):
            # Whoever takes part in the handshake could as well have hidden STARTTLS: nothing is lost.
            without = replace(settings, tls=TlsPolicy.NONE)
            return await connect_smtp(self.settings.host, self.settings.port, without)
        return connection
