"""Ends the process in time, whatever plugins do.

When it is told to stop, what is under way has the grace period, and is then cancelled. A plugin may shield
itself from that, or block the event loop; a thread of its own may go on for ever. Then there is nothing left
but to leave it behind: nothing that was taken is lost, for the store is as good after a crash.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import trio

from gateway.hooks.calls import Call

MARGIN = 5.0  # seconds beyond the grace period, until a process that has not ended is ended
TO_SAY_SO = 1.0  # seconds: whoever reads the log may not

log = logging.getLogger(__name__)


@contextmanager
def ended_in_time(
    grace: float, *signals: signal.Signals, at_once: Callable[[], object], margin: float = MARGIN
) -> Iterator[Callable[[], None]]:
    """To be entered in trio, within its receiver of `signals`, which goes on as it is.

    From the first of the signals on, or a call of what this yields, the process has `grace` seconds and
    `margin`; then it says what it still waits for, and exits with status 1. A second signal calls `at_once`.
    """
    root = trio.lowlevel.current_root_task()
    timer = threading.Timer(grace + margin, _leave, (grace, margin, root, threading.get_ident()))
    timer.daemon = True
    begun = False

    def begin() -> None:
        nonlocal begun
        if not begun:
            begun = True
            timer.start()

    def heard(number: int, frame: FrameType | None) -> None:  # also while a plugin blocks the event loop
        # trio's receiver keeps a signal that nobody takes, and raises it anew when it ends: no second one
        # may reach it.
        if begun:
            at_once()
            return
        begin()
        passed_on = receivers[number]
        if callable(passed_on):
            passed_on(number, frame)

    receivers = {int(number): signal.signal(number, heard) for number in signals}
    try:
        yield begin
    finally:
        for number, receiver in receivers.items():
            signal.signal(number, receiver)


def _leave(grace: float, margin: float, root: trio.lowlevel.Task | None, loop: int) -> None:
    def say() -> None:
        log.critical(
            "after the grace period of %g s and %g s more there is still %s: ended without it;"
            " what was under way is taken up again at the next start",
            grace,
            margin,
            " and ".join(_left(root, loop)) or "something that does not end",
        )

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(TO_SAY_SO)
    os._exit(1)


def _left(root: trio.lowlevel.Task | None, loop: int) -> list[str]:
    """What the process waits for."""
    with suppress(Exception):  # it is looked at while it goes on
        blocking = _calls(_stack(sys._current_frames().get(loop)))
        if blocking:
            return [f"{blocking[-1].label}, which blocks the event loop"]
        shielded = {call.label: None for task in _tasks(root) for call in _calls(_awaiting(task))[-1:]}
        if shielded:
            return [f"{label}, which does not let itself be cancelled" for label in shielded]
    threads = [one for one in threading.enumerate() if not one.daemon and one.ident != loop]
    return [f"the thread {one.name!r} ({_place(one)}), which somebody started" for one in threads]


def _calls(frames: Iterator[FrameType]) -> list[Call]:
    """The calls of plugins that these are part of, the outermost first."""
    found = (frame.f_locals.get("call") for frame in frames)
    return [call for call in found if isinstance(call, Call)]


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """From the outermost."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return reversed(frames)


def _awaiting(task: trio.lowlevel.Task) -> Iterator[FrameType]:
    return (frame for frame, _ in task.iter_await_frames())


def _tasks(root: trio.lowlevel.Task | None) -> Iterator[Any]:
    left = [] if root is None else [root]
    while left:
        task = left.pop()
        yield task
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def _place(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "it ended" if frame is None else f"{frame.f_code.co_filename}, line {frame.f_lineno}"
