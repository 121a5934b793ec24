"""Makes the configured transports of the types that plugins register, and runs what they do by themselves.

There is one that nobody has to configure: `direct`, for what no route matches. It is not there where it
would not be used: where a route takes everything, and none names it, no message can leave that way.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.load import describe
from gateway.config.settings import DIRECT, Settings
from gateway.errors import ConfigError, PluginError
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Nonsense, ask, described, passes
from gateway.hooks.registered import registered_call
from gateway.hooks.stages import Hooks
from gateway.model import Delivery, Outcome, ServingTransport, Transport, TransportType
from gateway.net.network import Network
from gateway.outbound import outcomes

HOOK = "transports"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Configured:
    """A transport that is to be made, its settings parsed."""

    name: str
    type: str
    make: Callable[[str, Any, Network], Transport]
    settings: BaseModel


def tables_of(settings: Settings, types: Mapping[str, TransportType]) -> dict[str, Mapping[str, Any]]:
    """The tables [transports.NAME], and that of `direct` if there is none and it may be needed."""
    tables = dict(settings.transports)
    if DIRECT not in tables:
        named = any(route.transport == DIRECT for _, routes in settings.all_routes() for route in routes)
        all_routed = any(route.matches_all for route in settings.routes)
        if named or (not all_routed and DIRECT in types):
            tables[DIRECT] = {"type": DIRECT}
    return tables


def read_transports(
    tables: Mapping[str, Mapping[str, Any]], types: Mapping[str, TransportType], config_dir: Path
) -> list[Configured]:
    """What each [transports.NAME] says, paths relative to `config_dir`. Raises ConfigError."""
    read: list[Configured] = []
    for name, table in tables.items():
        where = f"transports.{name}"
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in types:
            close = difflib.get_close_matches(str(kind), types, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            wrong = "is missing" if kind is None else f"there is no transport type {kind!r}"
            raise ConfigError(
                f"{where}.type: {wrong}; {hint}the plugins in use offer: {', '.join(sorted(types)) or 'none'}"
            )
        model = types[kind].settings
        try:
            settings = model.model_validate(
                {key: value for key, value in table.items() if key != "type"},
                context={"config_dir": config_dir},
            )
        except ValidationError as exc:
            raise ConfigError(f"{where}: {describe(exc, model)}") from None
        except Exception as exc:  # the model's own code
            raise ConfigError(f"{where}: cannot be read: {described(exc)}") from exc
        read.append(Configured(name, kind, types[kind].make, settings))
    return read


def make_transports(configured: Iterable[Configured], network: Network) -> dict[str, Transport]:
    """The transports by their names. Raises ConfigError."""
    made: dict[str, Transport] = {}
    for one in configured:
        where = f"transports.{one.name}"
        try:
            transport = one.make(one.name, one.settings, network)
        except BaseException as exc:
            if passes(exc):
                raise
            raise ConfigError(
                f"{where}: the transport type {one.type!r} cannot make it: {described(exc)};"
                " repair its plugin, or remove it"
            ) from exc
        if not callable(getattr(transport, "deliver", None)):
            raise ConfigError(
                f"{where}: the transport type {one.type!r} makes {type(transport).__name__}, without a"
                " method deliver; repair its plugin, or remove it"
            )
        made[one.name] = transport
    return made


def called_transports(
    configured: Iterable[Configured], network: Network, hooks: Hooks
) -> dict[str, CalledTransport]:
    """The transports by their names, ready for use. Raises ConfigError."""
    configured = tuple(configured)
    plugins = {one.name: hooks.added.transports[one.type][0] for one in configured}
    return {
        name: CalledTransport(name, plugins[name], transport, hooks.calls[plugins[name], HOOK])
        for name, transport in make_transports(configured, network).items()
    }


class CalledTransport:
    """A transport as the gateway calls it: contained, its answers checked, all of it counted."""

    def __init__(self, name: str, plugin: str, transport: Transport, tally: Tally) -> None:
        self.name = name
        self._transport, self._tally = transport, tally
        label = f"plugin {plugin!r}, transport {name!r}"
        self._delivering = registered_call(
            plugin, HOOK, label, self._deliver, arguments=("delivery",), tally=tally
        )
        self._serving = registered_call(
            plugin, HOOK, f"{label}, serve", self._serve, arguments=(), tally=tally
        )

    async def deliver(self, delivery: Delivery) -> list[Outcome]:
        """One outcome for each message; temporary ones when it raises or answers nonsense."""
        try:
            found: list[Outcome] = await ask(self._delivering, (delivery,))
        except PluginError as exc:
            return [outcomes.failure(self.name, exc.reason)] * len(delivery.messages)
        return found

    async def _deliver(self, delivery: Delivery) -> list[Outcome]:
        answer: object = await self._transport.deliver(delivery)
        found = outcomes.checked(answer, len(delivery.messages))
        if found is None:
            raise Nonsense("did not answer one outcome for each message")
        return found

    def took_too_long(self) -> None:
        """The attempt was cancelled: count it."""
        self._tally.calls += 1
        self._tally.failures += 1
        self._tally.timeouts += 1

    async def serve(self) -> None:
        """Run what it does between deliveries, if anything. Should that fail, it still delivers."""
        if not isinstance(self._transport, ServingTransport):
            return
        try:
            await ask(self._serving, ())
        except PluginError:
            log.error("transport %r: serve will not run until the next start", self.name)

    async def _serve(self) -> None:
        assert isinstance(self._transport, ServingTransport)
        await self._transport.serve()
