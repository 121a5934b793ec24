"""The control socket's commands about plugins; `gateway plugins` without a running gateway uses them too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from gateway.accounts.directory import Directory
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.hooks.stages import Hooks
from gateway.mail.address import Address, AddressError
from gateway.model import HoldRule, Suppression
from gateway.outbound.operations import HoldRules
from gateway.plugins.tracing import Known, Sample, trace_incoming, trace_outgoing
from gateway.plugins.views import ALONE, Tallies, hook_rows, plugin_rows
from gateway.store import suppressions
from gateway.store.store import Store
from gateway.web.control.app import Command, CommandFailed, Empty, Request


async def _none() -> Tallies:
    return ALONE


class HooksRequest(Request):
    Account: str = ""


class TraceRequest(Request):
    To: str
    From: str = ""
    Account: str = ""
    Subject: str = "trace"
    Incoming: bool = False


class PluginCommands:
    """`store` and `holding`: of a gateway that runs; without them the configuration alone answers. `others`
    answers how plugins do in its other processes."""

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks,
        clock: Clock,
        store: Store | None = None,
        holding: HoldRules | None = None,
        others: Callable[[], Awaitable[Tallies]] = _none,
    ) -> None:
        self._settings, self._hooks, self._clock = settings, hooks, clock
        self._store, self._holding, self._others = store, holding, others
        self._directory = Directory(settings)

    def commands(self) -> dict[str, Command]:
        return {
            "plugins/list": Command(Empty, self.list),
            "plugins/hooks": Command(HooksRequest, self.hooks),
            "plugins/trace": Command(TraceRequest, self.trace),
        }

    async def list(self, request: Empty) -> Mapping[str, Any]:
        running = self._hooks if self._store is not None else None
        rows = plugin_rows(self._settings, running, await self._others())
        return {"Running": running is not None, "Plugins": rows}

    async def hooks(self, request: HooksRequest) -> Mapping[str, Any]:
        rows = hook_rows(self._settings, self._hooks, request.Account, await self._others())
        return {"Running": self._store is not None, "Hooks": rows}

    async def trace(self, request: TraceRequest) -> Mapping[str, Any]:
        sample = self._incoming(request) if request.Incoming else self._outgoing(request)
        if request.Incoming:
            steps = await trace_incoming(self._hooks, sample)
        else:
            steps = await trace_outgoing(self._settings, self._hooks, sample, await self._known())
        return {
            "Running": self._store is not None,
            "Account": sample.account,
            "From": str(sample.sender),
            "To": str(sample.recipient),
            "Steps": [
                {
                    "Stage": step.stage,
                    "Asked": [
                        {name.capitalize(): value for name, value in asdict(one).items()}
                        for one in step.asked
                    ],
                    "Result": step.result,
                }
                for step in steps
            ],
        }

    def _outgoing(self, request: TraceRequest) -> Sample:
        """Raises GatewayError."""
        accounts = self._settings.accounts
        sender = _address("From", request.From) if request.From else None
        account = request.Account
        if not account and sender is not None:
            account = self._directory.owner(sender) or ""
            if not account:
                raise CommandFailed(f"From: {sender} is no account's address; give an account")
        if not account:
            if len(accounts) != 1:
                raise CommandFailed(
                    f"give an account, or a sender of one; there are: {', '.join(accounts) or 'none'}"
                )
            account = next(iter(accounts))
        if account not in accounts:
            raise NotConfigured("account", account, accounts)
        return self._sample(request, account, sender or accounts[account].addresses[0])

    def _incoming(self, request: TraceRequest) -> Sample:
        """Raises GatewayError."""
        recipient = _address("To", request.To)
        found = self._directory.recipients(recipient)
        account = request.Account or (found[0] if found else self._settings.smtp.unknown_recipients)
        if not account:
            raise CommandFailed(f"To: {recipient} is no account's address, so that mail to it is refused")
        if account not in self._settings.accounts:
            raise NotConfigured("account", account, self._settings.accounts)
        return self._sample(request, account, _address("From", request.From or "somebody@example.com"))

    def _sample(self, request: TraceRequest, account: str, sender: Address) -> Sample:
        return Sample(
            account=account,
            sender=sender,
            recipient=_address("To", request.To),
            subject=request.Subject,
            now=self._clock.now(),
        )

    async def _known(self) -> Known:
        rules: tuple[HoldRule, ...] = ()
        if self._holding is not None:
            rules = tuple((await self._holding.snapshot())[0])
        return Known(rules, self._suppression if self._store is not None else None)

    async def _suppression(self, account: str, base: str, address: Address) -> Suppression | None:
        assert self._store is not None
        return await self._store.read(
            partial(
                suppressions.lookup,
                account=account,
                base_address=base,
                address=address,
                now=self._clock.now(),
            )
        )


def _address(name: str, text: str) -> Address:
    """Raises CommandFailed."""
    try:
        return Address.parse(text)
    except AddressError as exc:
        raise CommandFailed(f"{name}: {text!r}: {exc}") from None
