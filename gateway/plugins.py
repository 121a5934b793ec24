"""Finds and loads plugins.

A plugin is an entry point of the group "mail_gateway": its name is the plugin's, its value a module, an
object, or a class that is made without arguments. Built-in plugins are found in the same way. Only those
are imported that a plugin set in use names; `gateway.pluginchecks` looks at what they are, and
`gateway.plugintables` compiles the sets. pluggy's own order and calls are not used.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from gateway.config.sets import hint, place, sets_in_use
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.hookcalls import THREADS, Calls
from gateway.hooks import Hooks
from gateway.pluginchecks import Plugin, one_line
from gateway.plugintables import Compiler

GROUP = "mail_gateway"

log = logging.getLogger(__name__)


def load_plugins(
    settings: Settings,
    config_dir: Path,
    *,
    extra: Mapping[str, object] | None = None,
    previous: Hooks | None = None,
) -> Hooks:
    """Loads the plugins of every set in use. It imports them: to be called at start, not on the event loop.

    `config_dir`: the configuration file's directory. `extra`: plugins by name, besides the installed ones;
    they stand in for installed ones of the same name. `previous`: what was loaded before a reload; the
    counts go on, and its threads that still hang keep their places.

    Raises ConfigError.
    """
    used = sets_in_use(settings)
    extra = extra or {}
    available = _available()
    plugins: dict[str, Plugin] = {}
    for set_name, names in used.items():
        for name in names:
            if name not in plugins:
                given = extra[name] if name in extra else _import(name, set_name, available, extra)
                plugins[name] = Plugin(name, given)
    limiters = dict(previous.limiters) if previous else {}
    for name in plugins:
        limiters.setdefault(name, trio.CapacityLimiter(THREADS))
    calls = previous.calls if previous else Calls()
    return Compiler(settings, config_dir, used, plugins, calls, limiters).hooks()


# --- Finding -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed plugin, not yet imported."""

    name: str
    distribution: str
    version: str
    value: str  # "package.module" or "package.module:object"
    load: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def installed() -> list[Installed]:
    """All installed plugins, by name."""
    return sorted(
        (p for found in _available().values() for p in found), key=lambda p: (p.name, p.distribution)
    )


def _available() -> dict[str, list[Installed]]:
    available: dict[str, list[Installed]] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
        found = Installed(point.name, name, version, point.value, point.load)
        available.setdefault(point.name, []).append(found)
    return available


def _import(
    name: str, set_name: str, available: Mapping[str, Sequence[Installed]], extra: Iterable[str]
) -> object:
    found = available.get(name, ())
    if not found:
        listed = hint(name, sorted({*available, *extra}), "installed are")
        raise ConfigError(f"{place(set_name)}: no plugin {name!r} is installed; {listed}")
    if len(found) > 1:
        both = " and ".join(map(str, found))
        raise ConfigError(f"plugin {name!r}: {both} both have a plugin of this name; uninstall one of them")
    try:
        return found[0].load()
    except Exception as exc:
        log.debug("plugin %r cannot be imported", name, exc_info=exc)
        raise ConfigError(
            f"plugin {name!r} ({found[0]}): cannot be imported: {one_line(exc)};"
            " repair it, or take it out of the plugin sets"
        ) from exc
