"""THE MAP: how the gateway is put together, and in which order it starts and stops.

Out: `web/api`, or `net/smtp_server` → `outbound/smtp_submission`; from either → `outbound/submission`
(filter, sign, one row for each recipient, one commit) → `outbound/queue` (claim what is due) →
`outbound/attempt` (suppressed? route; transport) → one outcome for each recipient → `outbound/settle` (one
commit: history, suppression, retire or reschedule, DSN, event, webhook row) → `webhooks/sender`.

In: `net/smtp_server` → `inbound/receive` (SPF, DKIM, DMARC; policy) → `inbound/reports` (is it a report?
whose?) → one commit, before the 250: the message, and what a report settles, or else an incoming webhook row
→ `webhooks/sender`.

One process is all of it, or one of several that share the store (gateway.workers): then the first of them
alone does what is marked (1), and each has its roles (Settings.workers_with): who does not deliver, for one,
has no `outbound/queue`, and tells those who do what there is for them.

Start: lock the data directory, load the plugins, bind every port, open the store (migrations), take back
what a crash cut off; only then serve. Stop: accept nothing and claim nothing more; what is under way has
the grace period; then all is cancelled, and the store is closed last.

    run
    └── background                 clock, hints, mail that waits for a plugin, transports between deliveries;
        │                          (1) clean-up, expired leases, unfinished hold rules, MTA-STS policies,
        │                          plugins' services, metrics: cancelled at the end
        └── services               each returns when it is told to stop and is done
            ├── webhooks/sender
            ├── events             (1) tells the plugins
            ├── outbound/queue     ── one task for each attempt
            ├── net/smtp_server    ── one task for each connection (mail that comes in; submission, twice)
            └── web/server         ── one task for each connection (API and pages; (1) control socket)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway import datadir, templates
from gateway.accounts.directory import Directory
from gateway.accounts.logins import Authenticator
from gateway.accounts.sasl import SaslLogins
from gateway.cleanup import clean_up
from gateway.clock import Clock
from gateway.config.settings import ROLES, RolesSettings, Settings, SmtpSettings, SubmissionSettings
from gateway.errors import PluginError, StartError
from gateway.events import EventTeller
from gateway.hooks.stages import Hooks
from gateway.hookspecs.additions import GatewayContext
from gateway.inbound.mailboxes import Mailboxes
from gateway.inbound.receive import Receiver
from gateway.inbound.verify.message import Verifier
from gateway.leases import Recovery
from gateway.memory import give_large_blocks_back
from gateway.metrics import Counts, Metrics, collect
from gateway.net.dns import Resolver
from gateway.net.listeners import Addresses, bind, bound, listening, open_unix
from gateway.net.mta_sts_policies import MtaStsPolicies
from gateway.net.network import Network
from gateway.net.renewal import RenewedCertificate
from gateway.net.shaping import Shaper
from gateway.net.simulated_dns import simulated_resolver
from gateway.net.smtp_connection import TlsContext
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.offload import Offload
from gateway.outbound.account_queue import AccountQueue
from gateway.outbound.attempt import Attempts
from gateway.outbound.deferred import DeferredMail
from gateway.outbound.notices import Notices
from gateway.outbound.operations import HoldRules, QueueOperations
from gateway.outbound.queue import QueueScheduler
from gateway.outbound.smtp_submission import SmtpSubmission
from gateway.outbound.submission import Submitter
from gateway.outbound.suppression import SuppressionLists
from gateway.outbound.transports import called_transports, read_transports, tables_of
from gateway.outbound.unsubscribe import Unsubscriber
from gateway.plugins.loading import load_plugins
from gateway.plugins.services import serve_service
from gateway.plugins.views import tally_rows
from gateway.smtp.server import ServerLimits
from gateway.store import queue, webhook_calls
from gateway.store.content_stores import registered
from gateway.store.store import Store
from gateway.tree import Background, Service, served
from gateway.wakeup import Bell, Wakeup
from gateway.web.added_pages import added_pages
from gateway.web.api.added import all_methods
from gateway.web.api.services import Services
from gateway.web.app import WebApp
from gateway.web.control.accounts import AccountCommands
from gateway.web.control.app import ControlApp
from gateway.web.control.hold_rules import HoldRuleCommands
from gateway.web.control.plugins import PluginCommands
from gateway.web.control.queue import QueueCommands
from gateway.web.control.suppression import SuppressionCommands
from gateway.web.control.webhooks import WebhookCommands
from gateway.web.server import HttpSettings, lifespan, serve_http
from gateway.webhooks.calling import Caller
from gateway.webhooks.client import WebhookClient
from gateway.webhooks.event_log import EventLog
from gateway.webhooks.examples import check_formats
from gateway.webhooks.operations import CallOperations
from gateway.webhooks.sender import WebhookSender
from gateway.webhooks.urls import WebhookUrls
from gateway.workers.hints import Hint
from gateway.workers.numbers import Exchange, Numbers
from gateway.workers.shares import shape_shared, share_of_settings
from gateway.workers.worker import Worker, the_only_one

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway that serves: what those who start it (commands, tests) may want of it."""

    settings: Settings
    clock: Clock
    store: Store
    hooks: Hooks
    authenticator: Authenticator
    submitter: Submitter
    mailboxes: Mailboxes
    holding: HoldRules
    operations: QueueOperations
    calls: CallOperations
    webhook_urls: WebhookUrls
    suppressions: SuppressionLists
    addresses: Addresses


