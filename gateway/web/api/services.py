"""What the API needs of the rest of the gateway, as narrow as it uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import trio

from gateway.accounts.logins import BadCredentialsError, Login, TooManyFailuresError
from gateway.config.settings import Settings
from gateway.mail.address import Address
from gateway.model import Content, Event, ReceivedMessage, Rendered, Suppression, Template
from gateway.offload import Offload
from gateway.outbound.account_queue import History
from gateway.outbound.submission import KeepAnswer, NewSubmission, Refusal, ReportWishes, Submitted
from gateway.outbound.unsubscribe import Link
from gateway.store.call_listing import CallFilter
from gateway.store.idempotency import Kept as KeptAnswer
from gateway.store.listing import Filter, Page, Sort
from gateway.store.mailbox_listing import ListedMessage, MessageFilter
from gateway.store.templates import StoredTemplate
from gateway.webhooks.event_log import EventPage, NoPayload
from gateway.webhooks.urls import TestUnderWay, Trial, UnknownUrl, UrlReport


class Accounts(Protocol):
    """Who may log in, and whom an account may write as."""

    async def authenticate(self, login: str, password: str, remote_ip: str) -> Login:
        """Raises BadCredentialsError, TooManyFailuresError, StoreError."""

    async def authenticate_key(self, text: str, remote_ip: str) -> Login:
        """An API key alone. Raises the same."""


class Directory(Protocol):
    def may_send_from(self, account: str, address: Address) -> bool:
        """Whether the address is the account's, catchall-separator variants included."""

    def domain_disabled(self, domain: str) -> bool: ...


class Submitter(Protocol):
    async def submit_together(
        self, copies: Sequence[NewSubmission], keep: KeepAnswer | None = None
    ) -> Submitted:
        """A message, each of its copies. Raises SubmissionRefused, PluginError, StoreError: then nothing is
        queued."""

    async def submit_each(
        self, batch: Sequence[Sequence[NewSubmission]], keep: KeepAnswer | None = None
    ) -> tuple[Submitted | Refusal, ...]:
        """Raises StoreError: then nothing is queued."""

    async def kept_answer(self, account: str, key: str) -> KeptAnswer | None:
        """Raises StoreError."""


class Messages(Protocol):
    """The messages in the mailboxes of all accounts. All methods raise NotVisible and StoreError."""

    async def get(self, account: str, msg_id: int) -> tuple[ReceivedMessage, Content]: ...

    async def delete(self, account: str, msg_id: int) -> None: ...

    async def change_flags(
        self,
        account: str,
        msg_id: int,
        *,
        add: frozenset[str] = frozenset(),
        remove: frozenset[str] = frozenset(),
    ) -> None:
        """Raises FlagError."""

    async def move(self, account: str, msg_id: int, mailbox: str) -> bool:
        """False if the account has no such mailbox."""

    async def page(
        self, account: str, wanted: MessageFilter, *, cursor: str, maximum: int
    ) -> tuple[tuple[ListedMessage, ...], str] | None:
        """The newest first, and the next page's cursor, empty at the end; None if there is no such mailbox.

        Raises ValueError for a cursor that no page ended with.
        """


class Suppressions(Protocol):
    """The suppression lists of all accounts. All methods raise StoreError."""

    async def page(self, account: str, cursor: str, maximum: int) -> tuple[tuple[Suppression, ...], str]:
        """Entries by base address, and the cursor of the next page, empty at the end."""

    async def lookup(self, account: str, address: Address, list_name: str = "") -> Suppression | None:
        """The entry that keeps the account from sending mail of a list to an address."""

    async def add(
        self, account: str, address: Address, *, manual: bool, reason: str, list_name: str = ""
    ) -> bool:
        """False if it is on the list already."""

    async def remove(self, account: str, address: Address, list_name: str = "") -> bool:
        """False if it is not on the list."""


class Templates(Protocol):
    """The templates of all accounts. All methods raise StoreError."""

    async def put(self, account: str, template: Template) -> None:
        """Raises SubmissionRefused, PluginError."""

    async def page(self, account: str, cursor: str, maximum: int) -> tuple[tuple[StoredTemplate, ...], str]:
        """Templates by name, and the cursor of the next page, empty at the end."""

    async def remove(self, account: str, name: str) -> bool:
        """False if there is none of that name."""

    async def render(
        self, account: str, name: str, variables: Sequence[Mapping[str, Any]]
    ) -> Sequence[Rendered]:
        """What the template gives with each of `variables`. Raises SubmissionRefused, PluginError."""


class Unsubscriber(Protocol):
    """Links with which a recipient unsubscribes. All methods raise StoreError."""

    async def url(self, link: Link) -> str:
        """ "" if the gateway has no `web.base_url`."""

    async def read(self, token: str) -> Link:
        """Raises BadLinkError."""

    async def unsubscribe(self, link: Link) -> None: ...


class Webhooks(Protocol):
    async def replay(self, wanted: CallFilter) -> int:
        """Make calls again that are over; how many. Raises StoreError."""


class WebhookUrls(Protocol):
    """The URLs of all accounts. All methods raise StoreError."""

    async def list(self, account: str) -> Sequence[UrlReport]:
        """The account's, as they are configured."""

    async def enable(self, url: str, account: str) -> Sequence[str]:
        """Calls to it are made again; empty if it was not disabled."""

    async def test(self, account: str, url: str, event: str) -> Trial:
        """Call it with an example. Raises UnknownUrl, TestUnderWay."""


class Queue(Protocol):
    """The queue and its history. All methods raise StoreError."""

    async def page(
        self, account: str, wanted: Filter, *, sort: Sort, ascending: bool, cursor: str, maximum: int
    ) -> Page:
        """Raises ValueError for a cursor that no page ended with."""

    async def get(self, account: str, message_id: int) -> History | None: ...

    async def hold(self, account: str, wanted: Filter) -> int: ...

    async def release(self, account: str, wanted: Filter) -> int: ...

    async def cancel(self, account: str, wanted: Filter) -> int: ...


class Events(Protocol):
    """What happened, as webhooks tell it. All methods raise NoPayload."""

    async def page(
        self, account: str, *, cursor: str = "", maximum: int = 100, names: Sequence[str] = ()
    ) -> EventPage:
        """Raises ValueError for a cursor that no page ended with, StoreError, OffloadError."""

    async def payload(self, event: Event) -> Any: ...

    @property
    def changed(self) -> trio.Event:
        """Set when something more has happened: a hint."""

    async def newest(self) -> str:
        """The cursor after which there is only what is still to happen. Raises StoreError."""

    def check_cursor(self, cursor: str) -> None:
        """Raises ValueError for one that no page ended with."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: Settings
    accounts: Accounts
    directory: Directory
    submitter: Submitter
    messages: Messages
    suppressions: Suppressions
    templates: Templates
    unsubscriber: Unsubscriber
    webhooks: Webhooks
    webhook_urls: WebhookUrls
    queue: Queue
    events: Events
    clock: Clock
    offload: Offload


__all__ = [
    "Accounts", "BadCredentialsError", "Clock", "Directory", "Events", "KeepAnswer", "KeptAnswer", "Login",
    "Messages", "NewSubmission", "NoPayload", "Offload", "Queue", "Refusal", "ReportWishes", "Services",
    "Submitted", "Submitter", "Suppressions", "TestUnderWay", "TooManyFailuresError", "Trial",
    "UnknownUrl", "UrlReport",
]  # fmt: skip
