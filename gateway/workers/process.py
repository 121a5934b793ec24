"""A worker's process: `python -m gateway.workers.process FD`. FD is the stream to the supervisor."""

from __future__ import annotations

import faulthandler
import logging
import signal
import socket
import sys
from contextlib import suppress

import trio

from gateway import app
from gateway.clock import Clock
from gateway.ending import ended_in_time
from gateway.errors import foreseen
from gateway.logs import set_up_logging
from gateway.memory import spare_the_collector
from gateway.workers.hints import Hints
from gateway.workers.start import DUMP, LOOKS, SIGN_OF_LIFE, Start, answer, read
from gateway.workers.worker import Worker

log = logging.getLogger(__name__)


def main() -> None:
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    try:
        with supervisor.makefile("rb") as stream:
            start = read(stream)
    except (EOFError, OSError):  # the supervisor stops, or is gone
        return
    set_up_logging(start.settings.log_level, color=start.color, worker=start.number)
    if sys.stderr is not None:  # as it is where it was closed
        faulthandler.register(DUMP)
    try:
        trio.run(_serve, start, supervisor)
    except BaseException as exc:
        known = foreseen(exc)
        if known is None:
            raise
        try:
            supervisor.sendall(answer(str(known)))
        except OSError:
            log.error("%s", known)
        sys.exit(1)


async def _serve(start: Start, supervisor: socket.socket) -> None:
    """Until SIGTERM, or until there is no supervisor any more."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(supervisor))
    example = start.example
    with (
        trio.open_signal_receiver(signal.SIGTERM) as signals,
        ended_in_time(start.settings.grace, signal.SIGTERM, at_once=lambda: None) as begin,
    ):
        async with trio.open_nursery() as living:
            async with app.serving(
                start.settings,
                start.config_dir,
                clock=Clock(pace=start.pace),
                worker=_worker(start),
                prepare=example.prepare if example else None,
                example_login=example.shown if example else "",
            ):
                spare_the_collector()
                async with trio.open_nursery() as ends:

                    async def stop_at_signal() -> None:
                        async for _ in signals:
                            break
                        ends.cancel_scope.cancel()

                    ends.start_soon(stop_at_signal)
                    try:
                        await stream.send_all(answer(""))
                        living.start_soon(_show_life, stream, start.settings.worker_timeout / LOOKS)
                        await stream.receive_some(1)
                    except trio.BrokenResourceError:
                        log.warning("the supervisor is gone")
                    begin()
                    ends.cancel_scope.cancel()
            living.cancel_scope.cancel()


async def _show_life(stream: trio.SocketStream, every: float) -> None:
    """Tells the supervisor that the event loop turns, to the end."""
    with suppress(trio.BrokenResourceError):  # it is gone: the end is near
        while True:
            await stream.send_all(SIGN_OF_LIFE)
            await trio.sleep(every)


def _worker(start: Start) -> Worker:
    ears = [socket.socket(fileno=fd) for fd in start.ears_of_others]
    return Worker(
        number=start.number,
        workers=start.settings.workers,
        run=start.run,
        sockets={name: [socket.socket(fileno=fd) for fd in fds] for name, fds in start.sockets.items()},
        hints=Hints(ears, socket.socket(fileno=start.ear)),
    )


if __name__ == "__main__":
    main()
