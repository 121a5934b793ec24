"""Runs what plugins run beside the gateway: the `services` stage.

A service that fails harms nobody: it is logged, and started again after a while.
"""

from __future__ import annotations

import logging

import trio

from gateway.additions import GatewayContext, Service
from gateway.breaker import Tally
from gateway.hookcalls import contain, described
from gateway.watched import watched

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before a service is started again; doubled each time
STEADY = 60.0  # seconds: a service that ran for so long has done well, and waits little

log = logging.getLogger(__name__)


async def serve_service(
    plugin: str, name: str, service: Service, gateway: GatewayContext, tally: Tally
) -> None:
    """Run a service for ever, and again whenever it fails or ends. Until it is cancelled."""

    def slow(took: float) -> None:
        tally.slow += 1
        log.warning("plugin %r, service %r: stopped the event loop for %.2f s", plugin, name, took)

    async def run() -> None:
        # Not nursery.start: a service that ends before it calls started() has done nothing wrong.
        await watched(service(gateway, task_status=trio.TASK_STATUS_IGNORED), slow)

    wait = FIRST_WAIT
    while True:
        began = trio.current_time()
        tally.calls += 1
        try:
            async with trio.open_nursery() as nursery:  # a task of its own
                nursery.start_soon(run)
            problem = "it ended"
        except BaseException as exc:
            await contain(exc)
            failure = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc
            problem = f"raised {described(failure)}"
            log.debug("plugin %r, service %r", plugin, name, exc_info=exc)
        tally.failures += 1
        if trio.current_time() - began >= STEADY:
            wait = FIRST_WAIT
        log.error("plugin %r, service %r: %s; it is started again in %g s", plugin, name, problem, wait)
        await trio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
