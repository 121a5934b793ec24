"""Plugins, a configuration that has them, and messages to ask them about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
    testing,
)
from gateway.config.settings import Settings
from gateway.hooks.stages import Hooks, Stages
from gateway.mail.report_source import read_source
from gateway.plugins.loading import load_plugins

NOW = testing.NOW
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
    return replace(testing.submission(), **changes)  # whatever their types


def a_message() -> QueuedMessage:
    return testing.queued_message()


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
    return testing.delivery(id=a_message().id)


def an_event() -> Event:
    return testing.event()


def a_webhook_call() -> WebhookCall:
    return testing.webhook_call()


def a_reception() -> Reception:
    return testing.reception()


def a_report() -> IncomingReport:
    return IncomingReport(
        account="app",
        mail_from=None,
        rcpt_to=Address.parse("app@example.org"),
        details=(),
        message_id="<1@mx.example>",
        subject="hi",
        dsn=None,
        content=testing.TextContent(b""),
    )


def a_source(data: bytes = b"Subject: hi\r\n\r\nhello\r\n") -> ReportSource:
    return read_source(data)


def a_failure() -> Outcome:
    return Outcome.temporary("try later", code=451)
