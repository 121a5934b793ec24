"""Mail that a plugin kept waiting is tried again as soon as the plugin answers again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import QueuedMessage, hookimpl
from gateway.hooks import breaker as breaker_module
from gateway.outbound import deferred
from tests.running import Receiver, running
from tests.thirdparty.gateways import usual, with_sets


class Moody:
    """A plugin that fails as long as it is told to."""

    works = False

    @hookimpl
    def route(self, message: QueuedMessage) -> None:
        if not self.works:
            raise RuntimeError("moody")


async def test_it_is_due_when_the_plugin_answers(
    tmp_path: Path, webhooks: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "FIRST_WAIT", 0.3)
    monkeypatch.setattr(deferred, "LOOK_EVERY", 0.1)
    moody, others = Moody(), 7
    change = with_sets(["moody", *usual()])
    async with running(tmp_path, webhooks, change=change, plugins={"moody": moody}) as gateway:
        for number in range(others + 1):
            await gateway.send(f"user{number}@example.org")
        for number in range(others + 1):
            await webhooks.event("delayed", Recipient=f"user{number}@example.org")
        assert gateway.gateway.hooks.calls["moody", "route"].suspended
        moody.works = True
        # Their schedules say minutes; one of them is tried, and then all.
        for number in range(others + 1):
            await webhooks.event("delivered", Recipient=f"user{number}@example.org")


async def test_it_is_due_when_the_gateway_starts(tmp_path: Path, webhooks: Receiver) -> None:
    change = with_sets(["moody", *usual()])
    async with running(tmp_path, webhooks, change=change, plugins={"moody": Moody()}) as gateway:
        await gateway.send()
        await webhooks.event("delayed")
    async with running(tmp_path, webhooks) as gateway:
        await webhooks.event("delivered", Attempt=1)
