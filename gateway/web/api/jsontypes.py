"""The JSON of the API: strict types, zero values, times, and the names of fields in any case.

A request is parsed in one call of pydantic's JSON parser when its keys are spelled as documented; only
when that fails are the keys matched regardless of case (exact ones preferred) and the rest tried again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, TypeVar, get_args

import trio
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema, from_json, to_json

from gateway.web.api.errors import BadRequest, protocol_error
from gateway.web.api.services import Offload

# Commas and brackets in a request. Each value costs the parser far more memory than its bytes; 10,000
# recipients with names have 40,000.
MAX_JSON_ELEMENTS = 60_000
ESCAPES_HERE = 500_000  # backslashes; more take the parser some 10 ms and are left to a worker process
_PIECE = 1024 * 1024  # bytes looked at between two turns of the loop
MAX_KEY_SHOWN = 40  # characters of a key in an error message
INT64_MAX = 2**63 - 1

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_GO_ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)


# --- Times ---------------------------------------------------------------------------------------


def parse_time(text: str) -> datetime | None:
    """RFC 3339 with an offset or Z and up to nine fractional digits (kept to the microsecond).

    Raises ValueError. The year 1 in UTC, which Go writes for a time that is not set, is None.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(
            'not an RFC 3339 time such as "2026-01-31T08:00:00Z" or "2026-01-31T08:00:00.5+01:00"'
        )
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    zone = UTC
    if sign:
        if int(off_hour) > 23 or int(off_minute) > 59:
            raise ValueError(f"the offset {sign}{off_hour}:{off_minute} is out of range")
        offset = timedelta(hours=int(off_hour), minutes=int(off_minute))
        zone = timezone(-offset if sign == "-" else offset) if offset else UTC
    try:
        value = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second),
            int((fraction or "").ljust(6, "0")[:6]), zone,
        )  # fmt: skip
        value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such date or time of day") from None
    return None if value == _GO_ZERO_TIME else value


def format_time(value: datetime) -> str:
    """RFC 3339 with Z for UTC, without trailing zeros in the fraction."""
    text = value.replace(tzinfo=None).isoformat()
    if value.microsecond:
        text = text.rstrip("0")
    offset = value.utcoffset() or timedelta()
    # RFC 3339 knows no seconds in an offset; such ones exist in mail only by mistake.
    minutes, seconds = divmod(int(offset.total_seconds()), 60)
    if seconds:
        return format_time(value.astimezone(UTC))
    if not minutes:
        return text + "Z"
    hours, minutes = divmod(abs(minutes), 60)
    return f"{text}{'-' if offset < timedelta() else '+'}{hours:02d}:{minutes:02d}"


# --- Field types ---------------------------------------------------------------------------------


class NullIsZero:
    """In a request, null is the zero value."""

    def __init__(self, zero: object) -> None:
        self._zero = zero

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        zero = self._zero
        return core_schema.no_info_after_validator_function(
            lambda value: zero if value is None else value, core_schema.nullable_schema(handler(source))
        )


