"""Serves SMTP on trio listeners: how many connections there may be, and when they end.

What happens on one is in `smtp_connection`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar

import trio

from gateway.net.smtp_connection import Connection, ServerSettings, Shared
from gateway.net.smtp_handler import Handler, Logins
from gateway.net.streams import Stream
from gateway.smtp.replies import Reply

__all__ = ["ServerSettings", "serve_smtp"]

logger = logging.getLogger(__name__)

_LAST_WORDS = 5.0  # seconds to turn a connection away
_MAX_TURNING_AWAY = 100  # connections at a time that are told why; more are just closed

_FULL = Reply(421, "4.3.2", ("Too many connections, try again later",))
_NETWORK_FULL = Reply(421, "4.7.0", ("Too many connections from your network",))

_AnyStream = TypeVar("_AnyStream", bound=trio.abc.Stream)


async def serve_smtp(
    listeners: Sequence[trio.abc.Listener[_AnyStream]],
    settings: ServerSettings,
    handler: Handler,
    logins: Logins | None = None,
    *,
    connected: Callable[[int], None] = lambda _change: None,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[_AnyStream]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping` is set, and then until the last transaction ends or `settings.grace` is over.

    With `logins` mail is taken from those only who are logged in. `connected` is called with 1 and -1 when a
    connection begins and ends.

    Resource handling: the listeners are closed when accepting ends. Error handling: an error of a connection
    is logged and stays in it; an error in accepting, other than a passing lack of resources, is raised.
    Cancellation ends all connections at once.
    """
    server = _Server(settings, handler, logins, connected)
    async with trio.open_nursery() as timing:
        timing.start_soon(server.deadlines.serve)
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                await accepting.start(
                    partial(trio.serve_listeners, server.serve, list(listeners), handler_nursery=connections)
                )
                task_status.started(listeners)
                await (trio.Event() if stopping is None else stopping).wait()
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + settings.grace
            server.stop()
        timing.cancel_scope.cancel()


class _Server(Shared):
    """A service: its connections, counted."""

    def __init__(
        self,
        settings: ServerSettings,
        handler: Handler,
        logins: Logins | None,
        connected: Callable[[int], None],
    ) -> None:
        super().__init__(settings, handler, logins)
        self._connected = connected
        self._connections = 0
        self._turning_away = 0
        self._networks: Counter[tuple[int, int] | None] = Counter()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection. Raises nothing but cancellation."""
        try:
            peer = _peer(stream)
            refusal = self._room(peer)
            if refusal is None:
                with self._counted(peer):
                    await Connection(self, stream, peer).run()
            else:
                await self._turn_away(stream, refusal)
        except* Exception:  # never Cancelled, not even when a group has both
            logger.exception("SMTP connection failed")

    def _room(self, peer: IPv4Address | IPv6Address | None) -> Reply | None:
        if self._connections >= self.settings.max_connections:
            return _FULL
        limit = self.settings.max_connections_per_network
        if limit is not None and peer is not None and self._networks[_network(peer)] >= limit:
            return _NETWORK_FULL
        return None

    @contextmanager
    def _counted(self, peer: IPv4Address | IPv6Address | None) -> Iterator[None]:
        network = _network(peer)
        self._connections += 1
        self._connected(1)
        self._networks[network] += 1
        try:
            yield
        finally:
            self._connections -= 1
            self._connected(-1)
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    async def _turn_away(self, stream: trio.abc.Stream, reply: Reply) -> None:
        if self._turning_away >= _MAX_TURNING_AWAY:
            return
        self._turning_away += 1
        try:
            with trio.move_on_after(_LAST_WORDS):
                if not self.settings.tls_at_once:  # there, it would be no word that the client knows
                    await stream.send_all(reply.render())
                await stream.aclose()
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            self._turning_away -= 1


def _peer(stream: trio.abc.Stream) -> IPv4Address | IPv6Address | None:
    if not isinstance(stream, Stream | trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
        address = ip_address(str(name[0]).partition("%")[0])
    except (OSError, ValueError, IndexError):  # gone already, or a Unix socket
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(peer: IPv4Address | IPv6Address | None) -> tuple[int, int] | None:
    if peer is None:
        return None
    return (peer.version, int(peer) >> (8 if peer.version == 4 else 64))
