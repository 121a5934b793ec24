"""Finds plugins, checks them, and compiles plugin sets into the tables of `gateway.hooks`.

A plugin is an entry point of the group "mail_gateway": its name is the plugin's, its value a module, an
object, or a class that is made without arguments. Built-in plugins are found in the same way. Only those
are imported that a plugin set in use names; pluggy finds their hook implementations, and what is
wrong with one is refused here, in one line that says what to do. pluggy's own order and calls are not used.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy
import trio
from pydantic import BaseModel, ValidationError

from gateway.config.load import describe
from gateway.config.sets import GATEWAY, hint, key, place, sets_in_use
from gateway.config.settings import Settings
from gateway.errors import ConfigError, PluginError
from gateway.hookcalls import THREADS, Call, Calls, Way, all_answers
from gateway.hooks import GatewayStages, Hooks, Stages, Table
from gateway.hookspecs import PROJECT, SETTINGS, SPECS, HookSpecs, OnError, Scope, Spec, Verb

GROUP = "mail_gateway"
# Keys of [plugin.NAME] that are ours; the rest is the plugin's.
LIMITS, ON_ERROR = "limits", "on_error"
_NOBODY = ""  # no account in particular

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
    return _Compiler(settings, config_dir, used, plugins, calls, limiters).hooks()


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
            f"plugin {name!r} ({found[0]}): cannot be imported: {_one_line(exc)};"
            " repair it, or take it out of the plugin sets"
        ) from exc


def _one_line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:500]


# --- Checking ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Implementation:
    """A plugin's function for a hook, checked."""

    spec: Spec
    function: Callable[..., Any]
    positions: tuple[int, ...]  # of its arguments in (*spec.arguments, settings)
    way: Way
    limit: float  # seconds


