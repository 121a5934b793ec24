"""Starts the workers of a gateway, starts one again that ended, and ends them all.

It has what must outlive a worker: the data directory's lock, the sockets that listen (so that who connects
while a worker is away waits, and is served), and the workers' ears. It reads and writes no mail.
"""

from __future__ import annotations

import logging
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from gateway import datadir
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.ending import MARGIN, TO_SAY_SO
from gateway.errors import StartError, StopError
from gateway.net.listeners import SECTIONS, Addresses, Sockets, bind, bound
from gateway.store import store
from gateway.workers.start import DUMP, LOOKS, MAX_ANSWER, Example, Start, encode, read_answer

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.1, 60.0  # seconds before a worker is started again; doubled each time
STEADY = 60.0  # seconds: a worker that ran for so long has done well, and waits little
TO_DUMP = 1.0  # seconds for a worker to write down where it is, before it is killed
TO_END = MARGIN + 2 * TO_SAY_SO  # seconds that a worker has beyond the grace period: it ends itself before


@dataclass(frozen=True, slots=True)
class Serving:
    """A gateway that serves. `kill` ends its other processes at once."""

    addresses: Addresses
    kill: Callable[[], None] = lambda: None


@asynccontextmanager
async def supervising(
    settings: Settings, config_dir: Path, *, color: bool = False, example: Example | None = None
) -> AsyncIterator[Serving]:
    """Run a gateway of several processes while the body runs; leaving the body stops it within the grace
    period. Raises StartError, and StopError if a worker did not end as it should.
    """
    with datadir.locked(settings.data_dir) as lock, ExitStack() as sockets:
        of_each = bind(settings)
        for sock in (sock for mine in of_each for several in mine.values() for sock in several):
            sockets.enter_context(sock)
        addresses = {
            section: bound(next((mine[section] for mine in of_each if mine[section]), ()))
            for section in SECTIONS
        }
        await trio.to_thread.run_sync(store.prepare, settings.data_dir)
        supervisor = _Supervisor(settings, config_dir, lock, of_each, color, example)
        sockets.callback(supervisor.close)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.keep_time)
            async with trio.open_nursery() as starting:
                for number in range(settings.workers):
                    starting.start_soon(nursery.start, supervisor.keep, number)
            try:
                yield Serving(addresses, supervisor.kill)
            finally:
                supervisor.stop()
                sockets.close()  # who connects now is refused
                nursery.cancel_scope.deadline = trio.current_time() + settings.grace + TO_END
        if supervisor.problems:
            problems = "; ".join(sorted(supervisor.problems))
            raise StopError(f"{problems}; what was under way is taken up again at the next start")


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        config_dir: Path,
        lock: int,
        sockets: Sequence[Sockets],
        color: bool,
        example: Example | None,
    ) -> None:
        self._settings, self._lock, self._sockets = settings, lock, sockets
        self._common = partial(
            Start,
            settings=settings,
            config_dir=config_dir,
            color=color,
            example=example,
            run=secrets.token_hex(8),
        )
        # What is sent to the one is heard at the other.
        self._ears = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in sockets]
        self._running: dict[int, tuple[trio.Process, trio.SocketStream]] = {}  # with the stream to it
        self._serving: set[int] = set()
        self._clock = Clock()
        self._stopping = trio.Event()
        self.problems: list[str] = []  # with workers that were to stop

    def stop(self) -> None:
        """Has the workers end, and `keep` with them."""
        self._stopping.set()
        for number, (process, stream) in self._running.items():
            if number in self._serving:  # it hears a signal also while a plugin blocks its event loop
                process.terminate()
            else:
                stream.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """The workers' ears, to which they have descriptors of their own."""
        for ear in (ear for pair in self._ears for ear in pair):
            ear.close()

    def kill(self) -> None:
        for process, _ in self._running.values():
            process.kill()

    async def keep_time(self) -> None:
        """The workers' time goes on here, for those that are started again, until the gateway stops."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clock.serve)
            await self._stopping.wait()
            nursery.cancel_scope.cancel()

    async def keep(
        self, number: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run a worker, and again whenever it ends, until the gateway stops.

        Raises StartError, if it does not serve at the first start.
        """
        wait, served = FIRST_WAIT, False

        def serves() -> None:
            nonlocal served
            if not served:
                task_status.started()
            served = True

        while not self._stopping.is_set():
            began = trio.current_time()
            problem = await self._run(number, serves)
            if self._stopping.is_set():
                return
            if not served:
                raise StartError(problem)
            if trio.current_time() - began >= STEADY:
                wait = FIRST_WAIT
            log.error("%s; it is started again in %g s", problem, wait)
            with trio.move_on_after(wait):
                await self._stopping.wait()
            wait = min(2 * wait, LONGEST_WAIT)

    async def _run(self, number: int, serves: Callable[[], None]) -> str:
        """Run a worker until it ends; why it did."""
        try:
            async with self._process(number) as (process, stream):
                failure = await _answer(stream)
                if failure == "":
                    log.info("worker %d serves, process %d", number, process.pid)
                    self._serving.add(number)
                    serves()
                    async with trio.open_nursery() as watching:
                        watching.start_soon(self._watch, number, process, stream)
                        await process.wait()
                        watching.cancel_scope.cancel()
                await process.wait()
        except OSError as exc:  # no process or descriptor to be had, for one
            return f"worker {number} could not be started: {exc.strerror or exc}"
        return failure or _ended(number, process)

    async def _watch(self, number: int, process: trio.Process, stream: trio.SocketStream) -> None:
        """Kills a worker that serves and gives no sign of life, until all are to stop: it may hold the lock
        of the database, and has mail under lease.

        Who gives one after all is left alone, as after a pause that the log's reader made: that held up all.
        """
        timeout = self._settings.worker_timeout
        with suppress(trio.BrokenResourceError, EOFError):
            while True:
                if not await _silent(stream, timeout):
                    continue
                if self._stopping.is_set():
                    return
                log.error(
                    "worker %d gave no sign of life for %g s, and is killed if it gives none now;"
                    " where it is, it says below, if it can",
                    number,
                    timeout,
                )
                process.send_signal(DUMP)
                if await _silent(stream, TO_DUMP):
                    process.kill()
                    return
                log.warning("worker %d gives signs of life again, and is not killed", number)

    @asynccontextmanager
    async def _process(self, number: int) -> AsyncIterator[tuple[trio.Process, trio.SocketStream]]:
        """The process of a worker, which is killed if it has not ended by itself."""
        start = self._start(number)
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with stream:
            with theirs:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "gateway.workers.process", str(theirs.fileno())],
                    pass_fds=[theirs.fileno(), self._lock, *start.descriptors],
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # a terminal's Ctrl-C is for us alone
                )
            try:
                self._running[number] = process, stream
                if self._stopping.is_set():
                    ours.shutdown(socket.SHUT_WR)
                else:
                    await _tell(stream, encode(start))
                yield process, stream
            finally:
                del self._running[number]
                self._serving.discard(number)
                problem = ""
                if process.returncode is None:
                    problem = f"worker {number} did not end, and was killed"
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()
                elif process.returncode:
                    problem = _ended(number, process)
                if problem and self._stopping.is_set():
                    self.problems.append(problem)

    def _start(self, number: int) -> Start:
        return self._common(
            number=number,
            pace=self._clock.pace,
            sockets={
                section: [sock.fileno() for sock in several]
                for section, several in self._sockets[number].items()
            },
            ear=self._ears[number][1].fileno(),
            ears_of_others=[ears[0].fileno() for other, ears in enumerate(self._ears) if other != number],
        )


def _ended(number: int, process: trio.Process) -> str:
    return f"worker {number} ended with status {process.returncode}; its log says more"


async def _silent(stream: trio.SocketStream, seconds: float) -> bool:
    """Whether no sign of life comes for so long. Raises BrokenResourceError, EOFError when it ends.

    It is looked for some times, so that what stopped us too is not taken for silence.
    """
    for _ in range(LOOKS):
        with trio.move_on_after(seconds / LOOKS):
            if not await stream.receive_some():
                raise EOFError
            return False
    return True


async def _tell(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return  # it ended: its answer, or none, is what counts


async def _answer(stream: trio.SocketStream) -> str | None:
    """Empty when it serves, or why it can't; None if it ended without a word."""
    line = b""
    try:
        while b"\n" not in line and len(line) < MAX_ANSWER:
            data = await stream.receive_some(4096)
            if not data:
                break
            line += data
    except trio.BrokenResourceError:
        pass
    return read_answer(line)
