"""Metrics of plugins whose names are known only when they are collected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from gateway import Collector, hookimpl
from gateway.testing import MailGateway


class Named:
    def __init__(self, name: str) -> None:
        self._name = name

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._name, "A number.", value=1)


class Counts:
    @hookimpl
    def metrics(self) -> Sequence[Collector]:
        return [Named("acme_jokes"), Named("acme_jokes"), Named("gateway_connections"), Named("acme_puns")]


async def test_a_name_that_is_taken_is_left_out(
    mail_gateway: MailGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with mail_gateway(Counts(), configuration={"metrics": {"listen": ["127.0.0.1:0"]}}) as gateway:
        [address] = gateway.gateway.addresses["metrics"]
        async with httpx.AsyncClient(base_url=f"http://{address}") as prometheus:
            lines = (await prometheus.get("/metrics")).text.splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert {"acme_jokes 1.0", "acme_puns 1.0"} <= set(lines)
    where = "plugin 'counts', hook 'metrics'"
    assert caplog.messages == [
        f"{where}: the metric '{name}' is there already, and left out; choose another"
        for name in ("acme_jokes", "gateway_connections")
    ]
