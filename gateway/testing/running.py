"""A whole gateway in a test's own process: a store in a directory, fake transports, a clock that is moved."""

from __future__ import annotations

import inspect
import logging
import secrets
import smtplib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import sqlalchemy as sa
import trio

from gateway import app
from gateway.clock import ManualClock
from gateway.config.load import parse
from gateway.errors import PluginError, StoreUnavailable, SubmissionRefused
from gateway.events import READER
from gateway.mail.address import Address
from gateway.mail.compose import Draft, Mailbox, compose, new_message_id
from gateway.mail.reading import parse_message
from gateway.model import Event, IncomingEvent
from gateway.outbound.submission import NewSubmission
from gateway.store import events, listing, received
from gateway.store.events import IncomingReference
from gateway.store.listing import Filter
from gateway.store.tables import message, webhook_call
from gateway.testing.happened import Fate, Happened
from gateway.testing.transport import TYPE, FakeTransport, FakeTransports
from gateway.testing.webhooks import WebhookReceiver, webhook_receiver

ACCOUNT, ADDRESS = "app", "app@example.org"
PATIENCE = 20.0  # seconds: what takes longer than that to come to rest does not
LOOK_AGAIN = 0.005  # seconds
KIT = "testing.transports"  # the kit's own plugin

_WAITING = sa.and_(message.c.state == "queued", ~message.c.hold)
_CALLING = webhook_call.c.state == "queued"


