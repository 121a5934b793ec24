"""Postfix's smtp-sink(1): a server that takes all that its options do not refuse, cut off or slow down."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.peers.programs import program
from tests.ports import free_port

STARTING = 5.0  # seconds


@asynccontextmanager
async def smtp_sink(*options: str) -> AsyncIterator[int]:
    """The port of one that runs while the body does."""
    port = free_port()
    async with trio.open_nursery() as nursery:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it does not run as root
        command = [program("smtp-sink"), *user, *options, f"127.0.0.1:{port}", "100"]
        process: trio.Process = await nursery.start(trio.run_process, command)
        try:
            await accepts(port)
            yield port
        finally:
            process.terminate()
            nursery.cancel_scope.cancel()


async def accepts(port: int) -> None:
    """Wait until somebody listens there."""
    with trio.fail_after(STARTING):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.01)
            else:
                await stream.aclose()
                return
