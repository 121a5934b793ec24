"""A worker's share of the limits that each process keeps for itself.

Those of one destination and one URL are not divided: the store knows what all workers do there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.config.settings import Role, Settings
from gateway.config.values import Section
from gateway.hooks.stages import GatewayStages
from gateway.model import Limits, NextHop

# What is divided, by section, and among whom.
DIVIDED: Mapping[str, tuple[Role, tuple[str, ...]]] = {
    "smtp": ("smtp", ("max_connections", "max_connections_per_network")),
    "submission": ("submission", ("max_connections", "max_connections_per_network")),
    "web": ("web", ("max_connections", "memory_for_bodies")),
    "queue": ("deliver", ("max_deliveries", "max_slow_deliveries")),
    "webhooks": ("webhooks", ("max_calls", "max_slow_calls")),
}


def share_of_settings(settings: Settings) -> Settings:
    """The settings of one of the workers that have the role in question."""
    if settings.workers == 1:
        return settings
    sections = {
        section: _share(getattr(settings, section), names, len(settings.workers_with(role)))
        for section, (role, names) in DIVIDED.items()
    }
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
