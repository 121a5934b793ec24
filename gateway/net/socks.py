"""A connection through a SOCKS5 proxy (RFC 1928), with a login if it asks for one (RFC 1929).

The proxy is told an IP address, never a name: what a host's name leads to is ours to find out.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

import trio

from gateway.net import streams

MAX_LOGIN = 255  # octets of a user name or a password (RFC 1929, section 2)

_VERSION = 5
_CONNECT = 1
_NO_LOGIN, _PASSWORD, _NONE_WILL_DO = 0, 2, 0xFF
_LOGIN_VERSION = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

# RFC 1928, section 6.
_REFUSALS = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "it does not connect for others",
    8: "it does not know this kind of address",
}


class SocksError(OSError):
    """The proxy did not connect us. The text is one line."""


@dataclass(frozen=True, slots=True)
class SocksLogin:
    """Raises ValueError for what the protocol cannot carry."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        for what, text in (("username", self.username), ("password", self.password)):
            if not 1 <= len(text.encode()) <= MAX_LOGIN:
                raise ValueError(f"{what}: is to have 1 to {MAX_LOGIN} bytes")


async def connect_through(
    proxy: tuple[str, int], address: str, port: int, login: SocksLogin | None = None
) -> streams.Stream:
    """A connection to an IP address by way of the proxy at (host, port). The caller limits the time.

    Raises OSError, with one line that names the proxy.
    """
    name = f"[{proxy[0]}]:{proxy[1]}" if ":" in proxy[0] else f"{proxy[0]}:{proxy[1]}"
    try:
        stream = await streams.connect(*proxy)
    except socket.gaierror as exc:
        raise SocksError(f"the proxy {name} cannot be looked up ({exc.strerror})") from None
    except OSError as exc:
        raise SocksError(f"the proxy {name} cannot be reached ({_reason(exc)})") from None
    try:
        await ask(stream, address, port, login)
    except SocksError as exc:
        await trio.aclose_forcefully(stream)
        raise SocksError(f"the proxy {name}: {exc}") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def ask(stream: trio.abc.Stream, address: str, port: int, login: SocksLogin | None = None) -> None:
    """Have the proxy at the other end connect us; from then on the stream is that connection's.

    No octet is read beyond the proxy's answers. Raises SocksError.
    """
    try:
        await _greet(stream, login)
        target = ip_address(address)
        kind = _IPV6 if isinstance(target, IPv6Address) else _IPV4
        await stream.send_all(bytes((_VERSION, _CONNECT, 0, kind)) + target.packed + port.to_bytes(2))
        version, code, _, kind = await _read(stream, 4)
        if version != _VERSION:
            raise SocksError("what it says is not SOCKS5")
        if code:
            raise SocksError(f"{_REFUSALS.get(code, f'unknown failure {code}')}, for {address} port {port}")
        sizes = {_IPV4: 4, _IPV6: 16}  # of its own end of the connection, which is of no use to us
        if kind == _NAME:
            [size] = await _read(stream, 1)
        elif kind in sizes:
            size = sizes[kind]
        else:
            raise SocksError(f"an answer with an unknown kind of address ({kind})")
        await _read(stream, size + 2)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise SocksError("the connection broke") from None


async def _greet(stream: trio.abc.Stream, login: SocksLogin | None) -> None:
    methods = bytes([_NO_LOGIN] if login is None else [_NO_LOGIN, _PASSWORD])
    await stream.send_all(bytes((_VERSION, len(methods))) + methods)
    version, method = await _read(stream, 2)
    if version != _VERSION:
        raise SocksError("what it says is not SOCKS5")
    if method == _NONE_WILL_DO:
        raise SocksError("it wants a login" if login is None else "it wants another kind of login")
    if method not in methods:
        raise SocksError(f"it chose a method that was not offered ({method})")
    if method == _PASSWORD:
        assert login is not None
        username, password = login.username.encode(), login.password.encode()
        await stream.send_all(
            bytes((_LOGIN_VERSION, len(username))) + username + bytes((len(password),)) + password
        )
        _, status = await _read(stream, 2)
        if status:
            raise SocksError("the login was refused")


async def _read(stream: trio.abc.Stream, count: int) -> bytes:
    """Exactly so many octets; at most 257 are ever asked for."""
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise SocksError("it closed the connection")
        data += bytes(more)
    return data


def _reason(error: BaseException) -> str:
    """The innermost cause in words: trio puts the operating system's error behind its own."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or type(error).__name__
