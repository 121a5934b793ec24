"""The control socket's commands about the rules that put messages on hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.mail.address import parse_domain
from gateway.outbound.operations import HoldRules
from gateway.web.control.app import Command, CommandFailed, Empty, Request
from gateway.web.control.filters import OneRequest


class RuleRequest(Request):
    Account: str = ""
    SenderDomain: str = ""
    RecipientDomain: str = ""


class HoldRuleCommands:
    def __init__(self, settings: Settings, holding: HoldRules) -> None:
        self._accounts, self._holding = settings.accounts, holding

    def commands(self) -> dict[str, Command]:
        return {
            "queue/hold-rules/list": Command(Empty, self._list),
            "queue/hold-rules/add": Command(RuleRequest, self._add),
            "queue/hold-rules/remove": Command(OneRequest, self._remove),
        }

    async def _list(self, request: Empty) -> Mapping[str, Any]:
        rules, _ = await self._holding.refresh()
        return {
            "Rules": [
                {
                    "ID": rule.id,
                    "Account": rule.account,
                    "SenderDomain": rule.sender_domain,
                    "RecipientDomain": rule.recipient_domain,
                }
                for rule in rules
            ]
        }

    async def _add(self, request: RuleRequest) -> Mapping[str, Any]:
        if request.Account and request.Account not in self._accounts:
            raise NotConfigured("account", request.Account, self._accounts)
        sender, recipient = (d and parse_domain(d) for d in (request.SenderDomain, request.RecipientDomain))
        rule, affected = await self._holding.add(request.Account, sender, recipient)
        return {"ID": rule.id, "Affected": affected}

    async def _remove(self, request: OneRequest) -> Mapping[str, Any]:
        if not await self._holding.remove(request.ID):
            raise CommandFailed(f"there is no hold rule {request.ID}; see gateway queue hold-rules list")
        return {}