class _TimeText:
    """In a request, a string that `parse_time` takes; null is None. `gateway.client` is given datetimes."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.no_info_after_validator_function(parse_time, core_schema.str_schema(strict=True))
        return core_schema.nullable_schema(core_schema.no_info_wrap_validator_function(_given_time, text))


def _given_time(value: object, parse: ValidatorFunctionWrapHandler) -> datetime | None:
    if not isinstance(value, datetime):
        found: datetime | None = parse(value)
        return found
    if value.tzinfo is None:
        raise ValueError("a datetime without a zone; give it one, such as datetime.UTC")
    return value


T = TypeVar("T")

# For requests: absent or null is the zero value.
String = Annotated[str, NullIsZero("")]
Bool = Annotated[bool, NullIsZero(False)]
Int64 = Annotated[int, Field(ge=-INT64_MAX - 1, le=INT64_MAX), NullIsZero(0)]
ListOf = Annotated[tuple[T, ...], FailFast(), NullIsZero(())]
# Written in one order: a request's JSON is the same for requests that are (Idempotency-Key).
StringMap = Annotated[
    dict[str, String],
    PlainSerializer(lambda given: dict(sorted(given.items())), return_type=dict[str, str], when_used="json"),
    NullIsZero({}),
]
# Any JSON, likewise.
AnyMap = Annotated[
    dict[str, JsonValue],
    PlainSerializer(lambda given: json.dumps(given, sort_keys=True), return_type=str, when_used="json"),
    NullIsZero({}),
]
# Large, and written as its digest, for the same purpose.
FileData = Annotated[
    String,
    PlainSerializer(
        lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        return_type=str,
        when_used="json",
    ),
]
TimeOrNull = Annotated[
    datetime | None,
    _TimeText(),
    PlainSerializer(lambda value: value and format_time(value)),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, mode="validation"
    ),
]

# For answers.
Time = Annotated[
    datetime,
    PlainSerializer(format_time, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


class Request(BaseModel):
    """What a method takes, or a part of it. Field names are those of the wire."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Response(BaseModel):
    """What a method answers, or a part of it. It is built by our own code: not validated again."""

    model_config = ConfigDict(frozen=True)


# --- Parsing -------------------------------------------------------------------------------------

R = TypeVar("R", bound=Request)


async def parse_request(model: type[R], data: bytes | bytearray, offload: Offload) -> R:
    """The request in `data`, or BadRequest `protocol` that names the field."""
    if len(data) <= _PIECE:
        if _structure(data) > MAX_JSON_ELEMENTS:
            await _check_elements(data)
        return _parsed(model, data)
    # Large ones are looked at in pieces, so that the loop turns. What the parser does in one go, it does in
    # 1 ms for each MiB, if there are few escapes.
    structure = escapes = 0
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        structure += _structure(piece)
        escapes += piece.count(b"\\")
        await trio.lowlevel.checkpoint()
    if structure > MAX_JSON_ELEMENTS:
        await _check_elements(data)
    if escapes > ESCAPES_HERE:
        parsed = await offload.run(parse_beside, model, data)
        if isinstance(parsed, str):
            raise protocol_error(parsed)
        return parsed
    return _parsed(model, data)


def parse_beside(model: type[R], data: bytes | bytearray) -> R | str:
    """Parse in a worker process: what is wrong is answered as a text."""
    try:
        return _parsed(model, data)
    except BadRequest as exc:
        return str(exc)


def _parsed(model: type[R], data: bytes | bytearray) -> R:
    try:
        return model.__pydantic_validator__.validate_json(data)  # type: ignore[no-any-return]
    except ValidationError as exc:
        if _is_syntax(exc):
            raise _explain(exc) from None
    value = _exact_keys(from_json(data), shape_of(model), "")
    try:
        return model.__pydantic_validator__.validate_json(  # type: ignore[no-any-return]
            to_json(value, inf_nan_mode="constants")
        )
    except ValidationError as exc:
        raise _explain(exc) from None


def _structure(data: bytes | bytearray) -> int:
    return data.count(b",") + data.count(b"{") + data.count(b"[")


_STRING_OR_STRUCTURE = re.compile(rb'["{\[,]')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


async def _check_elements(data: bytes | bytearray) -> None:
    """Count strings and structure: a text may have as many commas as it likes."""
    strings = structure = position = 0
    while found := _STRING_OR_STRUCTURE.search(data, position):
        if found[0] == b'"':
            strings += 1
        else:
            structure += 1
        if structure > MAX_JSON_ELEMENTS or strings > 2 * MAX_JSON_ELEMENTS:
            raise protocol_error(f"request: more than {MAX_JSON_ELEMENTS} values; send fewer at a time")
        position = found.end()
        if found[0] != b'"':
            continue
        while True:
            piece = _IN_STRING.match(data, position, position + _PIECE)
            stuck = piece is None or piece.end() == position
            position = position if piece is None else piece.end()
            if data[position : position + 1] == b'"':
                position += 1
                break
            if stuck:
                return  # the string never ends: the parser will say so
            await trio.lowlevel.checkpoint()


