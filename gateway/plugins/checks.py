"""A plugin that is imported: its hooks' implementations and its settings' model, checked.

pluggy finds the implementations; what is wrong with one is refused in one line that says what to do.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy
from pydantic import BaseModel

from gateway.config.sets import hint
from gateway.errors import ConfigError
from gateway.hooks.calls import Way, passes
from gateway.hookspecs import SPECS, HookSpecs
from gateway.hookspecs.marks import PROJECT, SETTINGS, Spec, Verb

# Keys of [plugin.NAME] that are ours; the rest is the plugin's.
LIMITS, ON_ERROR = "limits", "on_error"


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
            except BaseException as exc:
                if passes(exc):
                    raise
                raise ConfigError(f"plugin {name!r}: cannot be made: {one_line(exc)}; repair it") from exc
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
            raise ConfigError(f"plugin {self.name!r}: cannot be read: {one_line(exc)}; repair it") from exc
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
        used = {impl.spec.name: getattr(HookSpecs, impl.spec.name) for impl in checked}
        try:  # a second opinion; of all hooks it would take as long as the rest of a start
            manager.add_hookspecs(type("Used", (), used))
            manager.check_pending()
        except pluggy.PluginValidationError as exc:
            raise ConfigError(f"plugin {self.name!r}: is not valid: {one_line(exc)}; repair it") from exc
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
        if limit is not None and not is_seconds(limit):
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


def is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def one_line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:500]


def raised_at(exc: BaseException | None) -> str:
    """The place in the plugin's code, in brackets; empty if nothing was raised."""
    frames = traceback.extract_tb(exc.__traceback__ if exc is not None else None)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
