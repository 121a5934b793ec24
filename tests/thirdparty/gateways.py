"""Configurations with the distribution's plugins, and accounts that use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.store import call_listing
from gateway.store.call_listing import CallFilter
from gateway.store.changes import Call
from tests.running import AUTH, Running

Raw = dict[str, Any]  # a configuration file's tables
Change = Callable[[Raw], None]

USUAL = (
    "dkim",
    "mox.hold",
    "mox.base_address",
    "mox.suppressed",
    "mox.routing",
    "retry",
    "mox.suppress",
    "reports.arf",
    "reports.rfc3464",
    "reports.amazon",
    "reports.automatic",
    "reports.sendmail",
    "reports.exchange",
    "reports.qmail",
    "reports.exim",
    "reports.forwarded",
    "reports.text",
    "mox.fromid",
    "mox.envid",
    "mox.messageid",
    "mox.webhook",
    "smtp",
    "localserve",
)
PASSWORD = AUTH[1]


def usual(*, without: tuple[str, ...] = ()) -> list[str]:
    return [name for name in USUAL if name not in without]


def with_sets(
    plugins: list[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    others: Mapping[str, list[str]] | None = None,
    **tables: Any,
) -> Change:
    """The gateway has these plugins, with these settings; there are `others`, sets that accounts may name.

    `tables` are laid over the file's, at the top.
    """

    def change(raw: Raw) -> None:
        raw["plugin_sets"]["test"] = {"plugins": plugins}
        raw["plugins"]["sets"] = ["test"]
        for name, listed in (others or {}).items():
            raw["plugin_sets"][name] = {"plugins": listed}
        raw["plugin"].update(settings or {})
        for name, table in tables.items():
            raw[name] = {**raw[name], **table} if isinstance(table, dict) and name in raw else table

    return change


def add_account(raw: Raw, name: str, **more: Any) -> None:
    """An account whose one address is NAME@localhost, and whose webhooks go where the first account's do."""
    first = raw["accounts"]["mox"]
    targets = {kind: dict(first[kind]) for kind in ("webhook_outgoing", "webhook_incoming")}
    raw["accounts"][name] = {"addresses": [f"{name}@localhost"], **targets, **more}


async def send_as(
    gateway: Running, account: str, to: str = "user@example.org", **fields: Any
) -> dict[str, Any]:
    """Send's answer to an account that `add_account` made, whether it was taken or refused."""
    if not await gateway.gateway.authenticator.has_password(account):
        await gateway.gateway.authenticator.set_password(account, PASSWORD)
    request = {"To": [{"Address": to}], "Subject": "hi", "Text": f"from {account}"} | fields
    response = await gateway.api.post("Send", json=request, auth=(f"{account}@localhost", PASSWORD))
    answer: dict[str, Any] = response.json()
    assert (response.status_code == 200) == ("Submissions" in answer), response.text
    return answer


async def calls(gateway: Running, **conditions: Any) -> tuple[Call, ...]:
    """Webhook calls, waiting or over."""
    page, _ = await gateway.gateway.store.read(lambda conn: call_listing.page(conn, CallFilter(**conditions)))
    return page