@dataclass(frozen=True)
class Shape:
    """Which keys an object has, and the shape of what is under each (None: nothing to look into)."""

    keys: Mapping[str, Shape | None]
    folded: Mapping[str, str]


_shapes: dict[type[BaseModel], Shape] = {}


def shape_of(model: type[BaseModel]) -> Shape:
    shape = _shapes.get(model)
    if shape is None:
        keys = {name: _shape_of_type(info.annotation) for name, info in model.model_fields.items()}
        shape = _shapes[model] = Shape(keys, {name.casefold(): name for name in keys})
    return shape


def _shape_of_type(annotation: object) -> Shape | None:
    """The shape of a model, or of a list's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return shape_of(annotation)
    shapes = (_shape_of_type(argument) for argument in get_args(annotation))
    return next((shape for shape in shapes if shape is not None), None)


def _exact_keys(value: Any, shape: Shape, path: str) -> Any:
    """`value` with the keys of its objects as documented. What is no object is left to the parser."""
    if isinstance(value, list):
        return [_exact_keys(item, shape, f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    exact: dict[str, Any] = {}
    for key, item in value.items():
        name = key if key in shape.keys else shape.folded.get(key.casefold())
        if name is None:
            raise protocol_error(_unknown(path, key, shape))
        if name != key and name in value:
            continue  # given as documented, too: that one counts
        below = shape.keys[name]
        exact[name] = item if below is None else _exact_keys(item, below, f"{path}.{name}" if path else name)
    return exact


def _unknown(path: str, key: str, shape: Shape) -> str:
    shown = _clip(key)
    near = difflib.get_close_matches(key[:MAX_KEY_SHOWN].casefold(), shape.folded, n=1)
    known = f'did you mean "{shape.folded[near[0]]}"?' if near else "known are " + ", ".join(shape.keys)
    return f"{path or 'request'}: unknown key {shown}; {known if shape.keys else 'none is known here'}"


# --- Explaining ----------------------------------------------------------------------------------

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of 64 bits",
    "greater_than_equal": "an integer of 64 bits",
    "less_than_equal": "an integer of 64 bits",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "missing": "a list of a name and a value",
    "too_long": "a list of a name and a value",
}


def _is_syntax(exc: ValidationError) -> bool:
    return exc.error_count() == 1 and exc.errors(include_url=False)[0]["type"] == "json_invalid"


def _explain(exc: ValidationError) -> BadRequest:
    """The first thing that is wrong, in our words: where, what, and what is expected."""
    error = exc.errors(include_url=False)[0]
    path = "request"
    for step in error["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path = _clip(step, quote=False) if path == "request" else f"{path}.{_clip(step, quote=False)}"
    kind = error["type"]
    if kind == "json_invalid":
        return protocol_error(f"request: not valid JSON: {error['ctx']['error']}")
    if kind == "value_error":
        return protocol_error(f"{path}: {error['ctx']['error']}")
    expected = _EXPECTED.get(kind)
    if expected is None:
        return protocol_error(f"{path}: {error['msg']}")
    if kind in ("missing", "too_long", "greater_than_equal", "less_than_equal", "int_parsing_size"):
        return protocol_error(f"{path}: expected {expected}")
    return protocol_error(f"{path}: is {_json_type(error['input'])}; expected {expected}")


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def _clip(text: str, quote: bool = True) -> str:
    """A client's own text in a message to that client: short, and without control characters."""
    clipped = text if len(text) <= MAX_KEY_SHOWN else text[:MAX_KEY_SHOWN] + "..."
    return ascii(clipped) if quote or not clipped.isprintable() else clipped
