"""The transport to one host, a smarthost or a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from gateway import Delivery, Network, NextHop, Outcome
from gateway.net.shaping import Place, Shaper, Share
from gateway.net.smtp_client import TLS_AT_ONCE, SmtpConnection, connect_smtp
from gateway.net.smtp_client_settings import TlsPolicy
from gateway.smtp import results
from gateway.smtp.transaction import NO_REQUIRETLS
from gateway_smtp.connections import Connections, Kept
from gateway_smtp.handover import error_text, hand_over, in_time
from gateway_smtp.settings import NextHopSettings

NOT_VERIFIED = Outcome.permanent(
    "the message requires verified TLS, which this transport does not have", code=554, enhanced="5.7.30"
)
# RFC 4954, 6, and RFC 3207, 4: it wants a login, or TLS, before it looks at any message.
NOT_LOGGED_IN = 530


class NextHopTransport:
    """Delivers to one next hop, on connections that are kept for a while."""

    def __init__(self, name: str, settings: NextHopSettings, network: Network) -> None:
        self._name, self._settings, self._shaper = name, settings, network.shaper
        self._connections = Connections(settings.keep)

    async def serve(self) -> None:
        await self._connections.serve()

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        if delivery.messages[0].require_tls and not self._settings.verified:
            return [NOT_VERIFIED] * len(delivery.messages)
        # All of its recipients are at one domain.
        domain, settings = delivery.messages[0].recipient.domain, self._settings
        hop = NextHop(domain, settings.host, "", settings.port, self._name)
        server = _OneHost(hop, self._settings, self._connections, self._shaper, delivery.hostname)

        async def deliver(found: dict[int, Outcome]) -> None:
            await hand_over(server, delivery, range(len(delivery.messages)), found)

        return await in_time(self._name, delivery, deliver)


@dataclass(frozen=True, slots=True)
class _OneHost:
    """The host, as a Server (see `handover`)."""

    hop: NextHop
    settings: NextHopSettings
    connections: Connections
    shaper: Shaper
    hostname: str  # ours

    @property
    def host(self) -> str:
        return self.settings.host

    async def share(self) -> Share:
        return await self.shaper.share(self.hop)

    async def connection(self, share: Share, *, new: bool = False) -> Kept:
        return await self.connections.get(self.hostname, share, self._open, new=new)

    def give_back(self, kept: Kept) -> None:
        self.connections.give_back(kept)

    def is_ours(self, answer: results.Result) -> bool:
        return answer.code == NOT_LOGGED_IN and answer.stage == "mail"

    def error(self, answer: results.Result) -> str:
        text = error_text(answer)
        repair = self._to_repair(answer) if answer.reply is None else ""
        if self.is_ours(answer):
            repair = "see auth and tls of"
        name = self.hop.transport
        return f"transport {name!r}: {text}; {repair} [transports.{name}]" if repair else text

    def _to_repair(self, answer: results.Result) -> str:
        if answer.stage == "auth":
            return "repair auth of"
        if answer.stage in ("connect", "starttls") and answer.text.startswith(
            ("no TLS: ", "the certificate ")
        ):
            return "see host, port, tls, ca_file and tls_verify of"
        if answer.text == TLS_AT_ONCE:
            return 'choose type = "submissions", or the port for STARTTLS (587 or 25), in'
        if answer.text == NO_REQUIRETLS:
            return "send it without RequireTLS, or another way than by"
        return ""

    async def _open(self, place: Place) -> Kept:
        opened = trio.current_time()
        connection = await self._connect()
        return Kept(connection, self.hostname, opened, place, tls_used=connection.tls_used)

    async def _connect(self) -> SmtpConnection:
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
