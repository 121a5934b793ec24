"""What plugins import does not change unannounced: tests/hooks/surface.txt has all public names.

A change that is meant: `python -m tests.hooks.test_surface` writes the file anew; say it in CHANGELOG.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gateway
from gateway import testing
from gateway.hookspecs import SPECS, HookSpecs
from gateway.testing import conformance

FILE = Path(__file__).with_name("surface.txt")


def surface() -> Iterator[str]:
    """A line for each public name, each of its public members, and each hook."""
    yield from _names("", gateway, gateway.__all__)
    yield from _names("testing.", testing, testing.__all__)
    suites = [name for name in vars(conformance) if name.endswith("Suite")]
    yield from _names("testing.conformance.", conformance, suites)
    for name, spec in SPECS.items():
        signature = inspect.signature(getattr(HookSpecs, name))
        yield (
            f"hook {name}{signature}: {spec.verb.name}, {spec.scope.value}, {spec.limit:g} s,"
            f" {spec.on_error.name}{', necessary' if spec.necessary else ''}"
        )


def _names(prefix: str, module: Any, names: Sequence[str]) -> Iterator[str]:
    for name in sorted(names):
        thing = getattr(module, name)
        yield f"{prefix}{name}: {_kind(thing)}"
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            yield from _members(f"{prefix}{name}", thing)


def _kind(thing: Any) -> str:
    if inspect.isclass(thing):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        return f"class({bases})"
    if inspect.isfunction(thing):
        return f"{_async(thing)}def {inspect.signature(thing)}"
    return re.sub(r"<function (\w+) at \w+>", r"\1", str(thing))


def _async(function: Any) -> str:
    return "async " if inspect.iscoroutinefunction(function) else ""


def _members(name: str, kind: type[Any]) -> Iterator[str]:
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            if field.name.startswith("_"):
                continue
            required = field.default is field.default_factory is dataclasses.MISSING
            yield f"{name}.{field.name}: {field.type}{'' if required else ' = ...'}"
    for member, value in sorted(vars(kind).items()):
        if member.startswith("_") or member in getattr(kind, "__slots__", ()):
            continue
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function):
            yield f"{_async(function)}{name}.{member}{inspect.signature(function)}"
        elif isinstance(value, property):
            yield f"{name}.{member}: property"
        elif isinstance(value, kind):
            yield f"{name}.{member}"


def test_nothing_changed_unannounced() -> None:
    said = "the public names changed; if that is meant, run python -m tests.hooks.test_surface, and tell it"
    assert list(surface()) == FILE.read_text(encoding="utf-8").splitlines(), said


def test_a_change_would_be_seen() -> None:
    """Of each kind of line there is one."""
    lines = "\n".join(surface())
    for part in (
        "hook route(self, message: 'QueuedMessage', ",
        "hook retry(",
        "-> 'RetryAt | GiveUp | None': FIRST, account, 5 s, FALLBACK",
        "\nOutcome.code: int = ...\n",
        "\nEventName: typing.Literal['delivered', ",
        "\nasync testing.RunningGateway.deliver(self, ",
        "\ntesting.temporary: def (",
        "\ntesting.conformance.TransportSuite.accepting(self",
    ):
        assert part in lines


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in surface()), encoding="utf-8")