class Plugin:
    """A plugin that is imported and checked. Raises ConfigError."""

    def __init__(self, name: str, given: object) -> None:
        self.name = name
        if inspect.isclass(given):
            try:
                given = given()
            except Exception as exc:
                raise ConfigError(f"plugin {name!r}: cannot be made: {_one_line(exc)}; repair it") from exc
        self.model = self._model(given)
        self.implementations = self._implementations(given)

    def _model(self, given: object) -> type[BaseModel] | None:
        model = getattr(given, "Settings", None)
        if model is None:
            return None
        if not inspect.isclass(model) or not issubclass(model, BaseModel):
            raise ConfigError(f"plugin {self.name!r}: Settings must be a subclass of pydantic.BaseModel")
        for taken in (LIMITS, ON_ERROR):
            if taken in model.model_fields:
                raise ConfigError(
                    f"plugin {self.name!r}: Settings has a field {taken!r}, which is the gateway's; rename it"
                )
        return model

    def _implementations(self, given: object) -> tuple[Implementation, ...]:
        manager = pluggy.PluginManager(PROJECT)  # one each: pluggy refuses plugins that compare equal
        try:
            manager.register(given, self.name)
        except Exception as exc:
            raise ConfigError(f"plugin {self.name!r}: cannot be read: {_one_line(exc)}; repair it") from exc
        checked = []
        for caller in manager.get_hookcallers(given) or ():
            for impl in caller.get_hookimpls():
                if caller.name in SPECS:
                    checked.append(self._check(SPECS[caller.name], impl))
                elif not impl.optionalhook:
                    listed = hint(caller.name, SPECS, "the hooks are")
                    raise ConfigError(f"plugin {self.name!r}: there is no hook {caller.name!r}; {listed}")
        if not checked:
            raise ConfigError(
                f"plugin {self.name!r}: has no hooks; mark its functions with @gateway.hookimpl"
            )
        try:  # a second opinion
            manager.add_hookspecs(HookSpecs)
            manager.check_pending()
        except pluggy.PluginValidationError as exc:
            raise ConfigError(f"plugin {self.name!r}: is not valid: {_one_line(exc)}; repair it") from exc
        return tuple(checked)

    def _check(self, spec: Spec, impl: pluggy.HookImpl) -> Implementation:
        def refuse(problem: str) -> ConfigError:
            return ConfigError(f"plugin {self.name!r}, hook {spec.name!r}: {problem}")

        options: Mapping[str, Any] = {**impl.opts}
        if impl.wrapper or impl.hookwrapper:
            raise refuse("pluggy's wrappers are not supported; make it an ordinary function")
        if impl.tryfirst or impl.trylast:
            raise refuse("tryfirst and trylast are not supported; the order is the plugin set's")
        function = impl.function
        is_async = inspect.iscoroutinefunction(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            around = spec.verb is Verb.AROUND
            advice = "decorate it with contextlib.asynccontextmanager" if around else "use return, not yield"
            raise refuse(f"is a generator function; {advice}")
        if is_async and spec.verb is Verb.ALL:
            raise refuse("must not be async, because it is called while loading; make it a plain def")
        thread = bool(options.get("thread"))
        if thread and (is_async or spec.verb in (Verb.ALL, Verb.AROUND)):
            kind = "an async function" if is_async else "this hook"
            raise refuse(f"thread=True is not for {kind}; remove it")
        limit = options.get("limit")
        if limit is not None and not _is_seconds(limit):
            raise refuse(f"limit must be a number of seconds above 0, not {limit!r}")
        return Implementation(
            spec=spec,
            function=function,
            positions=self._positions(spec, function, refuse),
            way=Way.ASYNC if is_async else Way.THREAD if thread else Way.PLAIN,
            limit=spec.limit if limit is None else float(limit),
        )

    def _positions(
        self, spec: Spec, function: Callable[..., Any], refuse: Callable[[str], ConfigError]
    ) -> tuple[int, ...]:
        known = (*spec.arguments, SETTINGS)
        positions = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                stars = parameter.replace(annotation=parameter.empty)
                raise refuse(f"takes {stars}; name the arguments that it needs, of {', '.join(known)}")
            if parameter.name not in known:
                listed = hint(parameter.name, known, "it can take")
                raise refuse(f"there is no argument {parameter.name!r}; {listed}")
            if parameter.kind is parameter.KEYWORD_ONLY:
                raise refuse(f"argument {parameter.name!r} is keyword-only; make it an ordinary one")
            if parameter.name == SETTINGS and self.model is None:
                raise refuse("takes settings, but the plugin has no model for them; add a class Settings")
            positions.append(known.index(parameter.name))
        return tuple(positions)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


# --- Compiling -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Configured:
    """What [plugin.NAME] says, with the account's own over it."""

    settings: BaseModel | None
    limits: Mapping[str, float]
    on_error: Mapping[str, OnError]


class _Compiler:
    def __init__(
        self,
        settings: Settings,
        config_dir: Path,
        used: Mapping[str, tuple[str, ...]],
        plugins: Mapping[str, Plugin],
        calls: Calls,
        limiters: Mapping[str, trio.CapacityLimiter],
    ) -> None:
        self._settings, self._config_dir, self._used, self._plugins = settings, config_dir, used, plugins
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
            template_engines=MappingProxyType(_registered(gateway, "template_engines", "template engine")),
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
            limiter=self._limiters[name],
            tally=self._calls[name, hook],
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
                settings=_parse(plugin, raw, where, self._config_dir),
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


def _parse(plugin: Plugin, raw: Mapping[str, Any], where: str, config_dir: Path) -> BaseModel | None:
    if plugin.model is None:
        if raw:
            raise ConfigError(f"{where}.{key(min(raw))}: plugin {plugin.name!r} has no settings; remove it")
        return None
    try:
        return plugin.model.model_validate(raw, context={"config_dir": config_dir})
    except ValidationError as exc:
        dot = "." if exc.errors(include_url=False)[0]["loc"] else ": "
        raise ConfigError(f"{where}{dot}{describe(exc, plugin.model)}") from None
    except Exception as exc:
        raise ConfigError(f"{where}: cannot be read by plugin {plugin.name!r}: {_one_line(exc)}") from exc


def _limits(plugin: Plugin, given: object, where: str) -> dict[str, float]:
    limits = {}
    for hook, value in _by_hook(plugin, given, where).items():
        if not _is_seconds(value):
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


def _registered(table: Table, hook: str, what: str) -> dict[str, tuple[str, Any]]:
    """What the plugins answered to a hook of the verb ALL, by name, each with its plugin's."""
    found: dict[str, tuple[str, Any]] = {}
    try:
        answers = all_answers(table.get(hook, ()))
    except PluginError as exc:
        raise ConfigError(f"{exc}; repair it, or take it out of the plugin sets") from exc
    for plugin, given in answers:
        for name, value in given.items():
            if name in found:
                raise ConfigError(
                    f"plugin {plugin!r}, hook {hook!r}: plugin {found[name][0]!r} has the {what}"
                    f" {name!r} too; take one of them out of the plugin sets"
                )
            found[name] = plugin, value
    return found
