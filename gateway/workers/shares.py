"""A worker's share of the limits that each process keeps for itself.

Those of one destination and one URL are not divided: the store knows what all workers do there.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.config.settings import Settings
from gateway.config.values import Section
from gateway.hooks import GatewayStages
from gateway.model import Limits, NextHop

# What is divided, by section.
DIVIDED = {
    "smtp": ("max_connections", "max_connections_per_network"),
    "submission": ("max_connections", "max_connections_per_network"),
    "web": ("max_connections", "memory_for_bodies"),
    "queue": ("max_deliveries", "max_slow_deliveries"),
    "webhooks": ("max_calls", "max_slow_calls"),
}


def share_of_settings(settings: Settings, workers: int) -> Settings:
    """The settings of one of so many workers."""
    if workers == 1:
        return settings
    sections = {name: _share(getattr(settings, name), names, workers) for name, names in DIVIDED.items()}
    return settings.model_copy(update=sections)


def share_of_limits(limits: Limits | None, workers: int) -> Limits | None:
    """What one of so many workers may send to a server: one connection at least."""
    if limits is None or workers == 1:
        return limits
    return replace(
        limits,
        connections=limits.connections and max(1, limits.connections // workers),
        per_minute=limits.per_minute / workers,
    )


async def shape_shared(stages: GatewayStages, workers: int, hop: NextHop) -> Limits | None:
    """What the stage `shape` says, as it is for one of so many workers. Raises PluginError."""
    return share_of_limits(await stages.shape(hop=hop), workers)


def _share(section: Section, names: tuple[str, ...], workers: int) -> Section:
    return section.model_copy(update={name: -(-getattr(section, name) // workers) for name in names})
