"""`gateway localserve`: a gateway for development, in one command without configuration."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from string import Template
from typing import Any

import click
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway import __version__, app
from gateway.accounts import Authenticator
from gateway.cli.common import CONFIG_FILE, CommandError, dir_option
from gateway.config.load import parse, read_toml
from gateway.config.settings import Settings
from gateway.errors import GatewayError, StartError
from gateway.logs import set_up_logging

ACCOUNT, LOGIN, PASSWORD = "mox", "mox@localhost", "moxmoxmox"
PORT_BASE = 1000
RECEIVER = "http://localhost:9090/"
TEMPLATE = Path(__file__).parent.parent / "config" / "localserve.toml"


@click.command()
@dir_option
@click.option("--ip", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port-base",
    type=click.IntRange(0, 64000),
    help="Added to the standard ports: SMTP 25, HTTP 80.  [default: 1000]",
)
@click.option("--webhook-out", help=f"URL for events of sent messages.  [default: {RECEIVER}]")
@click.option("--webhook-in", help=f"URL for messages that arrive.  [default: {RECEIVER}]")
@click.option("--no-color", is_flag=True, help="No colours, whatever the terminal.")
def localserve(
    directory: Path,
    ip: str | None,
    port_base: int | None,
    webhook_out: str | None,
    webhook_in: str | None,
    no_color: bool,
) -> None:
    """Run a gateway for development: everything that is sent is delivered to this server itself.

    The first start writes a commented gateway.toml into the directory; later starts use it. Options given
    then count for that start only.

    \b
    Example: gateway localserve --dir /tmp/mail --port-base 2000
    """
    chosen = {"ip": ip, "port_base": port_base, "webhook_out": webhook_out, "webhook_in": webhook_in}
    color = not no_color and "NO_COLOR" not in os.environ and sys.stdout.isatty()
    config = directory / CONFIG_FILE
    try:
        if not config.exists():
            first_start(directory, ip, port_base, webhook_out, webhook_in)
        settings = parse(_override(read_toml(config), chosen), config)
        set_up_logging(settings.log_level, color=color)
        trio.run(_serve, settings, directory, color)
    except KeyboardInterrupt:
        sys.exit(130)
    except GatewayError as exc:
        raise CommandError(str(exc)) from None
    except BaseExceptionGroup as group:
        foreseen = group.subgroup(GatewayError)
        if foreseen is None:
            raise
        raise CommandError(str(_first(foreseen))) from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def first_start(
    directory: Path, ip: str | None, port_base: int | None, out: str | None, into: str | None
) -> None:
    """Write the configuration and the signing key; the configuration last, for with it the rest is there."""
    ip = ip or "127.0.0.1"
    smtp_port, web_port = _ports(port_base)
    try:
        (directory / "dkim").mkdir(mode=0o700, parents=True, exist_ok=True)
        key = directory / "dkim" / "localhost.pem"
        if not key.exists():  # a configuration that was deleted is no reason for another key
            _write(key, new_signing_key())
        text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
            smtp=_listen(ip, smtp_port),
            web=_listen(ip, web_port),
            ip=ip,
            smtp_port=smtp_port,
            webhook_out=out or RECEIVER,
            webhook_in=into or RECEIVER,
        )
        _write(directory / CONFIG_FILE, text.encode())
    except OSError as exc:
        raise StartError(
            f"{directory}: cannot be written ({exc.strerror}); give one that you may write to with --dir"
        ) from None


def new_signing_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _ports(base: int | None) -> tuple[int, int]:
    base = PORT_BASE if base is None else base
    return base + 25, base + 80


def _listen(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _override(raw: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """The file's tables with what was given on the command line laid over them."""
    if chosen["ip"] or chosen["port_base"] is not None:
        transport = raw.get("transports", {}).get("localserve", {})
        ip = chosen["ip"] or transport.get("host", "127.0.0.1")
        smtp_port, web_port = _ports(chosen["port_base"])
        if chosen["port_base"] is None:  # keep the file's ports
            smtp_port = transport.get("port", smtp_port)
            listen = raw.get("web", {}).get("listen") or [_listen(ip, web_port)]
            web_port = int(str(listen[0]).rpartition(":")[2])
        raw.setdefault("smtp", {})["listen"] = [_listen(ip, smtp_port)]
        raw.setdefault("web", {})["listen"] = [_listen(ip, web_port)]
        transport.update(host=ip, port=smtp_port)
    account = raw.get("accounts", {}).get(ACCOUNT, {})
    for option in ("webhook_out", "webhook_in"):
        if chosen[option]:
            name = {"webhook_out": "webhook_outgoing", "webhook_in": "webhook_incoming"}[option]
            account.setdefault(name, {})["url"] = chosen[option]
    return raw


async def _serve(settings: Settings, directory: Path, color: bool) -> None:
    async with app.serving(
        settings, directory, prepare=_set_password, example_login=f"{LOGIN}:{PASSWORD}"
    ) as gateway:
        click.echo(_banner(gateway, directory, color))
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(1))
        logging.getLogger(__name__).info(
            "stopping: what is under way has %.0f seconds; a second signal stops at once", settings.grace
        )


async def _set_password(authenticator: Authenticator) -> None:
    if not await authenticator.has_password(ACCOUNT):
        await authenticator.set_password(ACCOUNT, PASSWORD)


def _banner(gateway: app.Gateway, directory: Path, color: bool) -> str:
    def bold(text: str) -> str:
        return click.style(text, bold=True) if color else text

    settings = gateway.settings
    web = gateway.web_addresses[0]
    host = "localhost" if web.host in ("127.0.0.1", "::1") else str(web).rpartition(":")[0]
    api = f"http://{host}:{web.port}{settings.web.base_path}"
    request = '{"To": [{"Address": "user@example.org"}], "Subject": "hi", "Text": "hello"}'
    curl = f"curl --user {LOGIN}:{PASSWORD} --data request={shlex.quote(request)} {api}Send"
    account = settings.accounts.get(ACCOUNT)
    outgoing = account.webhook_outgoing.url if account and account.webhook_outgoing else "none"
    incoming = account.webhook_incoming.url if account and account.webhook_incoming else "none"
    hooks = outgoing if outgoing == incoming else f"{outgoing} (sent), {incoming} (received)"
    lines = (
        bold(
            f"Mail gateway {__version__}, for development: what is sent is delivered to this server itself."
        ),
        "",
        f"  SMTP      {', '.join(map(str, gateway.smtp_addresses))}",
        f"  Web API   {api}",
        f"  Account   {LOGIN}, password {PASSWORD}",
        f"  Webhooks  {hooks}",
        f"  Settings  {directory / CONFIG_FILE}",
        "",
        "Send a message:",
        "",
        f"  {curl}",
        "",
        "See the webhooks, in another terminal:  gateway webhook-receiver --port 9090",
        "See the queue:                          gateway queue list",
        "Stop:                                   Ctrl-C",
    )
    return "\n".join(lines)