@asynccontextmanager
async def serving(
    settings: Settings,
    config_dir: Path,
    *,
    clock: Clock | None = None,
    plugins: Mapping[str, object] | None = None,
    prepare: Callable[[Authenticator], Awaitable[None]] | None = None,
    example_login: str = "",
    worker: Worker | None = None,
) -> AsyncIterator[Gateway]:
    """Run a gateway while the body runs; leaving the body stops it within the grace period.

    `plugins`: objects that stand in for installed plugins, by name. `prepare`: runs before anything is
    served. `example_login`: "user:password" that the API's pages show in their examples. `worker`: which of
    a gateway's processes this is, if there are several; its supervisor has the data directory's lock.

    Raises ConfigError, StartError.
    """
    clock = clock or Clock()
    give_large_blocks_back()
    async with AsyncExitStack() as resources:
        if worker is None:
            resources.enter_context(datadir.locked(settings.data_dir))
        hooks = load_plugins(settings, config_dir, extra=plugins)
        await check_formats(settings, hooks, clock.now())
        configured = read_transports(tables_of(settings, hooks.transports), hooks.transports, config_dir)
        content_stores = registered(settings.content, hooks.added.content_stores, hooks.calls)
        tls = _tls_context(settings, config_dir)
        if worker is None:
            settings = settings.model_copy(update={"workers": 1, "roles": RolesSettings()})
            worker = the_only_one(bind(settings)[0])
        settings = share_of_settings(settings)
        hints = worker.hints
        roles = {role for role in ROLES if worker.number in settings.workers_with(role)}
        deliverers, callers = (len(settings.workers_with(role)) for role in ("deliver", "webhooks"))
        addresses = {section: bound(sockets) for section, sockets in worker.sockets.items()}
        listeners = {section: listening(sockets) for section, sockets in worker.sockets.items()}
        for listener in (one for several in listeners.values() for one in several):
            resources.push_async_callback(listener.aclose)
        store = await resources.enter_async_context(
            Store.open(settings.data_dir, clock, shared=settings.workers > 1, content_stores=content_stores)
        )
        simulated = settings.dns.simulated
        resolver = simulated_resolver(settings, config_dir) if simulated else Resolver(settings.dns)
        policies = MtaStsPolicies(resolver, store, clock)
        network = Network(
            resolver=resolver,
            policies=policies,
            clock=clock,
            shaper=Shaper(partial(shape_shared, hooks.gateway, deliverers)),
        )
        transports = called_transports(configured, network, hooks)
        offload = await resources.enter_async_context(Offload.open())
        template_workers = await resources.enter_async_context(Offload.open(templates.LIMIT))

        # Hints from those who write to those who wait for it; polling makes up for any that is lost.
        queued, happened, called = Wakeup(), Wakeup(), Wakeup()
        mail_came = queued.set if "deliver" in roles else partial(hints.tell, "mail")
        calls_came = called.set if "webhooks" in roles else partial(hints.tell, "calls")

        streamed = Bell()

        def events_came() -> None:
            happened.set()
            streamed.ring()

        def tell_of_events(calls: bool = True) -> None:
            events_came()
            if calls:
                calls_came()
            hints.tell("events")

        counts = Counts()
        counts.limits(network.shaper.counters)
        exchange = Exchange(
            worker,
            datadir.control_socket(settings.data_dir).parent,
            lambda: Numbers(collect(counts, hooks), {(plugin, hook): t for plugin, hook, t in hooks.calls}),
        )

        async def plugin_page() -> Sequence[Mapping[str, Any]]:
            return tally_rows(hooks, await exchange.tallies())

        directory = Directory(settings)
        authenticator = Authenticator(
            directory,
            store,
            clock,
            plugins=hooks.gateway.authenticate,
            changed=partial(hints.tell, "logins"),
            failed=hints.tell_failed_login,
        )
        holding = HoldRules(store, clock)
        notices = Notices(settings, store, offload)
        operations = QueueOperations(
            settings, transports.keys(), store, clock, notices, mail_came, tell_of_events
        )
        submitter = Submitter(settings, directory, hooks, store, holding, clock, mail_came, counts.submission)
        submission = SmtpSubmission(settings, directory, submitter, clock, offload, settings.data_dir)
        logins = SaslLogins(authenticator)
        attempts = Attempts(
            settings, directory, hooks, transports, store, clock, notices, tell_of_events, counts.attempt
        )
        scheduler = QueueScheduler(
            worker.owner,
            settings.queue,
            attempts,
            store,
            clock,
            queued,
            crowded=partial(hints.tell, "mail") if deliverers > 1 else None,
        )
        verifier = Verifier(settings.hostname, resolver, offload, clock) if settings.smtp.verify else None
        receiver = Receiver(
            settings, directory, hooks, store, clock, offload, tell_of_events, verifier, counts.received.inc
        )
        calls = CallOperations(settings, store, clock, calls_came)
        client = await resources.enter_async_context(
            WebhookClient(timeout=settings.webhooks.timeout, allow_networks=settings.webhooks.allow_networks)
        )
        caller = Caller(settings, hooks, client)
        urls = WebhookUrls(settings, store, clock, caller)
        sender = WebhookSender(
            worker.owner,
            settings,
            caller,
            store,
            clock,
            called,
            offload,
            counts.webhook_call,
            crowded=partial(hints.tell, "calls") if callers > 1 else None,
        )
        teller = EventTeller(settings, hooks, store, offload, happened)
        mailboxes = Mailboxes(settings, store)
        suppressions = SuppressionLists(hooks, store, clock)
        unsubscriber = Unsubscriber(settings, hooks, store, clock, tell_of_events)
        web = WebApp(
            Services(
                settings=settings,
                accounts=authenticator,
                directory=directory,
                submitter=submitter,
                messages=mailboxes,
                suppressions=suppressions,
                templates=templates.Templates(
                    store, clock, hooks.added.template_engines, template_workers, hooks.calls
                ),
                unsubscriber=unsubscriber,
                webhooks=calls,
                webhook_urls=urls,
                queue=AccountQueue(store, operations),
                events=EventLog(caller, store, offload, streamed),
                clock=clock,
                offload=offload,
            ),
            methods=all_methods(hooks),
            pages=added_pages(hooks),
            example_login=example_login,
            plugins=plugin_page if settings.web.operator_pages else None,
        )
        running = Gateway(
            settings=settings,
            clock=clock,
            store=store,
            hooks=hooks,
            authenticator=authenticator,
            submitter=submitter,
            mailboxes=mailboxes,
            holding=holding,
            operations=operations,
            calls=calls,
            webhook_urls=urls,
            suppressions=suppressions,
            addresses=addresses,
        )
        control = ControlApp(
            QueueCommands(store, clock, operations),
            HoldRuleCommands(settings, holding),
            WebhookCommands(store, clock, calls, urls),
            SuppressionCommands(settings, suppressions, clock),
            AccountCommands(settings, authenticator, clock),
            PluginCommands(settings, hooks, clock, store, holding, exchange.tallies),
        )

        recoveries = (
            Recovery("attempts", queue.recover, store, clock, mail_came),
            Recovery("webhook calls", webhook_calls.recover, store, clock, calls_came),
        )
        for recovery in recoveries:
            await recovery.recover_dead(worker.knows_gone)
        if prepare is not None:
            await prepare(authenticator)
        context = GatewayContext(hostname=settings.hostname, data_dir=settings.data_dir, now=clock.now)
        await resources.enter_async_context(_started(hooks, context))
        await resources.enter_async_context(lifespan(web))

        http = _http_settings(settings)
        smtp_settings = _smtp_settings(settings, settings.smtp, settings.smtp.max_message_size, tls)
        with_starttls = replace(
            _smtp_settings(settings, settings.submission, settings.queue.max_message_size, tls),
            more_extensions=submission.extensions,
            login_without_tls=settings.submission.login_without_tls,
        )
        with_tls = replace(with_starttls, tls_at_once=True)

        heard: dict[Hint, Callable[[], None]] = {
            "mail": scheduler.look,
            "calls": sender.look,
            "events": events_came,
            "logins": authenticator.forget_all,
        }
        background: list[Background] = [
            clock.serve,
            partial(hints.serve, heard, authenticator.count_failure),
            exchange.serve,
        ]
        services: list[Service] = []
        if "webhooks" in roles:
            services.append(sender.serve)
        if "deliver" in roles:
            services.append(scheduler.serve)
            background.append(DeferredMail(hooks.calls, store, clock, queued.set).serve)
            background += [transport.serve for transport in transports.values()]
        on_listeners: Mapping[str, Callable[..., Coroutine[Any, Any, None]]] = {
            "smtp": partial(serve_smtp, settings=smtp_settings, handler=receiver),
            "web": partial(serve_http, app=web, settings=http),
            "submission": partial(serve_smtp, settings=with_starttls, handler=submission, logins=logins),
            "submissions": partial(serve_smtp, settings=with_tls, handler=submission, logins=logins),
        }
        for section, serve in on_listeners.items():
            if listeners[section]:
                services.append(partial(serve, listeners[section], connected=counts.connection(section)))
        if worker.first:
            control_listener = await open_unix(datadir.control_socket(settings.data_dir))
            resources.push_async_callback(control_listener.aclose)
            services += [teller.serve, partial(serve_http, [control_listener], control, http)]
            background += [
                partial(clean_up, store, clock),
                *(recovery.serve for recovery in recoveries),
                holding.finish,
                policies.serve,
            ]
            if listeners["metrics"]:
                metrics = Metrics(exchange.metrics, store, clock)
                background.append(
                    partial(serve_http, listeners["metrics"], metrics, http, stopping=trio.Event())
                )
            for name, (plugin, service) in hooks.added.services.items():
                tally = hooks.calls[plugin, "services"]
                background.append(partial(serve_service, plugin, name, service, context, tally))
        async with served(background, services, (queued, happened, called), settings.grace):
            yield running


