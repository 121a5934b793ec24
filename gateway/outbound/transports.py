"""Makes the configured transports out of the types that plugins register."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gateway.config.load import describe
from gateway.errors import ConfigError
from gateway.model import Transport, TransportType


def make_transports(
    configured: Mapping[str, Mapping[str, Any]], types: Mapping[str, TransportType]
) -> dict[str, Transport]:
    """One transport for each [transports.NAME]. Raises ConfigError."""
    made: dict[str, Transport] = {}
    for name, table in configured.items():
        where = f"transports.{name}"
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in types:
            close = difflib.get_close_matches(str(kind), types, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{where}.type: there is no transport type {kind!r}; {hint}the plugins in use offer: "
                f"{', '.join(sorted(types)) or 'none'}"
            )
        model = types[kind].settings
        try:
            settings = model.model_validate({key: value for key, value in table.items() if key != "type"})
        except ValidationError as exc:
            raise ConfigError(f"{where}: {describe(exc, model)}") from None
        made[name] = types[kind].make(name, settings)
    return made
