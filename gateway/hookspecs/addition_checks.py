"""What must hold of what plugins add (`gateway.hookspecs.additions`), besides its type.

For answers of the other stages: `gateway.hookspecs.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import click
from pydantic import BaseModel

from gateway.hookspecs.additions import ApiMethod, Authenticated
from gateway.mail.address import Address
from gateway.model import Scope

_METHOD_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_PAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_COMMAND_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_SERVICE_NAME = re.compile(r"\S(?:.{0,62}\S)?")


def authenticate(answer: Any, *_: object) -> str:
    if not isinstance(answer, Authenticated):
        return "True (to let somebody in, answer Authenticated with an account)" if answer else ""
    account: object = answer.account
    if not isinstance(account, str) or not isinstance(answer.address, Address | None):
        return "an Authenticated whose account is not a str, or whose address is no Address"
    return ""


def _named(
    answer: Mapping[Any, Any], name: re.Pattern[str], is_good: Callable[[Any], bool], what: str
) -> str:
    for key, value in answer.items():
        if not isinstance(key, str) or not name.fullmatch(key):
            return f"a Mapping with the name {key!r}, which does not match {name.pattern}"
        if not is_good(value):
            return f"a Mapping with {key!r}: {type(value).__name__} in place of {what}"
    return ""


def api_methods(answer: Any, *_: object) -> str:
    return _named(answer, _METHOD_NAME, _is_method, "a good ApiMethod")


def _is_method(value: Any) -> bool:
    kinds: tuple[object, ...] = (value.request, value.response) if isinstance(value, ApiMethod) else ()
    return (
        isinstance(value, ApiMethod)
        and all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
        and callable(value.handler)
        and isinstance(value.example_request, Mapping)
        and isinstance(value.example_response, value.response)
        and isinstance(value.summary, str)
        and value.scope in get_args(Scope)
        and type(value.limit) in (int, float)
        and 0 < value.limit <= 3600
    )


def pages(answer: Any, *_: object) -> str:
    return _named(answer, _PAGE_NAME, callable, "an ASGI application")


def commands(answer: Any, *_: object) -> str:
    return _named(answer, _COMMAND_NAME, lambda value: isinstance(value, click.Command), "a click.Command")


_STORE_METHODS = ("put", "open", "delete", "names")


def content_store(answer: Any, *_: object) -> str:
    def is_store(value: Any) -> bool:
        return all(callable(getattr(value, method, None)) for method in _STORE_METHODS)

    return _named(answer, _PAGE_NAME, is_store, f"an object with the methods {', '.join(_STORE_METHODS)}")


def services(answer: Any, *_: object) -> str:
    return _named(answer, _SERVICE_NAME, callable, "an async function")


def metrics(answer: Any, *_: object) -> str:
    for collector in answer:
        if not callable(getattr(collector, "collect", None)):
            return f"{type(collector).__name__} in place of a collector of prometheus_client"
    return ""
