"""`mox.suppressed`: what is on the account's suppression list gets no mail."""

from __future__ import annotations

from gateway import Suppression, hookimpl


@hookimpl
def suppressed(entry: Suppression | None) -> bool | None:
    """True if there is an entry; None, so that other plugins are asked, if there is none."""
    return True if entry is not None else None
