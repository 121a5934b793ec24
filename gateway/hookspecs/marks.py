"""What a hook is, and the marks: `hookspec` for the gateway's side of it, `hookimpl` for a plugin's.

What the verbs and the policies mean is written in `gateway.hookspecs`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import pluggy
from pydantic import AfterValidator, Field, ValidationInfo

PROJECT = "gateway"  # pluggy's name for us
SETTINGS = "settings"  # the argument that every hook has
SPEC = "gateway_hook"  # the attribute of a specification that holds its Spec
F = TypeVar("F", bound=Callable[..., Any])


class Verb(enum.Enum):
    FIRST = "first"
    ALL = "all"
    FOLD = "fold"
    TELL = "tell"
    AROUND = "around"


class Scope(enum.Enum):
    """Whose plugin set is asked."""

    GATEWAY = "gateway"
    ACCOUNT = "account"  # the account's, else the domain's, else the gateway's


class OnError(enum.Enum):
    DEFER = "defer"
    FALLBACK = "fallback"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the engine knows of a hook."""

    name: str
    arguments: tuple[str, ...]  # without `settings`
    verb: Verb
    scope: Scope
    limit: float  # seconds, for one plugin's answer; for AROUND each for entering and leaving
    on_error: OnError
    answer: tuple[type, ...]  # None is always an answer too
    necessary: bool  # a set without a plugin for it is refused
    check: Callable[..., str] | None  # (answer, *arguments): what is wrong with it; "" is nothing
    # False: only time-outs suspend it. What it raises for one must not leave it out for the others, where a
    # stranger's mail, answer or name is what it is asked about.
    raising_suspends: bool


def hookspec(
    *,
    verb: Verb,
    scope: Scope,
    limit: float,
    on_error: OnError,
    answer: type | tuple[type, ...],
    necessary: bool = False,
    check: Callable[..., str] | None = None,
    raising_suspends: bool | None = None,
) -> Callable[[F], F]:
    """Makes a method of `HookSpecs` a hook; the arguments are the fields of `Spec`.

    With FALLBACK what is raised does not suspend, unless `raising_suspends` says so.
    """
    if raising_suspends is None:
        raising_suspends = on_error is not OnError.FALLBACK

    def decorate(function: F) -> F:
        names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        if names[-1] != SETTINGS:
            raise TypeError(f"the last argument of hook {function.__name__!r} must be {SETTINGS!r}")
        spec = Spec(
            name=function.__name__,
            arguments=names[:-1],
            verb=verb,
            scope=scope,
            limit=limit,
            on_error=on_error,
            answer=answer if isinstance(answer, tuple) else (answer,),
            necessary=necessary,
            check=check,
            raising_suspends=raising_suspends,
        )
        setattr(function, SPEC, spec)
        return pluggy.HookspecMarker(PROJECT)(function)

    return decorate


# --- What a plugin author uses -------------------------------------------------------------------


@overload
def hookimpl(function: F, /) -> F: ...


@overload
def hookimpl(
    *, thread: bool = False, limit: float | None = None, specname: str | None = None, **options: bool
) -> Callable[[F], F]: ...


def hookimpl(
    function: F | None = None,
    /,
    *,
    thread: bool = False,
    limit: float | None = None,
    specname: str | None = None,
    **options: bool,
) -> F | Callable[[F], F]:
    """Marks a function as a plugin's implementation of the hook of its name.

    `thread`: a plain `def` that blocks; it is run in one of the plugin's own few threads, and abandoned
    there at its limit. `limit`: seconds, instead of the hook's own. `specname`: the hook's name, if the
    function has another. `options` are pluggy's; `optionalhook=True` is for a hook that this version of the
    gateway may not have, and the others are refused when the plugin is loaded.
    """

    def mark(function: F) -> F:
        marked: dict[str, Any] = {"specname": specname, **options}
        pluggy.HookimplMarker(PROJECT)(function, **marked)
        # In pluggy's own record of the function, so that they go with it through every wrapper.
        getattr(function, f"{PROJECT}_impl").update(thread=thread, limit=limit)
        return function

    return mark if function is None else mark(function)


def _from_config_dir(path: Path, info: ValidationInfo) -> Path:
    return info.context["config_dir"] / path if info.context else path


# For a plugin's settings: a path, relative to the directory of the configuration file.
ConfigPath = Annotated[Path, Field(strict=False), AfterValidator(_from_config_dir)]
