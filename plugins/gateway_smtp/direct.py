"""The transports `direct` and `socks`: to the hosts of a recipient's domain, from here or through a proxy."""

from __future__ import annotations

import logging

import trio

from gateway import Network, Transport, TransportType, hookimpl
from gateway.mail.address import ascii_domain
from gateway.net import streams
from gateway.net.socks import connect_through
from gateway_smtp.mx import MxTransport
from gateway_smtp.mx_settings import DirectSettings, SocksSettings

log = logging.getLogger(__name__)


class Direct:
    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        return {
            "direct": TransportType(DirectSettings, _make_direct),
            "socks": TransportType(SocksSettings, _make_socks),
        }


def _make_direct(name: str, settings: DirectSettings, network: Network) -> Transport:
    async def dial(address: str, port: int) -> trio.abc.Stream:
        try:
            return await streams.connect(address, port, local_address=settings.local_address(address))
        except streams.NotHere as exc:
            raise OSError(f"{exc}; repair local_addresses of [transports.{name}]") from None

    for address in settings.local_addresses:
        if not streams.is_here(address):
            log.warning(
                "transports.%s.local_addresses: %s is no address of this machine; mail that needs it waits",
                name,
                address,
            )
    return MxTransport(name, settings, network, dial)


def _make_socks(name: str, settings: SocksSettings, network: Network) -> Transport:
    login = None if settings.auth is None else settings.auth.login

    async def dial(address: str, port: int) -> trio.abc.Stream:
        return await connect_through(settings.proxy_address, address, port, login)

    return MxTransport(name, settings, network, dial, ascii_domain(settings.hostname))
