"""One-click unsubscribe (RFC 8058): a signed link for each recipient, and what following it does.

The link says by itself whose it is: account, mailing list, recipient, Message-ID. So it works for as long as
somebody has the message, however long the gateway keeps what it sent. The signature is an HMAC with a key
that the store keeps.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.hooks.stages import Hooks
from gateway.mail.address import Address, AddressError
from gateway.outbound.settle import keep_events_until, outgoing_calls
from gateway.outbound.suppression import base_address
from gateway.store import facts, settle, suppressions
from gateway.store.changes import EventDraft, Report, Suppress
from gateway.store.store import Store

log = logging.getLogger(__name__)

PATH = "unsubscribe/"  # below web.base_url
KEY = "unsubscribe_key"  # the fact that holds the key, in hex
MAX_TOKEN = 4000  # characters: an address, a Message-ID and two names fit


class BadLinkError(GatewayError):
    """The link is none of ours, or was changed or cut on its way."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is for. `list_name` "": all that the account sends."""

    account: str
    list_name: str
    recipient: Address
    message_id: str


class Unsubscriber:
    """Makes links and follows them. All methods raise StoreError."""

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks,
        store: Store,
        clock: Clock,
        happened: Callable[[], None],
    ) -> None:
        self._settings, self._hooks, self._store, self._clock = settings, hooks, store, clock
        self._happened = happened
        self._key = b""

    async def url(self, link: Link) -> str:
        """The link as a URL of this gateway; "" if it has no `web.base_url`."""
        base = self._settings.web.base_url
        return f"{base}{PATH}{sign(link, await self._signing_key())}" if base else ""

    async def read(self, token: str) -> Link:
        """What a URL's last part stands for. Raises BadLinkError."""
        return verify(token, await self._signing_key())

    async def unsubscribe(self, link: Link) -> None:
        """Nothing of the list is sent to the recipient any more; the account hears of it, once."""
        now = self._clock.now()
        account = self._settings.accounts.get(link.account)
        entry = Suppress(
            base_address=await base_address(self._hooks.for_account(link.account), link.recipient),
            original_address=str(link.recipient),
            reason="unsubscribed with the link in a message",
            list_name=link.list_name,
        )
        event = EventDraft(
            name="unsubscribed",
            keep_until=keep_events_until(account, now),
            error=f"unsubscribed from {link.list_name or 'all mail'}",
            calls=outgoing_calls(account, "unsubscribed", now),
        )

        def write(conn: sa.Connection) -> bool:
            there = suppressions.lookup(
                conn, link.account, entry.base_address, link.recipient, now, link.list_name
            )
            if there is not None:
                return False
            report = Report(message_id=0, error=event.error, event=event, suppress=entry)
            settle.unsubscribe(conn, link.account, link.recipient, link.message_id, report, now)
            return True

        if await self._store.write(write):
            self._happened()
            log.info("unsubscribed account=%s list=%s recipient=%s", *_logged(link))

    async def _signing_key(self) -> bytes:
        if not self._key:
            new = secrets.token_hex(32)
            kept = await self._store.write(lambda conn: facts.read_locked(conn, KEY, new, exclusive=False))
            self._key = bytes.fromhex(kept)
        return self._key


def sign(link: Link, key: bytes) -> str:
    """A token of the characters of base64url and a dot."""
    fields = [link.account, link.list_name, str(link.recipient), link.message_id]
    payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return f"{_encode(payload)}.{_encode(_mac(payload, key))}"


def verify(token: str, key: bytes) -> Link:
    """Raises BadLinkError."""
    refusal = BadLinkError("this link is not valid: it was changed, or not copied as a whole")
    if len(token) > MAX_TOKEN:
        raise refusal
    try:
        payload, mac = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    except ValueError:
        raise refusal from None
    # The second: there are several ways to write the same bytes in base64, and this was ours.
    if not hmac.compare_digest(_mac(payload, key), mac) or token != f"{_encode(payload)}.{_encode(mac)}":
        raise refusal
    account, list_name, recipient, message_id = json.loads(payload)
    try:
        return Link(account, list_name, Address.parse(recipient), message_id)
    except AddressError:  # of a version of ours that took more
        raise refusal from None


def _mac(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"unsubscribe\0" + payload, "sha256")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _logged(link: Link) -> tuple[str, str, str]:
    return link.account, link.list_name or "-", str(link.recipient)
