"""Finds and loads plugins.

A plugin is an entry point of the group "mail_gateway": its name is the plugin's, its value a module, an
object, or a class that is made without arguments. Built-in plugins are found in the same way. Small ones
may be a file NAME.py in the directory `plugins.directory`. Only those are imported that a plugin set in use
names; `gateway.plugins.checks` looks at what they are, and `gateway.plugins.tables` compiles the sets.
pluggy's own order and calls are not used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import trio

from gateway.config.sets import hint, place, sets_in_use
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.hooks.calls import THREADS, Calls, passes
from gateway.hooks.stages import Hooks
from gateway.plugins.checks import Plugin, one_line
from gateway.plugins.tables import Compiler

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
    available = _available(_directory(settings))
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
        return f"{self.distribution} {self.version}".strip()


def installed(settings: Settings | None = None) -> list[Installed]:
    """All installed plugins, by name, and with `settings` those in the directory of files. Raises
    ConfigError."""
    directory = _directory(settings) if settings is not None else None
    return sorted(
        (p for found in _available(directory).values() for p in found), key=lambda p: (p.name, p.distribution)
    )


def _directory(settings: Settings) -> Path | None:
    """Raises ConfigError."""
    if not settings.plugins.directory:
        return None
    directory = Path(settings.plugins.directory)
    if not directory.is_dir():
        raise ConfigError(f"plugins.directory: {directory} is no directory; make it, or remove the setting")
    return directory


def _available(directory: Path | None) -> dict[str, list[Installed]]:
    available: dict[str, list[Installed]] = {}
    named = cache(lambda of: (of.name, of.version))  # each asks for the metadata to be read once more
    for point in importlib.metadata.entry_points(group=GROUP):
        name, version = named(point.dist) if point.dist else ("unknown", "")
        found = Installed(point.name, name, version, point.value, point.load)
        available.setdefault(point.name, []).append(found)
    for file in sorted(directory.glob("*.py")) if directory is not None else ():
        found = Installed(file.stem, str(file), "", str(file), partial(_import_file, file))
        available.setdefault(file.stem, []).append(found)
    return available


def _import_file(file: Path) -> ModuleType:
    # By a name that no package has; in sys.modules, where annotations of its classes are looked up.
    name = "gateway_file_plugin_" + re.sub(r"\W", lambda found: f"_{ord(found[0]):x}_", str(file.resolve()))
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(
    name: str, set_name: str, available: Mapping[str, Sequence[Installed]], extra: Iterable[str]
) -> object:
    found = available.get(name, ())
    if not found:
        listed = hint(name, sorted({*available, *extra}), "installed are")
        raise ConfigError(f"{place(set_name)}: no plugin {name!r} is installed; {listed}")
    if len(found) > 1:
        both = " and ".join(map(str, found))
        raise ConfigError(f"plugin {name!r}: {both} both have a plugin of this name; remove one of them")
    try:
        return found[0].load()
    except BaseException as exc:  # a script may end with sys.exit
        if passes(exc):
            raise
        log.debug("plugin %r cannot be imported", name, exc_info=exc)
        raise ConfigError(
            f"plugin {name!r} ({found[0]}): cannot be imported: {one_line(exc)};"
            " repair it, or take it out of the plugin sets"
        ) from exc
