"""Pure functions on large untrusted data, run in worker processes.

A thread would not do: Python code in a thread holds the interpreter, and the event loop with it. A worker
that does not answer in time is killed, and so is one whose caller is cancelled; the next call starts a new
one. Workers are started when they are first needed.

Run as a program (`python -m gateway.offload`), this module is the worker.
"""

from __future__ import annotations

import contextlib
import pickle
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast

import trio

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.model import Content  # a worker has no use for what that imports

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = 2
SMALL = 64 * 1024  # bytes: the event loop has time for this much untrusted data
TOKEN = 16  # octets of anything else that take as long to read as one of these in an address field
_TOKENS = b' @,;:<>()"[]\\'
LIMIT = 20.0  # seconds for one call
LIMIT_TO_BEGIN = 60.0  # seconds until it begins: a new worker has to import what it needs
MEMORY = 2 * 1024**3  # bytes of address space of a worker
_HEADER = 8  # bytes: the length of the pickle that follows, big-endian
_BEGUN = b"\n"
_CHUNK = 1024 * 1024


class OffloadError(GatewayError):
    """The worker died or took too long: the data is not to be had in this way."""


class Offload:
    """The pool of workers. `Offload.open` makes one."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._idle: list[trio.Process] = []
        self._places = trio.CapacityLimiter(WORKERS)
        self._reading = trio.CapacityLimiter(2 * WORKERS)  # one message each, and one that waits for it

    @classmethod
    @asynccontextmanager
    async def open(cls, limit: float = LIMIT) -> AsyncIterator[Offload]:
        """Leaving ends the workers."""
        pool = cls(limit)
        try:
            yield pool
        finally:
            with trio.CancelScope(shield=True):
                for process in pool._idle:
                    await _end(process)

    async def run_beside(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`run`, if the data is large (`size` in bytes); small data is dealt with here and now."""
        if size <= SMALL:
            return function(*args, **kwargs)
        return await self.run(function, *args, **kwargs)

    async def run_on(
        self,
        content: Content,
        function: Callable[Concatenate[bytes, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`run_beside` on all of a stored message. Of large ones few are in memory at a time."""
        if content.size <= SMALL:
            return await self.run_on_message(await content.read(), function, *args, **kwargs)
        async with self._reading:
            return await self.run(function, await content.read(), *args, **kwargs)

    async def run_on_message(
        self, data: bytes, function: Callable[Concatenate[bytes, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run_beside` for a function that reads a message or its header section, its addresses too."""
        return await self.run_beside(_effort(data), partial(function, data), *args, **kwargs)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function answers or raises; all of it must be picklable. Raises OffloadError."""
        request = pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
        async with self._places:
            process = self._idle.pop() if self._idle else await self._start()
            limit = LIMIT_TO_BEGIN
            try:
                with trio.fail_after(limit):
                    await _begin(process, request)
                limit = self._limit
                with trio.fail_after(limit):
                    done, answer = pickle.loads(await _end_of(process))  # noqa: S301 - our own worker's
            except BaseException as exc:
                with trio.CancelScope(shield=True):
                    await _end(process)
                if isinstance(exc, trio.TooSlowError):
                    raise OffloadError(f"no answer from a worker process in {limit:g} s") from None
                if isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError, EOFError)):
                    raise OffloadError("a worker process died") from None
                raise
            self._idle.append(process)
        if not done:
            raise answer
        return cast(T, answer)

    async def _start(self) -> trio.Process:
        return await trio.lowlevel.open_process(
            [sys.executable, "-c", "from gateway.offload import work; work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at a terminal is the gateway's to handle
        )


def _effort(message: bytes) -> int:
    """What it takes to read a message, in octets of one without addresses.

    All fields count as if they held some: only a hostile header has many of their tokens elsewhere.
    """
    end = message.find(b"\r\n\r\n")
    section = message if end < 0 else message[:end]
    return len(message) + TOKEN * (len(section) - len(section.translate(None, _TOKENS)))


async def _begin(process: trio.Process, request: bytes) -> None:
    """Hand a call over; returns when the worker has imported what it needs, and begins with it."""
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.send_all(len(request).to_bytes(_HEADER))
    await process.stdin.send_all(request)
    await _receive_exactly(process.stdout, len(_BEGUN))


async def _end_of(process: trio.Process) -> bytes:
    assert process.stdout is not None
    length = int.from_bytes(await _receive_exactly(process.stdout, _HEADER))
    return await _receive_exactly(process.stdout, length)


async def _receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = await stream.receive_some(min(size - len(received), _CHUNK))
        if not piece:
            raise EOFError
        received += piece
    return bytes(received)


async def _end(process: trio.Process) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await stream.aclose()
    await process.wait()


def work() -> None:
    """The worker: one request after the other until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not end up between the answers
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        while header := requests.read(_HEADER):
            call = _read_call(requests.read(int.from_bytes(header)))
            answers.write(_BEGUN)
            answers.flush()
            answer = _answer(call)
            answers.write(len(answer).to_bytes(_HEADER) + answer)
            answers.flush()


def _read_call(request: bytes) -> Callable[[], Any]:
    try:
        function, args, kwargs = pickle.loads(request)  # noqa: S301 - from the process that started us
    except Exception as exc:
        return partial(_raise, exc)
    return partial(function, *args, **kwargs)


def _raise(exc: Exception) -> NoReturn:
    raise exc


def _answer(call: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((True, call()), pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        try:
            answer = pickle.dumps((False, exc), pickle.HIGHEST_PROTOCOL)
            pickle.loads(answer)  # noqa: S301 - some exceptions pickle and do not unpickle
        except Exception:
            return pickle.dumps((False, OffloadError(f"{type(exc).__name__}: {exc}")))
        return answer
