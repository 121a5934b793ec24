"""Compiles plugin sets into the tables of `gateway.hooks.stages`, with the settings of each account."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio
from pydantic import BaseModel, ValidationError

from gateway.config.load import describe
from gateway.config.sets import GATEWAY, hint, key, place
from gateway.config.settings import Settings
from gateway.errors import ConfigError, PluginError
from gateway.hooks.calls import Call, Calls, Way
from gateway.hooks.stages import Added, GatewayStages, Hooks, Named, Stages, Table
from gateway.hooks.verbs import all_answers
from gateway.hookspecs import SPECS
from gateway.hookspecs.additions import OWN_METRICS, Collector
from gateway.hookspecs.marks import OnError, Scope, Verb
from gateway.plugins.checks import LIMITS, ON_ERROR, Implementation, Plugin, is_seconds, one_line, raised_at

_NOBODY = ""  # no account in particular

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Configured:
    """What [plugin.NAME] says, with the account's own over it."""

    settings: BaseModel | None
    limits: Mapping[str, float]
    on_error: Mapping[str, OnError]


class Compiler:
    def __init__(
        self,
        settings: Settings,
        config_dir: Path,
        used: Mapping[str, tuple[str, ...]],
        plugins: Mapping[str, Plugin],
        calls: Calls,
        limiters: Mapping[str, trio.CapacityLimiter],
    ) -> None:
        self._settings, self._used, self._plugins = settings, used, plugins
        # What the models of plugins' settings may look at (pydantic's `info.context`).
        self._context = {
            "config_dir": config_dir,
            "route_names": frozenset(
                route.name for _, routes in settings.all_routes() for route in routes if route.name
            ),
        }
        self._calls, self._limiters = calls, limiters
        self._configured: dict[tuple[str, str], _Configured] = {}

    def hooks(self) -> Hooks:
        settings = self._settings
        gateway = self._table(GATEWAY, Scope.GATEWAY, _NOBODY)
        self._require(GATEWAY, Scope.GATEWAY, gateway)
        stages: dict[tuple[str, str], Stages] = {}
        of_account = {_NOBODY: self._stages(stages, GATEWAY, _NOBODY)}
        for account, given in settings.accounts.items():
            domain = settings.domains.get(given.addresses[0].domain)
            name = given.plugin_set or (domain.plugin_set if domain else "") or GATEWAY
            # An account without settings of its own has those of nobody in particular.
            own = any(plugin in given.plugin for plugin in self._used[name])
            of_account[account] = self._stages(stages, name, account if own else _NOBODY)
        for domain in settings.domains.values():
            if domain.plugin_set:  # so that what is wrong with it is said, whoever uses the domain
                self._stages(stages, domain.plugin_set, _NOBODY)
        self._warn()
        transports = _registered(gateway, "transports", "transport type")
        return Hooks(
            gateway=GatewayStages(gateway),
            stages=MappingProxyType(of_account),
            transports=MappingProxyType({name: kind for name, (_, kind) in transports.items()}),
            added=Added(
                transports=transports,
                template_engines=_registered(gateway, "template_engines", "template engine"),
                api_methods=_registered(gateway, "api_methods", "method"),
                pages=_registered(gateway, "pages", "page"),
                commands=_registered(gateway, "commands", "command"),
                services=_registered(gateway, "services", "service"),
                content_stores=_registered(gateway, "content_store", "content store"),
                metrics=_collectors(gateway),
            ),
            calls=self._calls,
            limiters=self._limiters,
        )

    def _stages(self, made: dict[tuple[str, str], Stages], name: str, account: str) -> Stages:
        """Those of a set with an account's settings: one for all who share them."""
        if (name, account) not in made:
            table = self._table(name, Scope.ACCOUNT, account)
            self._require(name, Scope.ACCOUNT, table)
            made[name, account] = Stages(table)
        return made[name, account]

    def _table(self, set_name: str, scope: Scope, account: str) -> Table:
        table: dict[str, tuple[Call, ...]] = {}
        for name in self._used[set_name]:
            for impl in self._plugins[name].implementations:
                if impl.spec.scope is scope:
                    hook = impl.spec.name
                    table[hook] = (*table.get(hook, ()), self._call(name, impl, account))
        return MappingProxyType(table)

    def _call(self, name: str, impl: Implementation, account: str) -> Call:
        given = self._configure(name, account)
        hook = impl.spec.name
        return Call(
            plugin=name,
            spec=impl.spec,
            function=impl.function,
            positions=impl.positions,
            settings=given.settings,
            way=impl.way,
            limit=given.limits.get(hook, impl.limit),
            on_error=given.on_error.get(hook, impl.spec.on_error),
            tally=self._calls.begin(name, hook),
            limiter=self._limiters[name],
            suspends=impl.spec.verb is not Verb.ALL,
        )

    def _require(self, set_name: str, scope: Scope, table: Table) -> None:
        for spec in SPECS.values():
            if spec.necessary and spec.scope is scope and spec.name not in table:
                raise ConfigError(
                    f"{place(set_name)}: none of its plugins has the hook {spec.name!r},"
                    " which is necessary; add one that has"
                )

    def _configure(self, name: str, account: str) -> _Configured:
        over = self._settings.accounts[account].plugin.get(name) if account else None
        owner = account if over is not None else _NOBODY
        if (name, owner) not in self._configured:
            where = (
                f"accounts.{key(account)}.plugin.{key(name)}" if over is not None else f"plugin.{key(name)}"
            )
            raw = _laid_over(self._settings.plugin.get(name, {}), over or {})
            limits, on_error = raw.pop(LIMITS, {}), raw.pop(ON_ERROR, {})
            plugin = self._plugins[name]
            self._configured[name, owner] = _Configured(
                settings=_parse(plugin, raw, where, self._context),
                limits=_limits(plugin, limits, f"{where}.{LIMITS}"),
                on_error=_on_error(plugin, on_error, f"{where}.{ON_ERROR}"),
            )
        return self._configured[name, owner]

    def _warn(self) -> None:
        settings = self._settings
        places = [("plugin", settings.plugin)]
        places += [(f"accounts.{key(a)}.plugin", s.plugin) for a, s in settings.accounts.items()]
        for where, tables in places:
            for name in tables:
                if name not in self._plugins:
                    longer = [p for p in sorted(self._plugins) if p.startswith(f"{name}.")]
                    advice = f'; for {longer[0]!r}, write [{where}."{longer[0]}"]' if longer else ""
                    log.warning("%s.%s: no plugin set in use has this plugin%s", where, key(name), advice)
        for name, plugin in self._plugins.items():
            hooks = [i.spec.name for i in plugin.implementations if i.spec.scope is Scope.GATEWAY]
            if hooks and name not in self._used[GATEWAY]:
                log.warning(
                    "plugin %r: %s is not called, because no set of plugins.sets has the plugin",
                    name,
                    ", ".join(hooks),
                )