@dataclass(slots=True)
class RunningGateway:
    """What a test talks to. `clock` stands still until `advance` moves it."""

    clock: ManualClock
    webhooks: WebhookReceiver
    directory: Path
    gateway: app.Gateway
    _transports: FakeTransports
    _log: list[str] = field(default_factory=list)
    _api: httpx.AsyncClient | None = None

    def transport(self, name: str = "test") -> FakeTransport:
        """A fake transport. Raises KeyError."""
        return self._transports.by_name[name]

    async def deliver(
        self,
        message: EmailMessage | None = None,
        *,
        to: str | Sequence[str] = "you@example.net",
        subject: str = "hi",
        text: str = "hello",
        account: str = ACCOUNT,
        extra: Mapping[str, str] | None = None,
        require_tls: bool | None = None,
        not_before: datetime | None = None,
    ) -> Happened:
        """Hand a message in as an account does, and wait until there is nothing left to do.

        `message`: the whole of it, whose sender and subject count then; else one is made.
        """
        owner = self.gateway.settings.accounts[account].addresses[0]
        recipients = tuple(Address.parse(one) for one in ([to] if isinstance(to, str) else to))
        draft = Draft(
            from_=[Mailbox("", owner)],
            to=[Mailbox("", one) for one in recipients],
            message_id=new_message_id(self.gateway.settings.hostname),
            date=self.clock.now(),
            subject=subject,
            text=text,
        )
        data, message_id = compose(draft).data, draft.message_id
        if message is not None:
            data = b"\r\n".join(message.as_bytes().splitlines()) + b"\r\n"
            message_id, subject = message.get("Message-ID", message_id), message.get("Subject", "")
        new = NewSubmission(
            account=account,
            login=owner,
            via="api",
            header_from=owner,
            recipients=recipients,
            data=data,
            message_id=message_id,
            subject=subject,
            smtputf8=not all(one.is_ascii for one in recipients),
            has_8bit=not data.isascii(),
            require_tls=require_tls,
            future_release=not_before,
            extra=dict(extra or {}),
        )

        async def submit() -> str:
            try:
                await self.gateway.submitter.submit(new)
            except (SubmissionRefused, PluginError, StoreUnavailable) as exc:
                return str(exc)
            return ""

        return await self._after(submit)

    async def receive(
        self, data: bytes, *, to: str = ADDRESS, mail_from: str = "somebody@example.com"
    ) -> Happened:
        """Hand a message in over SMTP, as another mail server does, and wait likewise.

        `mail_from`: empty for the null sender, as reports have it.
        """
        address = self.gateway.addresses["smtp"][0]

        def send() -> str:
            try:
                with smtplib.SMTP(address.host, address.port, timeout=PATIENCE) as client:
                    client.sendmail(mail_from, [to], data)
            except smtplib.SMTPRecipientsRefused as exc:
                [(code, text)] = exc.recipients.values()
                return f"{code} {text.decode()}"
            except smtplib.SMTPResponseException as exc:
                reason = exc.smtp_error
                return f"{exc.smtp_code} {reason.decode() if isinstance(reason, bytes) else reason}"
            return ""

        return await self._after(partial(trio.to_thread.run_sync, send))

    async def advance(self, seconds: float | timedelta) -> Happened:
        """Move the clock on, and wait until there is nothing left to do. Raises ValueError for a step back.

        It stops whenever an attempt or a webhook call is due, until that is done: what comes between happens
        at its time and in its order, with all that follows from it.
        """
        end = self.clock.now() + (timedelta(seconds=seconds) if isinstance(seconds, int | float) else seconds)

        async def move() -> str:
            while (due := await self.gateway.store.read(_next_due)) is not None and due < end:
                self.clock.advance(max(due - self.clock.now(), timedelta()))
                await self.rest()
            self.clock.advance(end - self.clock.now())
            return ""

        return await self._after(move)

    def asked(self, hook: str, account: str = ACCOUNT) -> tuple[str, ...]:
        """The plugins that are asked at a stage, in order: an account's, where the account has a say."""
        hooks = self.gateway.hooks
        return hooks.for_account(account).plugins(hook) or hooks.gateway.plugins(hook)

    async def api(self) -> httpx.AsyncClient:
        """A client of the web API, logged in as the account "app": `await client.post("Send", json=...)`."""
        if self._api is None:
            password = secrets.token_urlsafe()
            await self.gateway.authenticator.set_password(ACCOUNT, password)
            settings = self.gateway.settings
            login = str(settings.accounts[ACCOUNT].addresses[0])
            url = f"http://{self.gateway.addresses['web'][0]}{settings.web.base_path}"
            self._api = httpx.AsyncClient(base_url=url, auth=(login, password), timeout=PATIENCE)
        return self._api

    async def rest(self) -> None:
        """Wait until nothing is due, under way, or still to be told. Raises trio.TooSlowError."""
        give_up = trio.current_time() + PATIENCE
        while left := await self.gateway.store.read(self._left):
            if trio.current_time() > give_up:
                raise trio.TooSlowError(f"after {PATIENCE:g} s there is still {left}; the log may say why")
            await self._nudge()
            await trio.sleep(LOOK_AGAIN)

    # --- How it is found out

    async def _after(self, step: Callable[[], Awaitable[str]]) -> Happened:
        """Take a step, and see what it brings about."""
        newest = await self.gateway.store.read(events.newest)
        webhooks, handed, logged = len(self.webhooks.calls), len(self._transports.got), len(self._log)
        known = await self._ids()
        refused = await step()
        await self.rest()
        told = await self.gateway.store.read(partial(events.after, cursor=newest, limit=10_000))
        sent = tuple(one for one in told if isinstance(one, Event))
        changed = {one.queue_msg_id for one in sent} | (await self._ids() - known)
        return Happened(
            refused=refused,
            messages=tuple([await self._fate(message_id) for message_id in sorted(changed)]),
            events=sent,
            incoming=tuple([await self._incoming(e) for e in told if isinstance(e, IncomingReference)]),
            webhooks=tuple(self.webhooks.calls[webhooks:]),
            handed_over=tuple(self._transports.got[handed:]),
            log=tuple(self._log[logged:]),
        )

    async def _ids(self) -> set[int]:
        found = await self.gateway.store.read(
            lambda conn: conn.execute(sa.select(message.c.id)).scalars().all()
        )
        return set(found)

    async def _fate(self, message_id: int) -> Fate:
        found = await self.gateway.store.read(lambda conn: listing.get(conn, message_id))
        assert found is not None
        item, attempts = found
        state = item.retired_as or ("held" if item.message.hold else "waiting")
        return Fate(str(item.message.recipient), state, item.message, attempts)

    async def _incoming(self, event: IncomingReference) -> IncomingEvent:
        store = self.gateway.store
        found = await store.read(lambda conn: received.get(conn, event.account, event.received_id))
        assert found is not None
        data = await store.content.open(found.content).read()
        return IncomingEvent(
            id=event.id,
            time=event.time,
            account=event.account,
            message=found.message,
            parsed=parse_message(data),
            data=data,
        )

    def _left(self, conn: sa.Connection) -> str:
        """What is left to do; empty for nothing."""
        now = self.clock.now()
        m, c = message.c, webhook_call.c
        things = {
            "an attempt under way": sa.select(m.id).where(m.lease_owner.is_not(None)),
            "a message that is due": sa.select(m.id).where(_WAITING, m.next_attempt <= now),
            "a webhook call under way": sa.select(c.id).where(_CALLING, c.lease_owner.is_not(None)),
            "a webhook call that is due": sa.select(c.id).where(_CALLING, c.next_attempt <= now),
        }
        for thing, statement in things.items():
            if conn.execute(statement.limit(1)).first() is not None:
                return thing
        accounts = self.gateway.settings.accounts
        if not any(self.gateway.hooks.for_account(account).has("event") for account in accounts):
            return ""
        told, newest = events.cursor(conn, READER), events.newest(conn)
        return "" if told is not None and told >= newest else "an event that plugins have not been told"

    async def _nudge(self) -> None:
        """Have the gateway look for what is due: it does not know that the clock was moved."""
        nothing = Filter(account="nobody")
        await self.gateway.operations.release(nothing)
        await self.gateway.operations.drop(nothing, "")


