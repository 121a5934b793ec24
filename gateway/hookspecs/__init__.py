"""Every stage that a plugin can take: one typed, documented hook each.

A plugin is a module, a class or an object that has functions of these names, marked with `@hookimpl`:

    from gateway import QueuedMessage, Route, hookimpl

    @hookimpl
    def route(message: QueuedMessage) -> Route | None:
        return Route("backup") if message.attempts > 3 else None

A function takes any subset of its hook's arguments, in any order, and `settings`: the plugin's own
settings, an instance of its pydantic model `Settings`, as configured for the account at hand.

`async def` is awaited under the hook's time limit. Plain `def` runs on the event loop and must not block;
`@hookimpl(thread=True)` gives a blocking function a thread, and its time limit back.

How a stage asks its plugins is its verb:

    FIRST   in the set's order, until one answers something else than None
    ALL     each one, once, when the configuration is loaded: plain `def` only
    FOLD    each gets as the hook's first argument what the one before answered; None changes nothing
    TELL    everyone hears it; nobody can stop it
    AROUND  each may answer an async context manager around a step, entered in the set's order and left in
            reverse; none can swallow or replace what the step returns or raises

What happens when a plugin raises, does not answer in time or answers something of another type:

    DEFER     PluginError: the caller does not go on, and the message waits and is tried again later
    FALLBACK  as if it had answered None; when nobody else answers, the caller does what it can by itself
    SKIP      as if it had answered None

The configuration can set both: `limits = {HOOK = seconds}` and `on_error = {HOOK = "skip"}` under
`[plugin.NAME]`. Only where FALLBACK stands here, "defer" is refused: nothing may stop those steps.

Each file of this package has the hooks of one part of a message's way. `marks` says what a hook is,
`additions` what plugins add, `checks` and `addition_checks` what must hold of answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.hookspecs.delivery import DeliverySpecs
from gateway.hookspecs.marks import SPEC, Spec
from gateway.hookspecs.reception import ReceptionSpecs
from gateway.hookspecs.results import ResultSpecs
from gateway.hookspecs.service import ServiceSpecs
from gateway.hookspecs.submission import SubmissionSpecs


class HookSpecs(SubmissionSpecs, DeliverySpecs, ResultSpecs, ReceptionSpecs, ServiceSpecs, Protocol):
    """The hooks. Each may also be `async def`, unless its verb is ALL."""


SPECS: Mapping[str, Spec] = {
    name: getattr(function, SPEC)
    for part in HookSpecs.__bases__
    for name, function in vars(part).items()
    if hasattr(function, SPEC)
}
