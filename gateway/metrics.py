"""What the gateway counts, and the text in which Prometheus reads it, on a listener of its own.

Each gateway has a registry of its own; nothing is global. What plugins add is collected with it, and a
collector that fails is left out of that answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.clock import Clock
from gateway.errors import PluginError, StoreError
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call, Calls, Nonsense, ask_plain
from gateway.hooks.registered import registered_call
from gateway.hooks.stages import Hooks
from gateway.hookspecs.additions import OWN_METRICS, Collector
from gateway.net.shaping import ShapingCounters
from gateway.store import listing, tables
from gateway.store.store import Store

PATH = "/metrics"
HOOK = "metrics"

log = logging.getLogger(__name__)


class Counts:
    """What the parts of the gateway count as it happens."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.attempts = Counter(
            "gateway_attempts",
            "Attempts at messages, by what they came to.",
            ["event"],
            registry=self.registry,
        )
        self.submissions = Counter(
            "gateway_submissions", "Submissions queued.", ["via"], registry=self.registry
        )
        self.received = Counter(
            "gateway_received", "Messages taken from other servers.", registry=self.registry
        )
        self.webhook_calls = Counter(
            "gateway_webhook_calls", "Requests of webhook calls.", ["result"], registry=self.registry
        )
        self.connections = Gauge(
            "gateway_connections", "Connections that are open.", ["listener"], registry=self.registry
        )

    def attempt(self, event: str) -> None:
        self.attempts.labels(event).inc()

    def submission(self, via: str) -> None:
        self.submissions.labels(via).inc()

    def webhook_call(self, result: str) -> None:
        self.webhook_calls.labels(result).inc()

    def limits(self, counters: ShapingCounters) -> None:
        """What limits of destinations come to is counted there."""
        self.registry.register(_Limits(counters))

    def connection(self, listener: str) -> Callable[[int], None]:
        """To be called with 1 when a connection begins, and with -1 when it ends."""
        return self.connections.labels(listener).inc


class _Limits:
    """Reads what a Shaper counts, when it is asked for."""

    def __init__(self, counters: ShapingCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        counted = CounterMetricFamily(
            "gateway_limits", "What limits of destinations came to.", labels=["event"]
        )
        for event, count in (
            ("wait", self._counters.waits),
            ("refusal", self._counters.refusals),
            ("slowdown", self._counters.slowdowns),
        ):
            counted.add_metric([event], count)
        yield counted


class Metrics:
    """The ASGI application that answers GET /metrics.

    `counted`: the metrics of all workers.
    """

    def __init__(
        self, counted: Callable[[], Awaitable[Sequence[Metric]]], store: Store, clock: Clock
    ) -> None:
        self._counted, self._store, self._clock = counted, store, clock

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 404, b"there is only GET /metrics\n", "text/plain; charset=utf-8")
            return
        body = await self.text()
        await _answer(send, 200, b"" if scope["method"] == "HEAD" else body, CONTENT_TYPE_PLAIN_0_0_4)

    async def text(self) -> bytes:
        """The values of now."""
        now = self._clock.now()
        metrics = list(await self._counted())
        try:
            metrics.append(_queue(await self._store.read(lambda conn: _messages(conn, now))))
        except StoreError as exc:
            log.warning("the queue's numbers are missing from the metrics: %s", exc)
        return _text(metrics)


def collect(counts: Counts, hooks: Hooks) -> list[Metric]:
    """What this process counts, and what its plugins add."""
    metrics = [*counts.registry.collect(), *_plugins(hooks.calls)]
    for plugin, collector in hooks.added.metrics:
        collecting = _collecting(plugin, collector, hooks.calls[plugin, HOOK])
        with suppress(PluginError):
            metrics += ask_plain(collecting, ({metric.name for metric in metrics},))
    return metrics


def _collecting(plugin: str, collector: Collector, tally: Tally) -> Call:
    """Asks for what a plugin's collector has, by itself, so that it can spoil nothing else.

    Of two metrics of one name, Prometheus would refuse all.
    """

    def collect(taken: Set[str]) -> tuple[Metric, ...]:
        found = tuple(collector.collect())
        names = {family.name for family in found}
        if twice := sorted(name for name in names if name in taken or name.startswith(OWN_METRICS)):
            raise Nonsense(f"the metric {twice[0]!r} is there already, and left out; choose another")
        _text(found)
        return found

    return registered_call(plugin, HOOK, "", collect, arguments=("taken",), tally=tally, plain=True)


class _Families:
    """As a registry takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(metrics: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(metrics))
    return generate_latest(registry)


def _messages(conn: sa.Connection, now: Any) -> Mapping[str, int]:
    message = tables.message
    due = (
        sa.select(sa.func.count())
        .select_from(message)
        .where(sa.text(tables.MESSAGE_READY), message.c.next_attempt <= now)
    )
    return {
        "queued": listing.counts(conn)["queued"],
        "held": listing.count_held(conn),
        "due": conn.execute(due).scalar_one(),
    }


def _queue(messages: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "gateway_queue_messages", "Messages in the queue; of them held, and due.", labels=["state"]
    )
    for state, count in messages.items():
        family.add_metric([state], count)
    return family


_COUNTED = (
    ("calls", "Calls of a plugin's hook."),
    ("failures", "Calls that failed, time-outs included."),
    ("timeouts", "Calls that took longer than their time limit."),
    ("slow", "Times that it stopped the event loop for over 0.1 s."),
    ("skipped", "Calls that were not made, because the hook was suspended."),
    ("seconds", "Time that calls took, in seconds."),
)


def _plugins(calls: Calls) -> Iterable[Metric]:
    """The tallies of plugins' hooks."""
    labels = ["plugin", "hook"]
    for name, text in _COUNTED:
        counted = CounterMetricFamily(f"gateway_plugin_{name}", text, labels=labels)
        for plugin, hook, tally in calls:
            counted.add_metric([plugin, hook], getattr(tally, name))
        yield counted
    suspended = GaugeMetricFamily(
        "gateway_plugin_suspended", "1 while a plugin's hook is suspended.", labels=labels
    )
    for plugin, hook, tally in calls:
        suspended.add_metric([plugin, hook], float(tally.suspended))
    yield suspended


async def _answer(send: Callable[[Any], Awaitable[None]], status: int, body: bytes, kind: str) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
