"""Opens what the gateway listens on, or says in one line why it can't."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import trio

from gateway.config.values import Listen
from gateway.errors import StartError
from gateway.net.streams import Listener

BACKLOG = 512  # connections that wait to be accepted
UNIX_PATH_MAX = 107  # bytes: sockaddr_un holds 108, the last a NUL


async def open_tcp(addresses: Iterable[Listen], purpose: str) -> list[Listener]:
    """Listen on each address; port 0 lets the system choose. Raises StartError."""
    opened: list[Listener] = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind((address.host, address.port))
            sock.listen(BACKLOG)
        except OSError as exc:
            sock.close()
            for listener in opened:
                await listener.aclose()
            raise StartError(_why(exc, address, purpose)) from None
        opened.append(Listener(sock))
    return opened


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


def bound(listeners: Iterable[Listener]) -> tuple[Listen, ...]:
    """The addresses that were bound, the ports that the system chose included."""
    names = [listener.socket.getsockname() for listener in listeners]
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
