"""Mappings that do not change, for the snapshots that plugins are given.

A dict of a kind, and not a `MappingProxyType`: it goes through pickle, `json.dumps` and
`dataclasses.asdict`, as what plugins do with it.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that raises TypeError when it is changed; `{**it, key: value}` is a changed copy."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "this mapping is a snapshot and cannot be changed; {**it, key: value} makes a changed copy"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


_EMPTY: FrozenDict[Any, Any] = FrozenDict()


def frozen(value: Any) -> Any:
    """`value` with its dicts and lists made unchangeable, down to the bottom; anything else as it is."""
    kind = type(value)
    if kind is dict:
        return FrozenDict({key: frozen(inner) for key, inner in value.items()}) if value else _EMPTY
    if kind is list or kind is tuple:
        return tuple([frozen(inner) for inner in value])
    return value


def freeze(made: object, *names: str) -> None:
    """For `__post_init__` of a frozen dataclass: the fields `names` are frozen to the bottom."""
    for name in names:
        object.__setattr__(made, name, frozen(getattr(made, name)))
