"""What an operator sees of the plugins: which there are, who is asked at which stage, and how they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.config.sets import plugin_sets, sets_in_use
from gateway.config.settings import Settings
from gateway.errors import NotConfigured
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call
from gateway.hooks.stages import Hooks
from gateway.hookspecs import SPECS
from gateway.hookspecs.marks import Scope
from gateway.plugins.loading import installed

Row = dict[str, Any]
Tallies = Mapping[tuple[str, str], Sequence[Tally]]  # by plugin and hook, of other processes
ALONE: Tallies = {}


def plugin_rows(settings: Settings, hooks: Hooks | None = None, others: Tallies = ALONE) -> list[Row]:
    """Every plugin that is installed or that a set names; with `hooks`, how those in use do. `others`: how
    they do in the gateway's other processes; so below.

    State: "in use", "suspended" (one of its hooks is not asked, because it failed again and again),
    "installed", or "missing" (a set in use names it, and nobody has it).
    """
    sets, used = plugin_sets(settings), {name for names in sets_in_use(settings).values() for name in names}
    rows = {}
    for plugin in installed(settings):
        named = [name for name, plugins in sets.items() if plugin.name in plugins]
        state = "in use" if plugin.name in used else "installed"
        rows[plugin.name] = _row(plugin.name, plugin.distribution, plugin.version, named, state)
    for name in sorted(used - rows.keys()):
        # Given as an object: only a program that runs the gateway itself can do that.
        there = hooks is not None and any(plugin == name for plugin, _, _ in hooks.calls)
        named = [set_name for set_name, plugins in sets.items() if name in plugins]
        rows[name] = _row(name, "", "", named, "in use" if there else "missing")
    for row in rows.values():
        if hooks is not None:
            tallies = [tally for plugin, _, tally in _all(hooks, others) if plugin == row["Plugin"]]
            row["Calls"] = sum(tally.calls for tally in tallies)
            row["Failures"] = sum(tally.failures for tally in tallies)
            if any(tally.suspended for tally in tallies):
                row["State"] = "suspended"
    return list(rows.values())


def _row(name: str, distribution: str, version: str, sets: list[str], state: str) -> Row:
    return {
        "Plugin": name,
        "Distribution": distribution,
        "Version": version,
        "Sets": sets,
        "State": state,
    }


def hook_rows(settings: Settings, hooks: Hooks, account: str = "", others: Tallies = ALONE) -> list[Row]:
    """Each stage, with the plugins that an account's messages meet there (or those of nobody in particular).

    Raises NotConfigured.
    """
    if account and account not in settings.accounts:
        raise NotConfigured("account", account, settings.accounts)
    tables = {Scope.GATEWAY: hooks.gateway.table, Scope.ACCOUNT: hooks.for_account(account).table}
    return [
        {
            "Hook": spec.name,
            "Verb": spec.verb.value,
            "Scope": spec.scope.value,
            "Necessary": spec.necessary,
            "Plugins": [_call(call, others) for call in tables[spec.scope].get(spec.name, ())],
        }
        for spec in SPECS.values()
    ]


def _call(call: Call, others: Tallies) -> Row:
    return {
        "Plugin": call.plugin,
        "Way": call.way.value,
        "Limit": call.limit,
        "OnError": call.on_error.value,
        **dict(_tally(call.tally.with_others(others.get((call.plugin, call.spec.name), ())))),
    }


def _all(hooks: Hooks, others: Tallies) -> Iterator[tuple[str, str, Tally]]:
    """Plugin, hook, and what they have come to in all processes."""
    for plugin, hook, tally in hooks.calls:
        yield plugin, hook, tally.with_others(others.get((plugin, hook), ()))


def _tally(tally: Tally) -> Iterator[tuple[str, Any]]:
    yield "Calls", tally.calls
    yield "Failures", tally.failures
    yield "Timeouts", tally.timeouts
    yield "Slow", tally.slow
    yield "Seconds", tally.seconds
    yield "Suspended", tally.suspended
    yield "Skipped", tally.skipped


def tally_rows(hooks: Hooks, others: Tallies = ALONE) -> list[Mapping[str, Any]]:
    """Each plugin and hook, whatever the set, with what its calls have come to since the start."""
    return [
        {
            "Plugin": plugin,
            "Hook": hook,
            "Calls": tally.calls,
            "Failures": tally.failures,
            "Timeouts": tally.timeouts,
            "Slow": tally.slow,
            "Suspended": tally.suspended,
            "Seconds": tally.seconds,
            "Mean": tally.seconds / tally.calls if tally.calls else 0.0,
        }
        for plugin, hook, tally in _all(hooks, others)
    ]
