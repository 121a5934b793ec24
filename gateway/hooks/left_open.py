"""Closes nurseries that a plugin opened by hand and never left.

`await trio.open_nursery().__aenter__()` without its other half leaves the task of whoever called the plugin
with a nursery too many: trio would end that task with an error, at the latest when it is over, and so the
gateway. What is done here is what trio itself does when such a task ends. There is no public way to do it
(trio 0.35); a test notices if this one goes.
"""

from __future__ import annotations

import trio


def open_nurseries() -> int:
    """How many the current task has."""
    return len(trio.lowlevel.current_task()._child_nurseries)


def close_left_open(before: int) -> None:
    """Cancel and give up what is more than `before`. Its cancel scope stays open: to be called within one,
    which then raises RuntimeError when it ends."""
    nurseries = trio.lowlevel.current_task()._child_nurseries
    while len(nurseries) > before:
        left = nurseries.pop()
        left.cancel_scope.cancel()
        left._closed = True
