"""Who asks: whether a request may be one of ours at all, and which account it is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.accounts.logins import parse_basic, parse_bearer
from gateway.model import Scope
from gateway.web.api.errors import HttpError
from gateway.web.api.services import Accounts, BadCredentialsError, Login

Headers = Mapping[bytes, bytes]

# A host name, IPv4 address or IPv6 literal, and perhaps a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


async def log_in(accounts: Accounts, scope: Mapping[str, Any], headers: Headers) -> Login:
    """Raises HttpError for a page of another site, BadCredentialsError, TooManyFailuresError, StoreError."""
    # First, for a page of another site must not even be able to fail logins in its visitor's network.
    if is_cross_site(headers):
        raise HttpError(403, "calls from the pages of another site are refused")
    given = headers.get(b"authorization", b"").decode("latin-1")
    remote_ip = (scope.get("client") or ("",))[0]
    if (key := parse_bearer(given)) is not None:
        return await accounts.authenticate_key(key, remote_ip)
    credentials = parse_basic(given)
    if credentials is None:
        raise BadCredentialsError(
            "log in with HTTP basic authentication: an email address, and a password or an API key; or"
            " with an API key as Bearer"
        )
    return await accounts.authenticate(*credentials, remote_ip)


def check_scope(login: Login, scope: Scope, what: str) -> None:
    """Raises HttpError."""
    if not login.may(scope):
        scopes = ", ".join(sorted(login.scopes or ())) or "none"
        raise HttpError(403, f"{what} needs the scope {scope}; the API key {login.key!a} has: {scopes}")


def is_host(value: bytes) -> bool:
    """Whether a Host header names a host, or is empty. Quart has no answer for one that doesn't."""
    return not value or _HOST.fullmatch(value) is not None


def is_cross_site(headers: Headers) -> bool:
    """Whether a browser sent this for a page that is not ours (WHATWG Fetch, 3.2; W3C Fetch Metadata, 2.3).

    Only browsers send these headers, and no page can set them.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    if origin is None:
        return False
    try:
        page = urlsplit(origin.decode("latin-1"))
        here = urlsplit(f"{page.scheme}://{headers.get(b'host', b'').decode('latin-1')}")
        default = {"http": 80, "https": 443}.get(page.scheme)
        return page.hostname is None or (page.hostname, page.port or default) != (
            here.hostname,
            here.port or default,
        )
    except ValueError:
        return True
