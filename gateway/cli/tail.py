"""`gateway tail`: an account's events as they happen."""

from __future__ import annotations

import json
import logging
import os
import secrets as random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import trio

from gateway.cli.common import CONFIG_FILE, EVENTS, CommandError, ask, dir_option, printable, reached_at
from gateway.client.exchange import ApiError
from gateway.client.stream import Streamed, follow
from gateway.config.load import load
from gateway.errors import GatewayError

COLORS = {
    "delivered": "green", "relayed": "green", "expanded": "green", "delayed": "yellow",
    "failed": "red", "suppressed": "magenta", "complained": "red", "unsubscribed": "magenta",
    "canceled": "cyan", "unrecognized": "cyan", "incoming": "blue",
}  # fmt: skip
KEY_LASTS = 86400.0  # seconds


@click.command()
@dir_option
@click.option("--account", default="", help="Account name; not needed where there is only one.")
@click.option(
    "--event", "events", type=click.Choice(EVENTS), multiple=True, help="Only these; may be given again."
)
@click.option("--cursor", help="Go on after an event: its Cursor. Empty: all that are kept.")
@click.option("--url", default="", help="Another gateway's API, with an API key in $GATEWAY_KEY.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event, with its Cursor.")
@click.option("--no-color", is_flag=True, help="No colours, even on a terminal.")
def tail(
    directory: Path,
    account: str,
    events: tuple[str, ...],
    cursor: str | None,
    url: str,
    as_json: bool,
    no_color: bool,
) -> None:
    """Show an account's events as they happen, until Ctrl-C. After a broken connection it goes on.

    \b
    Example: gateway tail --event failed --event delayed
    """
    logging.basicConfig(level=logging.WARNING, format="gateway: %(message)s")
    color = False if no_color or os.environ.get("NO_COLOR") else None

    # So that its key is revoked then, too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    async def tell(streamed: Streamed) -> None:
        if streamed.payload is None:
            return
        if as_json:
            click.echo(json.dumps({"Cursor": streamed.cursor, "Event": streamed.payload}))
        else:
            click.echo(line(streamed.payload), color=color)

    async def run(url: str, secret: str) -> None:
        failed: list[Exception] = []  # out of a nursery it would come as a group
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def stop() -> None:
                    # KeyboardInterrupt could be raised, and lost, in what serves the WebSocket.
                    await anext(aiter(signals))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(stop)
                try:
                    await follow(url, secret, tell=tell, cursor=cursor, events=events)
                except Exception as exc:
                    failed.append(exc)
                nursery.cancel_scope.cancel()
        if failed:
            raise failed[0]

    try:
        if url:
            secret = os.environ.get("GATEWAY_KEY", "")
            if not secret:
                raise CommandError("--url needs an API key with the scope events in $GATEWAY_KEY")
            trio.run(run, url.rstrip("/") + "/", secret)
        else:
            with _key(directory, account) as secret:
                trio.run(run, _api(directory), secret)
    except (KeyboardInterrupt, BaseExceptionGroup) as exc:
        if isinstance(exc, BaseExceptionGroup) and exc.split(KeyboardInterrupt)[1] is not None:
            raise
    except ApiError as exc:
        raise CommandError(str(exc)) from None


def line(payload: dict[str, Any]) -> str:
    """An event as people read it; nothing of a stranger's text can move the cursor."""
    if "Event" not in payload:
        meta = payload["Meta"]
        time, name, who = meta["Received"], "incoming", f"{meta['MailFrom'] or '<>'} -> {meta['RcptTo']}"
        rest = f"{payload['Subject']} MsgID={meta['MsgID']}"
    else:
        time, name, who = payload["WebhookQueued"], payload["Event"], payload["Recipient"]
        code = f"{payload['SMTPCode']} {payload['SMTPEnhancedCode']} " if payload["SMTPCode"] else ""
        rest = f"{payload['Subject']} QueueMsgID={payload['QueueMsgID']} {code}{payload['Error']}"
    name_shown = click.style(f"{name:<12}", fg=COLORS.get(name), bold=name in ("failed", "complained"))
    return f"{time[:19]} {name_shown} {printable(who)}  {printable(rest)}".rstrip()


@contextmanager
def _key(directory: Path, account: str) -> Iterator[str]:
    """An API key for as long as it is wanted, which the running gateway makes and revokes."""
    if not account:
        accounts = list(_settings(directory).accounts)
        if len(accounts) != 1:
            raise CommandError(
                f"say which account, with --account; there are: {', '.join(accounts) or 'none'}"
            )
        account = accounts[0]
    name = f"tail-{random.token_hex(4)}"
    wanted = {"Account": account, "Name": name, "Scopes": ["events"], "Seconds": KEY_LASTS}
    secret: str = ask(directory, "account/keys/add", wanted)["Key"]
    try:
        yield secret
    finally:
        ask(directory, "account/keys/revoke", {"Account": account, "Name": name})


def _api(directory: Path) -> str:
    """Where this machine reaches the API."""
    web = _settings(directory).web
    [listen, *_] = web.listen
    reached = listen.model_copy(update={"host": reached_at(listen.host)})
    return f"http://{reached}{web.base_path}"


def _settings(directory: Path) -> Any:
    try:
        return load(directory / CONFIG_FILE)
    except GatewayError as exc:
        raise CommandError(str(exc)) from None
