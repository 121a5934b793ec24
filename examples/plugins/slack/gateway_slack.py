"""Webhooks that chat services show as they are: Slack, Mattermost, and others that take {"text": ...}."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from gateway import Event, EventName, IncomingEvent, WebhookBody, hookimpl

FORMAT = "slack"  # of [[accounts.NAME.webhooks]]
MARKS = {"delivered": ":white_check_mark:", "failed": ":x:", "complained": ":rage:", "delayed": ":hourglass:"}
MAX_TEXT = 1000  # characters of a subject or an error; they are others' text


class SlackSettings(BaseModel):
    """[plugin."example.slack"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: tuple[EventName, ...] = ()  # that are told, of those that the URL has; none listed means all
    channel: str = ""  # in place of the URL's own


class Slack:
    Settings = SlackSettings

    @hookimpl
    def format_webhook(
        self, event: Event | IncomingEvent, format_name: str, settings: SlackSettings
    ) -> WebhookBody | bool | None:
        if format_name != FORMAT:
            return None  # another plugin's
        if isinstance(event, Event) and settings.events and event.name not in settings.events:
            return False  # no call for this one
        body = {"text": _sent(event) if isinstance(event, Event) else _arrived(event)}
        if settings.channel:
            body["channel"] = settings.channel
        return WebhookBody(json.dumps(body, ensure_ascii=False).encode(), "application/json; charset=utf-8")


def _sent(event: Event) -> str:
    mark = MARKS.get(event.name, ":envelope:")
    text = f"{mark} *{event.name}*: {_plain(event.subject)} to {_plain(event.recipient)}"
    return f"{text}\n> {_plain(event.error)}" if event.error else text


def _arrived(event: IncomingEvent) -> str:
    return f":inbox_tray: {_plain(event.parsed.summary.subject)} from {_plain(event.message.msg_from)}"


def _plain(text: str) -> str:
    """Others' text, which must neither mention anybody nor be a link: three characters are escaped."""
    line = " ".join(text.split())[:MAX_TEXT]
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
