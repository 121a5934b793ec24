"""Runs what plugins run beside the gateway: the `services` stage.

A service that fails harms nobody: it is logged, and started again after a while.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import trio

from gateway.errors import PluginError
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Nonsense, ask
from gateway.hooks.registered import registered_call
from gateway.hookspecs.additions import GatewayContext, Service

HOOK = "services"
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before a service is started again; doubled each time
STEADY = 60.0  # seconds: a service that ran for so long has done well, and waits little

log = logging.getLogger(__name__)


async def serve_service(
    plugin: str, name: str, service: Service, gateway: GatewayContext, tally: Tally
) -> None:
    """Run a service for ever, and again whenever it fails or ends. Until it is cancelled."""
    label = f"plugin {plugin!r}, service {name!r}"

    async def run(gateway: GatewayContext) -> None:
        # Not nursery.start: a service that ends before it calls started() has done nothing wrong.
        await service(gateway, task_status=trio.TASK_STATUS_IGNORED)
        raise Nonsense("it ended")

    call = registered_call(plugin, HOOK, label, run, arguments=("gateway",), tally=tally)
    wait = FIRST_WAIT
    while True:
        began = trio.current_time()
        with suppress(PluginError):
            await ask(call, (gateway,))
        if trio.current_time() - began >= STEADY:
            wait = FIRST_WAIT
        log.error("%s: is started again in %g s", label, wait)
        await trio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
