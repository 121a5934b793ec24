"""A URL as it is requested: where to connect to, and what a request for it begins with."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

import idna

from gateway.webhooks.connections import Failed, Origin

# What stays as it is in a path and a query (RFC 3986, 3.3 and 3.4), "%" too: it has been encoded already.
_IN_PATH = "/%:@!$&'()*+,;=~[]|^\\"
_IN_QUERY = _IN_PATH + "?`{}"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    origin: Origin
    start: bytes  # the request line, and Host
    authorization: bytes  # the header line for user:password@, or nothing


@lru_cache(maxsize=1024)
def target(url: str) -> Target:
    """Raises Failed."""
    if not url.isprintable() or " " in url:  # urlsplit would leave out some of these
        raise Failed("the URL is wrong: it has characters that a request cannot have")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _ascii(parts.hostname or "")
    except ValueError as exc:  # a port over 65535, brackets that do not match, no such name
        raise Failed(f"the URL is wrong: {exc}") from None
    if parts.scheme not in _PORTS or not host or "%" in host:
        raise Failed("the URL is wrong: it must start with http:// or https:// and a host name")
    if port == 0:
        raise Failed("the URL is wrong: there is no port 0")
    usual = _PORTS[parts.scheme]
    named = f"[{host}]" if ":" in host else host
    named += f":{port}" if port not in (None, usual) else ""
    path = quote(parts.path or "/", safe=_IN_PATH)
    path += f"?{quote(parts.query, safe=_IN_QUERY)}" if parts.query else ""
    return Target(
        origin=Origin(host, port or usual, parts.scheme == "https"),
        start=f"POST {path} HTTP/1.1\r\nHost: {named}\r\n".encode("ascii"),
        authorization=_basic(parts.username, parts.password),
    )


def _ascii(host: str) -> str:
    """Raises ValueError."""
    if host.isascii():
        return host
    return idna.encode(host, uts46=True).decode("ascii")


def _basic(username: str | None, password: str | None) -> bytes:
    """RFC 7617; in a URL, the characters that would end a part are percent-encoded."""
    if not username and not password:
        return b""
    user_and_password = f"{unquote(username or '')}:{unquote(password or '')}".encode()
    return b"Authorization: Basic %s\r\n" % base64.b64encode(user_and_password)
