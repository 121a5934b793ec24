"""Methods of the API that plugins added: like any other, but for who answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from gateway.errors import ApiError, ConfigError
from gateway.hooks.calls import Nonsense, ask
from gateway.hooks.registered import registered_call
from gateway.hooks.stages import Hooks
from gateway.hookspecs.additions import ApiCall, ApiMethod
from gateway.web.api.calls import Call
from gateway.web.api.errors import BadRequest
from gateway.web.api.jsontypes import Request, Response
from gateway.web.api.methods import METHODS, Method

HOOK = "api_methods"


def all_methods(hooks: Hooks) -> Mapping[str, Method]:
    """The gateway's methods and those that plugins added. Raises ConfigError."""
    methods = dict(METHODS)
    for name, (plugin, added) in hooks.added.api_methods.items():
        if name in methods:
            raise ConfigError(
                f"plugin {plugin!r}, hook {HOOK!r}: the API has a method {name} already; choose another name"
            )
        methods[name] = _method(name, added, plugin, hooks)
    return methods


def _method(name: str, added: ApiMethod, plugin: str, hooks: Hooks) -> Method:
    async def answer(call: ApiCall, request: Any) -> Any:
        try:
            found = await added.handler(call, request)
        except ApiError as exc:  # an answer, not a failure
            return exc
        if not isinstance(found, added.response):
            raise Nonsense(f"answered {type(found).__name__}; expected {added.response.__name__}")
        return found

    asked = registered_call(
        plugin,
        HOOK,
        f"plugin {plugin!r}, method {name!r}",
        answer,
        arguments=("call", "request"),
        tally=hooks.calls[plugin, HOOK],
        limit=added.limit,
    )

    async def handler(call: Call, request: Any) -> Response:
        login = call.login
        found = await ask(asked, (ApiCall(account=login.account, login=login.address), request))
        if isinstance(found, ApiError):
            raise BadRequest("user", str(found))
        return cast(Response, found)

    return Method(
        name=name,
        summary=added.summary,
        scope=added.scope,
        # Any pydantic model will do: what ours add is only how they are configured.
        request=cast(type[Request], added.request),
        response=cast(type[Response], added.response),
        handler=handler,
        example_request=added.example_request,
        example_response=cast(Response, added.example_response),
    )
