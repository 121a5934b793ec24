"""Streams of sockets with less between a task and its socket than trio's own have.

Between `receive_some` of a trio.SocketStream and the system call lie a dozen calls and context managers, and
each `send_all` lets all other tasks run first: a fifth of all that a server does for a short exchange.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from ipaddress import ip_address

import trio

_RECEIVE = 65536  # octets at once, unless the caller says
_SHORT = 16384  # octets: what goes out at once without letting others run
_ADDRESS_ONLY: int | None = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", None)  # Linux
_CLOSED = frozenset({errno.EBADF, errno.ENOTSOCK})
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Stream(trio.abc.HalfCloseableStream):
    """A connected socket, as by trio.SocketStream, with three differences.

    What is short and goes out at once is no checkpoint, only a place to be cancelled at: whoever answers
    has received before, which is one. After something was sent, `receive_some` waits at once: an answer takes
    longer than a look for it. And nobody notices when two tasks send at the same time.
    """

    def __init__(self, connected: trio.socket.SocketType) -> None:
        """Takes the socket over: `connected` is of no more use."""
        family, kind, protocol = connected.family, connected.type, connected.proto
        self._raw = socket.socket(family, kind, protocol, fileno=connected.detach())
        self._raw.setblocking(False)
        self.socket = trio.socket.from_stdlib_socket(self._raw)
        self._trio = trio.SocketStream(self.socket)
        self._asked = False  # something was sent since the last look

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._asked:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                data = self._raw.recv(max_bytes or _RECEIVE)
            except BlockingIOError:
                pass
            except OSError as exc:
                raise _translated(exc) from exc
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
        self._asked = False
        while True:
            try:
                await trio.lowlevel.wait_readable(self._raw)
                return self._raw.recv(max_bytes or _RECEIVE)
            except BlockingIOError:
                pass
            except OSError as exc:
                raise _translated(exc) from exc

    @property
    def has_input(self) -> bool:
        """Whether `receive_some` would have something at once, be it the end."""
        try:
            self._raw.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sent, self._asked = 0, True
        if 0 < len(data) <= _SHORT and not self.socket.did_shutdown_SHUT_WR:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                sent = self._raw.send(data)
            except BlockingIOError:
                pass
            except OSError as exc:
                raise _translated(exc) from exc
            if sent == len(data):
                return
        with memoryview(data)[sent:] as rest:
            await self._trio.send_all(rest)

    async def wait_send_all_might_not_block(self) -> None:
        await self._trio.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._trio.send_eof()

    async def aclose(self) -> None:
        await self._trio.aclose()


class NotHere(OSError):
    """An address to connect from that this machine does not have. The text is one line."""


async def connect(host: str, port: int, *, local_address: str | None = None) -> Stream:
    """A connection to an IP address, or to a name's first address that answers; from `local_address`, an IP
    address, or as the system likes. Raises OSError; NotHere is one.

    An address is one task's business: trio's way for names, with a task for each of some addresses, takes
    three times as long.
    """
    version = _ip_version(host)
    if version is None:
        try:
            return Stream((await trio.open_tcp_stream(host, port, local_address=local_address)).socket)
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "it is no name in DNS") from None
    made = trio.socket.socket(_FAMILIES[version])
    try:
        if local_address is not None:
            await _bind(made, local_address)
        await made.connect((host, port))
    except BaseException:
        made.close()
        raise
    return Stream(made)


async def _bind(made: trio.socket.SocketType, local_address: str) -> None:
    if _ADDRESS_ONLY is not None:  # the port is chosen for the connection: one may do for several
        with contextlib.suppress(OSError):
            made.setsockopt(socket.IPPROTO_IP, _ADDRESS_ONLY, 1)
    try:
        await made.bind((local_address, 0))
    except OSError as exc:
        if exc.errno != errno.EADDRNOTAVAIL:
            raise
        raise NotHere(f"{local_address} is no address of this machine") from None


def is_here(address: str) -> bool:
    """Whether this machine has an IP address to connect from, as far as can be told."""
    try:
        with socket.socket(_FAMILIES[ip_address(address).version], socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as exc:
        return exc.errno not in _NOT_HERE
    return True


class Listener(trio.abc.Listener[Stream]):
    """A listening socket whose connections are `Stream`s; else as by trio.SocketListener."""

    def __init__(self, listening: trio.socket.SocketType) -> None:
        self.socket = listening
        self._trio = trio.SocketListener(listening)

    async def accept(self) -> Stream:
        return Stream((await self._trio.accept()).socket)

    async def aclose(self) -> None:
        await self._trio.aclose()


def _ip_version(host: str) -> int | None:
    try:
        return ip_address(host).version
    except ValueError:
        return None


def _translated(exc: OSError) -> Exception:
    if exc.errno in _CLOSED:
        return trio.ClosedResourceError("this socket was already closed")
    return trio.BrokenResourceError(f"socket connection broken: {exc}")