def _next_due(conn: sa.Connection) -> datetime | None:
    """When the next attempt or webhook call is due; None if nothing waits."""
    times = (
        conn.scalar(sa.select(sa.func.min(message.c.next_attempt)).where(_WAITING)),
        conn.scalar(sa.select(sa.func.min(webhook_call.c.next_attempt)).where(_CALLING)),
    )
    return min((time for time in times if time is not None), default=None)


@asynccontextmanager
async def running_gateway(
    *plugins: object,
    directory: Path,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    transports: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("test",),
    configuration: Mapping[str, Any] | None = None,
) -> AsyncIterator[RunningGateway]:
    """A gateway with these plugins before the usual ones, while the body runs.

    `plugins`: names of installed ones, or plugins as such, which are then called by what is last in the name
    of their module or class, in lower case: `acme_mail.Backup()` is "backup". `directory`: for its data; an
    empty one. `settings`: [plugin.NAME] for each. `transports`: names of fake ones (mail goes to the first
    unless a plugin says otherwise), or [transports.NAME] for each. `configuration`: further tables, laid over
    those that the kit has; see `base_configuration`.

    Raises ConfigError for what is wrong with the plugins or the configuration.
    """
    named = {one if isinstance(one, str) else plugin_name(one): one for one in plugins}
    if len(named) < len(plugins):
        raise ValueError(f"two plugins have one name: {', '.join(named)}; give each a name of its own")
    if not isinstance(transports, Mapping):
        transports = {name: {"type": TYPE} for name in transports}
    fakes = FakeTransports()
    clock = ManualClock()
    failed: Exception | None = None
    async with webhook_receiver() as webhooks:
        raw = base_configuration(list(named), settings or {}, transports, webhooks.url)
        _lay_over(raw, configuration or {})
        given = {name: one for name, one in named.items() if not isinstance(one, str)}
        config = directory / "gateway.toml"
        with _logged(given.values()) as log:
            async with app.serving(
                parse(raw, config), directory, clock=clock, plugins={**given, KIT: fakes}
            ) as gateway:
                running = RunningGateway(clock, webhooks, directory, gateway, fakes, log)
                try:
                    yield running
                except Exception as exc:  # a test's failure is told of as it is, not as a nursery's group
                    failed = exc
                if running._api is not None:
                    await running._api.aclose()
    if failed is not None:
        raise failed


MailGateway = Callable[..., AbstractAsyncContextManager[RunningGateway]]  # the fixture `mail_gateway`


def base_configuration(
    plugins: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    transports: Mapping[str, Mapping[str, Any]],
    webhooks: str,
) -> dict[str, Any]:
    """A configuration file's tables: one account "app" with the address app@example.org, no limits, webhooks;
    listeners on free ports of 127.0.0.1; names that DNS does not have."""
    raw: dict[str, Any] = {
        "hostname": "gateway.example.org",
        "smtp": {"listen": ["127.0.0.1:0"], "verify": False},
        "web": {"listen": ["127.0.0.1:0"]},
        "webhooks": {"allow_networks": ["127.0.0.0/8"]},
        "dns": {"simulated": True},
        "plugins": {"sets": ["under-test", "default", "testing"]},
        "plugin_sets": {"under-test": {"plugins": list(plugins)}, "testing": {"plugins": [KIT]}},
        "plugin": {name: dict(table) for name, table in settings.items()},
        "transports": {name: dict(table) for name, table in transports.items()},
        "domains": {"example.org": {"catchall_separator": ["+"]}},
        "accounts": {
            ACCOUNT: {
                "addresses": [ADDRESS],
                "max_messages_per_day": -1,
                "max_first_time_recipients_per_day": -1,
                "webhook_outgoing": {"url": webhooks},
                "webhook_incoming": {"url": webhooks},
            }
        },
    }
    if transports:
        raw["routes"] = [{"transport": next(iter(transports))}]
    return raw


def plugin_name(plugin: object) -> str:
    """What the kit calls a plugin that was given as such."""
    if isinstance(plugin, ModuleType):
        return plugin.__name__.rpartition(".")[2].lower()
    return (plugin if inspect.isclass(plugin) else type(plugin)).__name__.lower()


def _lay_over(raw: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(raw.get(key), dict):
            _lay_over(raw[key], value)
        else:
            raw[key] = value


@contextmanager
def _logged(plugins: Iterable[object]) -> Iterator[list[str]]:
    """The lines that the plugins log, and those on their failures, as they come."""
    names = {"gateway.hooks.calls"}
    for plugin in plugins:
        module = plugin.__name__ if isinstance(plugin, ModuleType) else str(plugin.__module__)
        names.add(module.partition(".")[0] if not module.startswith("gateway.") else module)
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [(logger, logger.level) for logger in map(logging.getLogger, sorted(names))]
    for logger, level in loggers:
        logger.addHandler(handler)
        if level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        for logger, level in loggers:
            logger.removeHandler(handler)
            logger.setLevel(level)
