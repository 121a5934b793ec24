"""`gateway localserve`: a gateway for development, in one command without configuration."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway import __version__
from gateway.cli.common import CONFIG_FILE, CommandError, default_dir, dir_option, reached_at
from gateway.cli.serving import run, use_color
from gateway.config.load import parse, read_toml
from gateway.config.settings import Settings
from gateway.config.values import http_url
from gateway.datadir import Locked
from gateway.errors import GatewayError, StartError
from gateway.net.certificates import self_signed
from gateway.net.listeners import Addresses
from gateway.workers.start import Example

ACCOUNT, LOGIN, PASSWORD = "mox", "mox@localhost", "moxmoxmox"
PORT_BASE = 1000
PORTS = {
    "smtp": 25,
    "submission": 587,
    "submissions": 465,
    "web": 80,
    "metrics": 81,
}  # added to it, by section
RECEIVER = "http://localhost:9090/"
TEMPLATE = Path(__file__).parent.parent / "config" / "localserve.toml"


def address(text: str) -> str:
    """An option's value."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no IP address; give one such as 127.0.0.1 or ::1") from None


def url(text: str) -> str:
    """An option's value."""
    try:
        return http_url(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command()
@dir_option
@click.option("--ip", type=address, help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port-base",
    type=click.IntRange(0, 64000),
    help="Added to the standard ports: SMTP 25, 587 and 465, HTTP 80, metrics 81.  [default: 1000]",
)
@click.option("--webhook-out", type=url, help=f"URL for events of sent messages.  [default: {RECEIVER}]")
@click.option("--webhook-in", type=url, help=f"URL for messages that arrive.  [default: {RECEIVER}]")
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
    color = use_color(not no_color)
    config = directory / CONFIG_FILE
    written = False
    try:
        if not _is_there(config):
            written = True
            first_start(directory, ip, port_base, webhook_out, webhook_in)
        raw = read_toml(config)
        parse(raw, config)  # so that what is wrong in the file is told before anything is laid over it
        settings = parse(_override(raw, chosen), config)
        run(
            settings,
            directory,
            partial(_banner, settings, directory, color),
            color=color,
            example=Example(ACCOUNT, LOGIN, PASSWORD),
        )
    except GatewayError as exc:
        raise _failed(exc, config, written) from None


def _failed(exc: BaseException, config: Path, written: bool) -> CommandError:
    """The line for a person. Options of a first start that failed are not kept for the next."""
    if written and not isinstance(exc, Locked):
        with suppress(OSError):
            config.unlink()
    return CommandError(str(exc))


def _is_there(config: Path) -> bool:
    try:
        return config.exists()
    except OSError as exc:
        raise StartError(
            f"{config}: cannot be looked for ({exc.strerror}); choose another directory with --dir"
        ) from None


def first_start(
    directory: Path, ip: str | None, port_base: int | None, out: str | None, into: str | None
) -> None:
    """Write keys, certificate and configuration; that last, for with it the rest is there."""
    ip = ip or "127.0.0.1"
    ports = _ports(port_base)
    try:
        (directory / "dkim").mkdir(mode=0o700, parents=True, exist_ok=True)
        key = directory / "dkim" / "localhost.pem"
        if not key.exists():  # a configuration that was deleted is no reason for another key
            _write(key, new_signing_key())
        (directory / "tls").mkdir(mode=0o700, exist_ok=True)
        certificate = directory / "tls" / "localhost.pem"
        if not certificate.exists():  # clients may have been told to trust it
            chain, private = self_signed(datetime.now(UTC), [ip])
            _write(directory / "tls" / "localhost.key", private)
            _write(certificate, chain)
        text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
            **{section: _listen(ip, port) for section, port in ports.items()},
            ip=reached_at(ip),
            smtp_port=ports["smtp"],
            web_url=_web_url(ip, ports["web"]),
            webhook_out=_toml(out or RECEIVER),
            webhook_in=_toml(into or RECEIVER),
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


def _web_url(ip: str, port: int) -> str:
    """Where this machine's browsers reach the pages; "" at a public address, where only HTTPS would do."""
    own = reached_at(ip)
    if ip_address(own).is_global:
        return ""
    return f"http://{'localhost' if own in ('127.0.0.1', '::1') else _listen(own, 0)[:-2]}:{port}/"


def _toml(text: str) -> str:
    """ASCII as it stands in a basic string of TOML."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _ports(base: int | None) -> dict[str, int]:
    return {section: (PORT_BASE if base is None else base) + port for section, port in PORTS.items()}


def _listen(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _override(raw: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """The file's tables with what was given on the command line laid over them."""
    if chosen["ip"] or chosen["port_base"] is not None:
        transport = raw.get("transports", {}).get("localserve", {})
        ip = chosen["ip"] or transport.get("host", "127.0.0.1")
        ports = _ports(chosen["port_base"])
        for section in PORTS:
            listen = raw.get(section, {}).get("listen")
            if chosen["port_base"] is None and listen:  # keep the file's port
                ports[section] = int(str(listen[0]).rpartition(":")[2])
            if listen or section in ("smtp", "web"):
                raw.setdefault(section, {})["listen"] = [_listen(ip, ports[section])]
        transport.update(host=reached_at(ip), port=ports["smtp"])
        raw["web"]["base_url"] = _web_url(ip, ports["web"])
    account = raw.get("accounts", {}).get(ACCOUNT, {})
    for option in ("webhook_out", "webhook_in"):
        if chosen[option]:
            name = {"webhook_out": "webhook_outgoing", "webhook_in": "webhook_incoming"}[option]
            account.setdefault(name, {})["url"] = chosen[option]
    return raw


def _banner(settings: Settings, directory: Path, color: bool, addresses: Addresses) -> str:
    def bold(text: str) -> str:
        return click.style(text, bold=True) if color else text

    web = addresses["web"][0]
    host = {"127.0.0.1": "localhost", "::1": "[::1]"}.get(own := reached_at(web.host), _listen(own, 0)[:-2])
    api = f"http://{host}:{web.port}{settings.web.base_path}"
    request = '{"To": [{"Address": "user@example.org"}], "Subject": "hi", "Text": "hello"}'
    curl = f"curl --user {LOGIN}:{PASSWORD} --data request={shlex.quote(request)} {shlex.quote(api + 'Send')}"
    account = settings.accounts.get(ACCOUNT)
    login = f"{LOGIN}, password {PASSWORD}" if account else f"none: {CONFIG_FILE} has no [accounts.{ACCOUNT}]"
    outgoing = account.webhook_outgoing.url if account and account.webhook_outgoing else "none"
    incoming = account.webhook_incoming.url if account and account.webhook_incoming else "none"
    hooks = outgoing if outgoing == incoming else f"{outgoing} (sent), {incoming} (received)"
    chosen = "" if directory == default_dir() else f" --dir {shlex.quote(str(directory))}"
    submission = [f"{address} (STARTTLS)" for address in addresses["submission"]]
    submission += [f"{address} (TLS)" for address in addresses["submissions"]]
    lines = [
        bold(
            f"Mail gateway {__version__}, for development: what is sent is delivered to this server itself."
        ),
        "",
        f"  SMTP      {', '.join(map(str, addresses['smtp']))}",
        *([f"  Submit    {', '.join(submission)}"] if submission else []),
        f"  Web API   {api}",
        f"  Account   {login}",
        f"  Webhooks  {hooks}",
        f"  Settings  {directory / CONFIG_FILE}",
        "",
    ]
    if not ip_address(web.host).is_loopback:
        lines += ["Other machines reach it, and everybody knows this password. Choose another:", ""]
        lines += [f"  gateway account password {ACCOUNT}{chosen}", ""]
    lines += [
        "Send a message:",
        "",
        f"  {curl}",
        "",
        f"See the webhooks, in another terminal:  gateway webhook-receiver --port {_port(outgoing)}",
        f"See the queue:                          gateway queue list{chosen}",
        "Stop:                                   Ctrl-C",
    ]
    return "\n".join(lines)


def _port(url: str) -> int:
    """Where the example receiver has to listen for an account's webhooks."""
    parts = urlsplit(url)
    return (parts.port if parts.hostname in ("localhost", "127.0.0.1", "::1") else None) or 9090
