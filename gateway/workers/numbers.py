"""What a worker counts, for the others to show: metrics, and how plugins do.

Each worker writes its numbers to whoever connects to its socket in the control directory. Whoever is to show
them asks all others; one that does not answer at once is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from prometheus_client import Metric
from pydantic_core import from_json, to_json

from gateway.hooks.breaker import Tally
from gateway.net.listeners import open_unix
from gateway.plugins.views import Tallies
from gateway.workers.worker import Worker

log = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds
MAX_SIZE = 64 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one worker."""

    metrics: Sequence[Metric]
    tallies: Mapping[tuple[str, str], Tally]


class Exchange:
    """A worker's numbers for the others, and theirs."""

    def __init__(self, worker: Worker, directory: Path, own: Callable[[], Numbers]) -> None:
        self._worker, self._directory, self._own = worker, directory, own

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer the others, until cancelled. Raises StartError."""
        if self._worker.alone:
            task_status.started()
            return
        listener = await open_unix(self._path(self._worker.number))
        task_status.started()
        await trio.serve_listeners(self._answer, [listener])

    async def others(self) -> dict[int, Numbers]:
        """The numbers of the other workers, by the worker's number."""
        found: dict[int, Numbers] = {}

        async def ask(number: int) -> None:
            try:
                with trio.move_on_after(PATIENCE) as patience:
                    found[number] = await _ask(self._path(number))
                if patience.cancelled_caught:
                    log.warning("the numbers of worker %d are left out: no answer in time", number)
            except (OSError, trio.BrokenResourceError, ValueError) as exc:
                log.warning("the numbers of worker %d are left out: %s", number, exc)

        async with trio.open_nursery() as nursery:
            for number in range(self._worker.workers):
                if number != self._worker.number:
                    nursery.start_soon(ask, number)
        return dict(sorted(found.items()))

    async def tallies(self) -> Tallies:
        """How plugins do in the other workers."""
        merged: dict[tuple[str, str], list[Tally]] = {}
        for numbers in (await self.others()).values():
            for key, tally in numbers.tallies.items():
                merged.setdefault(key, []).append(tally)
        return merged

    async def metrics(self) -> list[Metric]:
        """Those of all workers; if there are several, each sample says whose it is."""
        own = self._own().metrics
        if self._worker.alone:
            return list(own)
        of_each = {self._worker.number: own}
        of_each |= {number: numbers.metrics for number, numbers in (await self.others()).items()}
        return list(_merged(of_each))

    def _path(self, number: int) -> Path:
        return self._directory / f"worker-{number}.sock"

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            with trio.move_on_after(PATIENCE):
                try:
                    await stream.send_all(_encode(self._own()))
                except trio.BrokenResourceError:
                    log.debug("nobody waits for the numbers any more")


def _merged(of_each: Mapping[int, Iterable[Metric]]) -> Iterable[Metric]:
    families: dict[str, Metric] = {}
    for worker, metrics in sorted(of_each.items()):
        for metric in metrics:
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit)
            )
            for sample in metric.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": str(worker)}, sample.value)
    return families.values()


async def _ask(path: Path) -> Numbers:
    data = bytearray()
    async with await trio.open_unix_socket(path) as stream:
        async for part in stream:
            data += part
            if len(data) > MAX_SIZE:
                raise ValueError("they are too many")
    return _decode(bytes(data))


def _encode(numbers: Numbers) -> bytes:
    return to_json(
        {
            "metrics": [
                {
                    "name": metric.name,
                    "documentation": metric.documentation,
                    "type": metric.type,
                    "samples": [(sample.name, sample.labels, sample.value) for sample in metric.samples],
                }
                for metric in numbers.metrics
            ],
            "tallies": [(plugin, hook, tally) for (plugin, hook), tally in numbers.tallies.items()],
        },
        inf_nan_mode="constants",
    )


def _decode(data: bytes) -> Numbers:
    """Raises ValueError."""
    raw: Mapping[str, Any] = from_json(data, allow_inf_nan=True)
    metrics = []
    for family in raw["metrics"]:
        metric = Metric(family["name"], family["documentation"], family["type"])
        for name, labels, value in family["samples"]:
            metric.add_sample(name, labels, value)
        metrics.append(metric)
    tallies = {(plugin, hook): Tally(**counted) for plugin, hook, counted in raw["tallies"]}
    return Numbers(metrics, tallies)