def _laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over`, table by table."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _laid_over(below, value)
        merged[name] = value
    return merged


def _parse(
    plugin: Plugin, raw: Mapping[str, Any], where: str, context: Mapping[str, object]
) -> BaseModel | None:
    if plugin.model is None:
        if raw:
            raise ConfigError(f"{where}.{key(min(raw))}: plugin {plugin.name!r} has no settings; remove it")
        return None
    try:
        return plugin.model.model_validate(raw, context=context)
    except ValidationError as exc:
        dot = "." if exc.errors(include_url=False)[0]["loc"] else ": "
        raise ConfigError(f"{where}{dot}{describe(exc, plugin.model)}") from None
    except Exception as exc:
        raise ConfigError(f"{where}: cannot be read by plugin {plugin.name!r}: {one_line(exc)}") from exc


def _limits(plugin: Plugin, given: object, where: str) -> dict[str, float]:
    limits = {}
    for hook, value in _by_hook(plugin, given, where).items():
        if not is_seconds(value):
            raise ConfigError(f"{where}.{hook}: must be a number of seconds above 0, not {value!r}")
        plain = [i for i in plugin.implementations if i.way is Way.PLAIN and i.spec.verb is not Verb.AROUND]
        if any(i.spec.name == hook for i in plain):
            log.warning(
                "%s.%s: has no effect, because the plugin's function is neither async nor threaded",
                where,
                hook,
            )
        limits[hook] = float(value)
    return limits


def _on_error(plugin: Plugin, given: object, where: str) -> dict[str, OnError]:
    policies = {}
    for hook, value in _by_hook(plugin, given, where).items():
        # After the hand-over to the next hop, nothing that a plugin does may stop the gateway.
        allowed = [
            p for p in OnError if p is not OnError.DEFER or SPECS[hook].on_error is not OnError.FALLBACK
        ]
        if value not in [p.value for p in allowed]:
            names = " or ".join(repr(p.value) for p in allowed)
            raise ConfigError(f"{where}.{hook}: must be {names}, not {value!r}")
        policies[hook] = OnError(value)
    return policies


def _by_hook(plugin: Plugin, given: object, where: str) -> Mapping[str, Any]:
    hooks = [i.spec.name for i in plugin.implementations]
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: must be a table with a plugin's hooks as keys, not {given!r}")
    for hook in given:
        if hook not in hooks:
            listed = hint(hook, hooks, "it has")
            raise ConfigError(f"{where}.{key(hook)}: plugin {plugin.name!r} has no hook {hook!r}; {listed}")
    return given


def _listed(table: Table, hook: str, each: Callable[[Any], Iterable[Any]]) -> tuple[tuple[str, Any], ...]:
    """Each thing that the plugins answered to a hook of the verb ALL, with its plugin's name."""
    try:
        answers = all_answers(table.get(hook, ()))
    except PluginError as exc:
        where = raised_at(exc.__cause__)
        raise ConfigError(f"{exc}{where}; repair it, or take it out of the plugin sets") from exc
    return tuple((plugin, value) for plugin, given in answers for value in each(given))


def _registered(table: Table, hook: str, what: str) -> Named[Any]:
    """What the plugins answered to a hook of the verb ALL, by name, each with its plugin's."""
    found: dict[str, tuple[str, Any]] = {}
    for plugin, (name, value) in _listed(table, hook, lambda given: given.items()):
        if name in found:
            raise ConfigError(
                f"plugin {plugin!r}, hook {hook!r}: plugin {found[name][0]!r} has the {what} {name!r} too;"
                " take one of them out of the plugin sets"
            )
        found[name] = plugin, value
    return MappingProxyType(found)


def _collectors(table: Table) -> tuple[tuple[str, Collector], ...]:
    """The collectors of metrics. Two of one name would make all of them unreadable; what a collector does not
    describe is looked at when it is collected."""
    listed = _listed(table, "metrics", iter)
    found: dict[str, str] = {}
    for plugin, collector in listed:
        where = f"plugin {plugin!r}, hook 'metrics'"
        try:
            names = [metric.name for metric in getattr(collector, "describe", tuple)()]
        except Exception as exc:
            raise ConfigError(f"{where}: a collector's describe raised {one_line(exc)}; repair it") from exc
        for name in names:
            if name.startswith(OWN_METRICS):
                raise ConfigError(
                    f"{where}: the metric {name!r} begins as the gateway's own; choose another name"
                )
            if name in found:
                raise ConfigError(
                    f"{where}: plugin {found[name]!r} has the metric {name!r} too;"
                    " take one of them out of the plugin sets"
                )
            found[name] = plugin
    return listed
