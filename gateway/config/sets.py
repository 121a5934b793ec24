"""Plugin sets: named, ordered lists of plugins, built in (sets.toml) or configured ([plugin_sets.NAME])."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files

import tomli

from gateway.config.settings import PluginSet, Settings
from gateway.errors import ConfigError

GATEWAY = ""  # stands for the sets of `plugins.sets` together


def plugin_sets(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Every plugin set, built-in or configured, with its plugins in order. Raises ConfigError."""
    built_in = tomli.loads(files("gateway.config").joinpath("sets.toml").read_text("utf-8"))["plugin_sets"]
    defined = {name: PluginSet.model_validate(value) for name, value in built_in.items()}
    defined.update(settings.plugin_sets)
    resolved: dict[str, tuple[str, ...]] = {}

    def resolve(name: str, above: tuple[str, ...]) -> tuple[str, ...]:
        if name in above:
            circle = " → ".join([*above[above.index(name) :], name])
            raise ConfigError(
                f"plugin_sets.{key(above[-1])}.include: goes in a circle: {circle}; take one out"
            )
        if name not in resolved:
            given = defined[name]
            included: list[str] = []
            for other in given.include:
                if other not in defined:
                    raise ConfigError(_no_set(f"plugin_sets.{key(name)}.include", other, defined))
                included += resolve(other, (*above, name))
            for plugin in given.without:
                if plugin not in included:
                    raise ConfigError(
                        f"plugin_sets.{key(name)}.without: {plugin!r} is in none of the included sets;"
                        f" {hint(plugin, included, 'these are')}"
                    )
            kept = [plugin for plugin in included if plugin not in given.without]
            resolved[name] = tuple(dict.fromkeys([*kept, *given.plugins]))
        return resolved[name]

    for name in defined:
        resolve(name, ())
    return resolved


def sets_in_use(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The sets that the gateway (under ""), a domain or an account names, with their plugins."""
    sets = plugin_sets(settings)
    chosen = [(f"domains.{key(d)}.plugin_set", s.plugin_set) for d, s in settings.domains.items()]
    chosen += [(f"accounts.{key(a)}.plugin_set", s.plugin_set) for a, s in settings.accounts.items()]
    chosen = [(where, name) for where, name in chosen if name]
    for where, name in [*(("plugins.sets", name) for name in settings.plugins.sets), *chosen]:
        if name not in sets:
            raise ConfigError(_no_set(where, name, sets))
    together = [plugin for name in settings.plugins.sets for plugin in sets[name]]
    return {GATEWAY: tuple(dict.fromkeys(together))} | {name: sets[name] for _, name in chosen}


def _no_set(where: str, name: str, sets: Iterable[str]) -> str:
    return f"{where}: there is no plugin set {name!r}; {hint(name, sets, 'there are')}"


def place(name: str) -> str:
    """Where the configuration defines a set of `sets_in_use`."""
    return "plugins.sets" if name == GATEWAY else f"plugin_sets.{key(name)}"


def hint(name: str, known: Iterable[str], lead: str) -> str:
    """What may have been meant by a name that is not known, and what is known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    listed = f"{lead}: {', '.join(known) or 'none'}"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


def key(name: str) -> str:
    """A key as TOML has it: a dot in it must be quoted."""
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else f'"{name}"'
