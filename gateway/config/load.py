"""From a TOML file to `Settings`, or to one line that says where it is wrong and what to do."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from gateway.config.settings import Settings
from gateway.config.values import without_login
from gateway.errors import ConfigError

MAX_SHOWN = 100  # characters of a value that is wrong
_NO_TABLE = ("model_type", "model_attributes_type", "dict_type", "mapping_type")  # pydantic's names of errors


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises ConfigError when it cannot be read or is no TOML."""
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; name its directory with --dir") from None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 (byte {exc.start}); save it as UTF-8") from None
    except tomli.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: is not valid TOML: {exc}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is not valid TOML: nested too deeply") from None
    except ValueError:  # Python's limit, for which TOML has no error of its own
        raise ConfigError(f"{path}: has a number with more than 4300 digits") from None


def parse(raw: Mapping[str, Any], path: Path) -> Settings:
    """Settings from TOML tables; `path` is the file's, for error messages and relative paths."""
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(f"{path}: {describe(exc, Settings)}") from None
    base = path.parent.absolute()
    plugins = settings.plugins
    if plugins.directory:
        plugins = plugins.model_copy(update={"directory": str(base / plugins.directory)})
    return settings.model_copy(update={"data_dir": base / settings.data_dir, "plugins": plugins})


def load(path: Path) -> Settings:
    """Read and parse a configuration file. Raises ConfigError."""
    return parse(read_toml(path), path)


def describe(exc: ValidationError, model: type[BaseModel]) -> str:
    """A validation error in one line: the place, what is wrong, what to write instead."""
    errors = exc.errors(include_url=False, include_context=False)
    # A name that is wrong is more often the cause of one that is missing than the other way round.
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ""
    for part in first["loc"]:
        if part == "[key]":  # pydantic's word for a key that is wrong, which comes before it
            continue
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            place += ("." if place else "") + (part if part.replace("_", "").isalnum() else f'"{part}"')
    text = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "an array, such as [...]")
    if first["type"] == "extra_forbidden":
        text = "there is no such setting"
        close = difflib.get_close_matches(str(first["loc"][-1]), _names(model, first["loc"][:-1]), n=1)
        text += f"; did you mean {close[0]!r}?" if close else "; remove it or see docs/configuration.md"
    elif first["type"] == "missing":
        text = "is missing; add it"
    elif first["type"] in _NO_TABLE:
        # Whatever stands there in place of the table may be what is secret in it.
        text = "is to be a table"
    elif (
        first["type"] != "value_error"
        and isinstance(first["input"], str | int | float | bool)
        and not _is_secret(model, first["loc"])
    ):
        text += f" (it is {_shown(first['input'])})"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return (f"{place}: " if place else "") + text + more


def _shown(value: str | int | float | bool) -> str:
    shown = repr(without_login(value) if isinstance(value, str) and "://" in value else value)
    return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "..."


def _is_secret(model: type[BaseModel], loc: tuple[int | str, ...]) -> bool:
    """Whether a place is not to be shown: it is or has a SecretStr, or a field with repr=False."""
    here, fields = _followed(model, loc)
    return not all(field.repr for field in fields) or _has_secret(here, set())


def _has_secret(annotation: Any, seen: set[type[BaseModel]]) -> bool:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        parts = typing.get_args(annotation)
        return annotation in (SecretStr, SecretBytes) or any(_has_secret(part, seen) for part in parts)
    if annotation in seen:
        return False
    seen.add(annotation)
    fields = annotation.model_fields.values()
    return any(not field.repr or _has_secret(field.annotation, seen) for field in fields)


def _names(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The settings that there are at a place, as far as it can be followed through the models."""
    here, _ = _followed(model, loc)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return list(here.model_fields)
    return []


def _followed(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Any, list[FieldInfo]]:
    """What may be at a place, as far as it is known, and the fields that lead there."""
    here: Any = model
    fields = []
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
            fields += [field] if field else []
        else:  # the key of a mapping, or the index of a list
            inner = typing.get_args(here)
            here = inner[-1] if inner and inner[-1] is not Ellipsis else inner[0] if inner else None
        if not isinstance(here, type):  # X | None
            models = [a for a in typing.get_args(here) if isinstance(a, type) and issubclass(a, BaseModel)]
            if len(models) == 1 and type(None) in typing.get_args(here):
                here = models[0]
    return here, fields
