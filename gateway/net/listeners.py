"""Opens what the gateway listens on, or says in one line why it can't."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gateway.config.values import Listen
from gateway.errors import StartError
from gateway.net.streams import Listener

if TYPE_CHECKING:
    from gateway.config.settings import Role, Settings

BACKLOG = 512  # connections that wait to be accepted
UNIX_PATH_MAX = 107  # bytes: sockaddr_un holds 108, the last a NUL
NECESSARY = ("smtp", "web")
# Of the configuration, those that have `listen`: whose sockets they are.
SECTIONS: Mapping[str, Role | None] = {
    "smtp": "smtp",
    "web": "web",
    "submission": "submission",
    "submissions": "submission",
    "metrics": None,  # the first worker's
}

Sockets = Mapping[str, Sequence[socket.socket]]  # by section; they listen
Addresses = Mapping[str, tuple[Listen, ...]]  # by section


def bind(settings: Settings) -> list[Sockets]:
    """The sockets of each worker, bound and listening: those with a role have the same addresses, and the
    system shares the connections out among them. Raises StartError.
    """
    of_each: list[dict[str, list[socket.socket]]] = [{} for _ in range(settings.workers)]
    with ExitStack() as opened:
        for section, role in SECTIONS.items():
            addresses: Sequence[Listen] = getattr(settings, section).listen
            purpose = f"{section}.listen"
            if not addresses and section in NECESSARY:
                raise StartError(f'{purpose}: nothing to listen on; give an address such as "127.0.0.1:1025"')
            for mine in of_each:
                mine[section] = []
            having = [of_each[number] for number in settings.workers_with(role)] if role else of_each[:1]
            for address in addresses:
                for mine, sock in zip(having, bind_to(address, purpose, len(having)), strict=True):
                    mine[section].append(opened.enter_context(sock))
        opened.pop_all()
    return list(of_each)


def bind_to(address: Listen, purpose: str, sharing: int = 1) -> list[socket.socket]:
    """As many sockets that share an address; port 0 lets the system choose one. Raises StartError."""
    with ExitStack() as opened:
        try:
            if sharing > 1 and address.port:
                # Whoever shares a port may share ours, and we somebody's: is it free?
                _listening(address, shared=False).close()
            sockets: list[socket.socket] = []
            for _ in range(sharing):
                sock = opened.enter_context(_listening(address, shared=sharing > 1))
                sockets.append(sock)
                address = Listen(host=address.host, port=sock.getsockname()[1])
        except OSError as exc:
            raise StartError(_why(exc, address, purpose)) from None
        opened.pop_all()
    return sockets


def _listening(address: Listen, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def listening(sockets: Iterable[socket.socket]) -> list[Listener]:
    """For trio, which owns the sockets from here on."""
    return [Listener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]


async def open_unix(path: Path) -> trio.SocketListener:
    """Listen on a Unix socket in a directory that only we can enter. Raises StartError."""
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise StartError(
            f"{path}: too long for a Unix socket ({UNIX_PATH_MAX} bytes at most); use a data "
            "directory with a shorter path"
        )
    directory = trio.Path(path.parent)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await directory.chmod(0o700)
        await trio.Path(path).unlink(missing_ok=True)  # left by a crash: we hold the data directory's lock
        await sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise StartError(
            f"{path}: cannot be made ({exc.strerror}); give a data directory that this user may write to"
        ) from None
    return trio.SocketListener(sock)


def bound(sockets: Iterable[socket.socket]) -> tuple[Listen, ...]:
    """The addresses that were bound, the ports that the system chose included."""
    names = [sock.getsockname() for sock in sockets]
    return tuple(Listen(host=name[0], port=name[1]) for name in names)


def _why(exc: OSError, address: Listen, purpose: str) -> str:
    where = f"cannot listen on {address} for {purpose}"
    if exc.errno == errno.EADDRINUSE:
        return (
            f"{where}: the port is in use; stop the program that has it (see: ss -ltnp) or choose other ports"
        )
    if exc.errno == errno.EACCES:
        return (
            f"{where}: not allowed; ports below 1024 need privileges, so choose a higher one or run with them"
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this machine does not have that address; choose one that it has"
    return f"{where}: {exc.strerror}; choose another address"
