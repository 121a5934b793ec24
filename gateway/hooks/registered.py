"""What plugins registered (transports, pages, services, content stores, ...) is called as their hooks are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call, Way
from gateway.hookspecs.marks import OnError, Scope, Spec, Verb


def registered_call(
    plugin: str,
    hook: str,
    label: str,
    function: Callable[..., Any],
    *,
    arguments: tuple[str, ...],
    tally: Tally,
    plain: bool = False,
    limit: float = math.inf,
    suspends: bool = False,
) -> Call:
    """A call that raises PluginError when it fails.

    `hook`: where it was registered, whose `tally` counts its calls too. `label`: for people. `function`
    raises Nonsense for an answer of the wrong kind; it is awaited unless `plain`. `limit`: seconds.
    """

    async def run(*given: Any) -> Any:
        return await function(*given)  # perhaps anything with __await__; what is run is a coroutine's steps

    return Call(
        plugin=plugin,
        spec=Spec(
            name=hook,
            arguments=arguments,
            verb=Verb.FIRST,
            scope=Scope.GATEWAY,
            limit=limit,
            on_error=OnError.DEFER,
            answer=(object,),
            necessary=False,
            check=None,
            raising_suspends=True,
        ),
        function=function if plain else run,
        positions=tuple(range(len(arguments))),
        settings=None,
        way=Way.PLAIN if plain else Way.ASYNC,
        limit=limit,
        on_error=OnError.DEFER,
        tally=tally,
        suspends=suspends,
        label=label,
    )
