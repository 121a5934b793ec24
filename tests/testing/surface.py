"""The public surface, a line for each thing that a plugin may rely on: docs/plugins/publishing.md.

    python -m tests.testing.surface

writes it down. What is added needs no line here at once, since it has to be documented (tests/thirdparty);
what is taken away or changed has to be said in the changelog, and written down anew.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gateway
from gateway import testing
from gateway.hookspecs import SPECS, HookSpecs
from gateway.testing import conformance

FILE = Path(__file__).with_name("surface.txt")


def surface() -> list[str]:
    return [*hooks(), *names("gateway", gateway, gateway.__all__), *kit()]


def hooks() -> Iterator[str]:
    for name, spec in SPECS.items():
        yield f"hook {name}: {spec.verb.name} {spec.scope.value} {spec.on_error.name}"
        signature = inspect.signature(getattr(HookSpecs, name))
        for parameter in list(signature.parameters.values())[1:]:
            yield f"hook {name}: {parameter.name}: {parameter.annotation}"
        yield f"hook {name}: answers {signature.return_annotation}"


def kit() -> Iterator[str]:
    yield from names("gateway.testing", testing, testing.__all__)
    suites = [name for name in vars(conformance) if name.endswith("Suite")]
    yield from names("gateway.testing.conformance", conformance, suites)


def names(module: str, holder: Any, listed: list[str]) -> Iterator[str]:
    for name in sorted(listed):
        value = getattr(holder, name)
        yield f"{module}.{name}"
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                if not field.name.startswith("_"):
                    yield f"{module}.{name}.{field.name}: {field.type}"
        elif inspect.isfunction(value):
            yield from _parameters(f"{module}.{name}", value)
        for choice in get_args(value):
            if isinstance(choice, str):
                yield f"{module}.{name} may be {choice!r}"
        if inspect.isclass(value) and value.__module__.startswith("gateway"):
            for method, function in sorted(vars(value).items()):
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield from _parameters(f"{module}.{name}.{method}", function)


def _parameters(name: str, function: Any) -> Iterator[str]:
    kind = "async " if inspect.iscoroutinefunction(function) else ""
    yield f"{name}: {kind}function"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != "self":
            yield f"{name}: {parameter.name}: {parameter.annotation}"


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in surface()), encoding="utf-8")