@asynccontextmanager
async def _started(hooks: Hooks, context: GatewayContext) -> AsyncIterator[None]:
    """Tells plugins of the start and, however it comes, of the stop. Raises StartError."""
    try:
        await hooks.gateway.start(gateway=context)
    except PluginError as exc:
        raise StartError(f"{exc}; repair it, or take it out of the plugin sets") from exc
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            try:
                await hooks.gateway.stop(gateway=context)
            except PluginError as exc:
                log.debug("stopping nevertheless: %s", exc)  # it is in the log


def _tls_context(settings: Settings, config_dir: Path) -> TlsContext | None:
    """Raises ConfigError."""
    certificate, key = settings.tls.certificate, settings.tls.key
    if not certificate:
        return None
    return RenewedCertificate(config_dir / certificate, config_dir / key).context


def _smtp_settings(
    settings: Settings, section: SmtpSettings | SubmissionSettings, max_size: int, tls: TlsContext | None
) -> ServerSettings:
    return ServerSettings(
        limits=ServerLimits(
            settings.hostname, max_message_size=max_size, max_recipients=section.max_recipients
        ),
        tls=tls,
        max_connections=section.max_connections,
        max_connections_per_network=section.max_connections_per_network,
        command_timeout=section.command_timeout,
        grace=settings.grace,
    )


def _http_settings(settings: Settings) -> HttpSettings:
    return HttpSettings(
        max_connections=settings.web.max_connections,
        body_timeout=settings.web.request_timeout,
        grace=settings.grace,
    )
