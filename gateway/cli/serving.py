"""Runs a gateway until a signal comes: what `serve` and `localserve` share."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import click
import trio

from gateway.config.settings import Settings
from gateway.ending import MARGIN, ended_in_time
from gateway.errors import foreseen
from gateway.logs import set_up_logging
from gateway.net.listeners import Addresses
from gateway.workers.start import Example
from gateway.workers.supervisor import TO_END, Serving, supervising

log = logging.getLogger(__name__)


def use_color(wanted: bool) -> bool:
    """Whether output is coloured: where a person looks at it who has nothing against it."""
    # stdout is None where it was closed, as `>&-` does.
    return wanted and "NO_COLOR" not in os.environ and sys.stdout is not None and sys.stdout.isatty()


def run(
    settings: Settings,
    directory: Path,
    greeting: Callable[[Addresses], str],
    *,
    color: bool,
    example: Example | None = None,
) -> None:
    """Run it, and print the greeting when it serves. Raises GatewayError, KeyboardInterrupt."""
    set_up_logging(settings.log_level, color=color)
    try:
        trio.run(_run, settings, directory, greeting, color, example)
    except BaseExceptionGroup as group:
        known = foreseen(group)
        if known is None:
            raise
        raise known from None


async def _run(
    settings: Settings,
    directory: Path,
    greeting: Callable[[Addresses], str],
    color: bool,
    example: Example | None,
) -> None:
    serving: Serving | None = None

    def at_once() -> None:
        if serving is not None:
            serving.kill()
        os._exit(1)

    # A supervisor ends the workers that do not end themselves, and must be there for it.
    margin = MARGIN if settings.workers == 1 else TO_END + MARGIN
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        ended_in_time(settings.grace, signal.SIGINT, signal.SIGTERM, at_once=at_once, margin=margin),
    ):
        gateway = (
            supervising(settings, directory, color=color, example=example)
            if settings.workers > 1
            else _in_this_process(settings, directory, example)
        )
        async with gateway as serving:
            with suppress(OSError):  # nobody reads it, or its disk is full: no reason not to serve
                click.echo(greeting(serving.addresses))
            async for _ in signals:
                break
            log.info(
                "stopping: what is under way has %.0f seconds; a second signal stops at once", settings.grace
            )


@asynccontextmanager
async def _in_this_process(
    settings: Settings, directory: Path, example: Example | None
) -> AsyncIterator[Serving]:
    # Only now: the supervisor of several processes does without all that.
    from gateway import app
    from gateway.memory import spare_the_collector

    async with app.serving(
        settings,
        directory,
        prepare=example.prepare if example else None,
        example_login=example.shown if example else "",
    ) as gateway:
        spare_the_collector()
        yield Serving(gateway.addresses)
