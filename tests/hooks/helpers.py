"""Plugins, a configuration that has them, and messages to ask them about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway import (
    Address,
    Delivery,
    Event,
    GiveUp,
    IncomingReport,
    Outcome,
    QueuedMessage,
    Reception,
    ReportSource,
    RetryAt,
    Route,
    Submission,
    Suppression,
    TransportType,
    WebhookBody,
    WebhookCall,
    hookimpl,
)
from gateway.config.settings import Settings
from gateway.hooks import Hooks, Stages
from gateway.mail.report_source import read_source
from gateway.plugins import load_plugins

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
HERE = Path("/etc/gateway")


class Rest:
    """The last of every set here: whatever a set must have."""

    @hookimpl
    def route(self) -> Route:
        return Route("rest")

    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {}

    @hookimpl
    def retry(self) -> RetryAt | GiveUp:
        return GiveUp("rest")

    @hookimpl
    def format_webhook(self) -> WebhookBody:
        return WebhookBody(b"rest")


def configured(sets: Mapping[str, list[str]], config: Mapping[str, Any] | None = None) -> Settings:
    """A gateway with the set "test", and what `config` says besides."""
    config = config or {}
    defined = {name: {"plugins": [*plugins, "rest"]} for name, plugins in sets.items()}
    return Settings.model_validate(
        {
            "hostname": "gateway.example",
            "plugins": {"sets": ["test"]},
            **config,
            "plugin_sets": {**defined, **config.get("plugin_sets", {})},
        }
    )


def load(
    plugins: Mapping[str, object],
    config: Mapping[str, Any] | None = None,
    *,
    sets: Mapping[str, list[str]] | None = None,
    previous: Hooks | None = None,
) -> Hooks:
    """The plugins in that order, in the set "test" unless `sets` says otherwise."""
    settings = configured({"test": list(plugins)} if sets is None else sets, config)
    return load_plugins(settings, HERE, extra={**plugins, "rest": Rest()}, previous=previous)


def stages(plugins: Mapping[str, object], config: Mapping[str, Any] | None = None) -> Stages:
    return load(plugins, config).for_account("")


# --- Data ----------------------------------------------------------------------------------------


def a_submission(**changes: Any) -> Submission:
    fields: dict[str, Any] = {
        "id": "sub-1",
        "account": "app",
        "login": Address.parse("app@example.org"),
        "via": "api",
        "reverse_path": Address.parse("app@example.org"),
        "recipients": (Address.parse("you@example.net"),),
        "header_from": Address.parse("app@example.org"),
        "data": b"Subject: hi\r\n\r\nhi\r\n",
        "message_id": "<1@example.org>",
        "subject": "hi",
    }
    return Submission(**(fields | changes))


def a_message() -> QueuedMessage:
    return QueuedMessage(
        id=7,
        base_id=0,
        submission_id="sub-7",
        account="app",
        sender=Address.parse("app@example.org"),
        recipient=Address.parse("you@example.net"),
        queued=NOW,
        hold=False,
        attempts=1,
        max_attempts=0,
        next_attempt=NOW,
        last_attempt=None,
        message_id="<7@example.org>",
        subject="hi",
        size=100,
        has_8bit=False,
        smtputf8=False,
        require_tls=None,
        transport="",
        from_id="",
        env_id="",
        extra={},
    )


class NoContent:
    size = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b""

    async def read(self) -> bytes:
        return b""


def a_suppression() -> Suppression:
    return Suppression(
        id=3,
        created=NOW,
        account="app",
        base_address="you@example.net",
        original_address="you+news@example.net",
        manual=False,
        reason="failure reported by the queue: 550",
        expires=None,
    )


def a_delivery() -> Delivery:
    return Delivery(
        messages=(a_message(),),
        content=NoContent(),
        hostname="gateway.example",
        started=NOW,
        deadline=NOW + timedelta(minutes=30),
    )


def an_event() -> Event:
    return Event(
        id=1,
        time=NOW,
        account="app",
        name="delivered",
        queue_msg_id=7,
        from_id="",
        message_id="<7@example.org>",
        subject="hi",
        recipient="you@example.net",
        attempt=1,
    )


def a_webhook_call() -> WebhookCall:
    return WebhookCall(
        id=5,
        account="app",
        event="delivered",
        url="https://app.example/hook",
        format="mox",
        attempt=1,
        time=NOW,
        body=b"{}",
        secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
    )


def a_reception() -> Reception:
    return Reception(step="mail", remote_ip="192.0.2.1", helo="client.example", reverse_path=None)


def a_report() -> IncomingReport:
    return IncomingReport(
        account="app",
        mail_from=None,
        rcpt_to=Address.parse("app@example.org"),
        details=(),
        message_id="<1@mx.example>",
        subject="hi",
        dsn=None,
        content=NoContent(),
    )


def a_source(data: bytes = b"Subject: hi\r\n\r\nhello\r\n") -> ReportSource:
    return read_source(data)


def a_failure() -> Outcome:
    return Outcome.temporary("try later", code=451)
