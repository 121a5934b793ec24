"""`gateway webhook-receiver`: shows each webhook that it gets, for development and for scripts."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import click
import trio

from gateway.config.values import Listen
from gateway.errors import StartError
from gateway.net.listeners import bind_to, bound, listening
from gateway.web.server import ASGIApp, HttpSettings, serve_http

# Bytes; an incoming message's Text and HTML, 1 MiB each, may grow sixfold in JSON.
MAX_BODY = 32 * 1024 * 1024
MAX_SHOWN = 300  # characters of any one value
TEXT_LINES = 5  # of an incoming message
_HELLO = b"This is a webhook receiver. Webhooks are POSTed to any path here.\n"

_GOOD = {"delivered", "relayed", "expanded", "incoming"}
_BAD = {"failed", "suppressed", "complained"}


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came."""

    time: datetime
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def payload(self) -> Any:
        """The parsed JSON. Raises ValueError."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def as_json(self) -> str:
        """One line: Time, Path, Headers, and Payload, or Body as text if that is no JSON."""
        line: dict[str, Any] = {
            "Time": self.time.isoformat().replace("+00:00", "Z"),
            "Path": self.path,
            "Headers": self.headers,
        }
        try:
            line["Payload"] = self.payload()
            return json.dumps(line)
        except (ValueError, RecursionError):
            line.pop("Payload", None)
            line["Body"] = self.body.decode("utf-8", "replace")
            return json.dumps(line)

    def as_text(self) -> str:
        """A line that says what happened, and indented ones with the details."""
        clock = click.style(f"{self.time.astimezone():%H:%M:%S}", dim=True)
        try:
            payload = self.payload()
        except ValueError as exc:
            start = self.body[:MAX_SHOWN].decode("utf-8", "replace")
            return f"{clock}  {_name('not JSON')}  {_clean(exc)}\n{_detail('body', start)}"
        if not isinstance(payload, dict):
            return f"{clock}  {_name('no object')}  {_clean(payload)}"
        if isinstance(payload.get("Meta"), dict):
            first, details = _incoming(payload, payload["Meta"])
        else:
            first, details = _outgoing(payload)
        attempt = self.headers.get("x-mox-webhook-attempt", "")
        if attempt not in ("", "1"):
            details.append(
                ("webhook", f"attempt {attempt} of call {self.headers.get('x-mox-webhook-id', '')}")
            )
        return "\n".join([f"{clock}  {first}", *(_detail(name, value) for name, value in details if value)])


def _outgoing(payload: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    codes = " ".join(_clean(payload[key]) for key in ("SMTPCode", "SMTPEnhancedCode") if payload.get(key))
    parts = [
        _name(payload.get("Event", "?")),
        _clean(payload.get("Recipient", "")),
        codes,
        _quoted(payload.get("Subject")),
    ]
    extra = payload.get("Extra")
    notes = [
        text for key, text in (("DSN", "by a DSN"), ("Suppressing", "address suppressed")) if payload.get(key)
    ]
    return "  ".join(part for part in parts if part), [
        ("error", payload.get("Error")),
        (
            "message",
            " ".join(_clean(payload[key]) for key in ("QueueMsgID", "MessageID") if payload.get(key)),
        ),
        ("FromID", payload.get("FromID")),
        ("attempt", payload.get("Attempt")),
        ("host", payload.get("RemoteMTA")),
        ("note", ", ".join(notes)),
        ("extra", ", ".join(f"{k}={v}" for k, v in extra.items()) if isinstance(extra, dict) else extra),
    ]


def _incoming(payload: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    way = f"{_addresses(payload.get('From'))} → {_clean(meta.get('RcptTo', ''))}"
    parts = [_name("incoming"), way, _quoted(payload.get("Subject"))]
    checks = [
        text for key, text in (("MailFromValidated", "SPF"), ("MsgFromValidated", "From")) if meta.get(key)
    ]
    dkim = meta.get("DKIMVerifiedDomains")
    if isinstance(dkim, list):
        checks += [f"DKIM {domain}" for domain in dkim]
    text = payload.get("Text") or payload.get("HTML")
    lines = [line for line in text.splitlines() if line.strip()] if isinstance(text, str) else []
    return "  ".join(part for part in parts if part), [
        ("message", " ".join(_clean(v) for v in (meta.get("MsgID"), payload.get("MessageID")) if v)),
        ("to", _addresses(payload.get("To"))),
        ("reply to", payload.get("InReplyTo")),
        ("mailbox", meta.get("MailboxName")),
        ("verified", ", ".join(checks)),
        ("note", "automated" if meta.get("Automated") else ""),
        *(("text", line) for line in lines[:TEXT_LINES]),
        ("text", f"({len(lines) - TEXT_LINES} more lines)" if len(lines) > TEXT_LINES else ""),
    ]


def _addresses(value: object) -> str:
    """A list of {Name, Address}."""
    if not isinstance(value, list):
        return _clean(value or "")
    return ", ".join(_clean(a.get("Address", "")) for a in value if isinstance(a, dict))


def _name(event: object) -> str:
    name = _clean(event)
    colour = "green" if name in _GOOD else "red" if name in _BAD else "yellow"
    return click.style(f"{name:<12}", fg=colour, bold=True)


def _quoted(subject: object) -> str:
    return f'"{_clean(subject)}"' if subject else ""


def _detail(name: str, value: object) -> str:
    return f"    {click.style(f'{name:<9}', dim=True)} {_clean(value)}"


_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _clean(value: object) -> str:
    """Text that a stranger wrote, safe for a terminal and of bearable length."""
    text = str(value)
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "..."
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class Receiver:
    """The ASGI application: prints each webhook, then answers `status` after `delay` seconds.

    When what it prints to is gone, `stopping` is set.
    """

    def __init__(
        self, *, as_json: bool, color: bool | None, status: int, delay: float, stopping: trio.Event
    ) -> None:
        self._as_json, self._color, self._status, self._delay = as_json, color, status, delay
        self._stopping = stopping

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "POST":
            await _answer(send, 200, _HELLO)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                await _answer(send, 413, b"larger than any webhook\n")
                return
            if not message.get("more_body"):
                break
        headers = {k.decode("latin-1").lower(): v.decode("utf-8", "replace") for k, v in scope["headers"]}
        self._show(Received(datetime.now(UTC), scope["path"], headers, bytes(body)))
        await trio.sleep(self._delay)
        await _answer(send, self._status, b"")

    def _show(self, received: Received) -> None:
        try:
            click.echo(received.as_json() if self._as_json else received.as_text(), color=self._color)
        except OSError:  # such as the other end of a pipe
            self._stopping.set()


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    if status == 204:
        headers = []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve(listen: Listen, app: ASGIApp, stopping: trio.Event) -> None:
    sockets = bind_to(listen, "webhooks")
    click.echo(f"Webhooks are shown from http://{bound(sockets)[0]}/ (any path); Ctrl-C stops.", err=True)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for _ in signals:
                    stopping.set()

            nursery.start_soon(stop_at_signal)
            # Whoever stops it has seen enough: answers that --delay still holds back are not waited for.
            await serve_http(
                listening(sockets), app, HttpSettings(grace=0.5, body_timeout=60.0), stopping=stopping
            )
            nursery.cancel_scope.cancel()


@click.command("webhook-receiver")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9090, show_default=True, help="0: any free port."
)
@click.option("--ip", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each webhook.")
@click.option(
    "--status",
    type=click.IntRange(200, 599),
    default=200,
    show_default=True,
    help="The HTTP status to answer.",
)
@click.option(
    "--delay", type=click.FloatRange(0, 3600), default=0.0, help="Seconds to wait before answering."
)
@click.option("--no-color", is_flag=True, help="No colours, even on a terminal.")
def webhook_receiver(port: int, ip: str, as_json: bool, status: int, delay: float, no_color: bool) -> None:
    """Shows each webhook that it gets.

    \b
    Example: set an account's webhooks to http://127.0.0.1:9090/ and run
        gateway webhook-receiver
    or, for a script, a receiver that always fails:
        gateway webhook-receiver --json --status 500 | jq .Payload.Event
    """
    try:
        ip_address(ip)
    except ValueError:
        raise click.BadParameter(f"{ip!r} is no IP address", param_hint="--ip") from None
    # None: colours on a terminal only.
    color = False if no_color or os.environ.get("NO_COLOR") else None

    async def run() -> None:
        stopping = trio.Event()
        app = Receiver(as_json=as_json, color=color, status=status, delay=delay, stopping=stopping)
        await _serve(Listen(host=ip, port=port), app, stopping)

    try:
        trio.run(run)
    except StartError as exc:
        raise click.ClickException(str(exc)) from None
