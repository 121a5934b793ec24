"""What of a plugin's stops the event loop is named, whatever it runs in: a service, a page, ..."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel

from gateway import (
    ApiCall,
    ApiMethod,
    AsgiApplication,
    Collector,
    Delivery,
    GatewayContext,
    Outcome,
    Result,
    Service,
    Transport,
    TransportType,
    hookimpl,
)
from gateway.testing import MailGateway


async def blocks(
    gateway: GatewayContext, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    time.sleep(0.15)  # noqa: ASYNC251 - what must not be done
    # It ends, and has not called task_status.started().


async def page(scope: Any, receive: Any, send: Any) -> None:
    time.sleep(0.15)  # noqa: ASYNC251
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Nothing(BaseModel):
    pass


class Slow:
    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        time.sleep(0.15)  # noqa: ASYNC251
        return [Outcome(result=Result.DELIVERED) for _ in delivery.messages]


def make(*_: object) -> Transport:
    return Slow()


class Request(BaseModel):
    pass


class Response(BaseModel):
    pass


async def handle(call: ApiCall, request: Request) -> Response:
    time.sleep(0.15)  # noqa: ASYNC251
    return Response()


class Collects:
    def collect(self) -> Iterator[Metric]:
        time.sleep(0.15)
        yield GaugeMetricFamily("acme_number", "A number.", value=1)


class Around:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        time.sleep(0.15)  # noqa: ASYNC251


class Heavy:
    @hookimpl
    def services(self) -> Mapping[str, Service]:
        return {"blocks": blocks}

    @hookimpl
    def pages(self) -> Mapping[str, AsgiApplication]:
        return {"blocks": page}

    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {"slow": TransportType(Nothing, make)}

    @hookimpl
    def api_methods(self) -> Mapping[str, ApiMethod]:
        method = ApiMethod(
            summary="Blocks.",
            request=Request,
            response=Response,
            handler=handle,
            example_request={},
            example_response=Response(),
        )
        return {"Block": method}

    @hookimpl
    def metrics(self) -> Sequence[Collector]:
        return [Collects()]

    @hookimpl
    def around_attempt(self) -> AbstractAsyncContextManager[object]:
        return Around()


async def test_what_stops_the_loop_is_named_and_counted(
    mail_gateway: MailGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with mail_gateway(
        Heavy(),
        transports={"slow": {"type": "slow"}},
        configuration={"metrics": {"listen": ["127.0.0.1:0"]}},
    ) as gateway:
        api = await gateway.api()
        base = api.base_url
        [address] = gateway.gateway.addresses["metrics"]
        async with httpx.AsyncClient() as browser:
            page = await browser.get(f"{base.scheme}://{base.host}:{base.port}/plugins/blocks/")
            assert page.status_code == 204
            response = await api.post("Block", json={})
            assert response.status_code == 200, response.text
            happened = await gateway.deliver(to="ada@example.com")
            await browser.get(f"http://{address}/metrics")
            shown = (await browser.get(f"http://{address}/metrics")).text
        assert happened["ada@example.com"].state == "delivered"
    lines = {re.sub(r"\d\.\d\d s;.*", "_ s", line) for line in caplog.messages}
    submission = happened["ada@example.com"].message.submission_id
    assert lines >= {
        "plugin 'heavy', service 'blocks': stopped the event loop for _ s",
        "plugin 'heavy', service 'blocks': it ended",
        "plugin 'heavy', service 'blocks': is started again in 1 s",
        "plugin 'heavy', page 'blocks': stopped the event loop for _ s",
        "plugin 'heavy', method 'Block': stopped the event loop for _ s",
        "plugin 'heavy', hook 'metrics': stopped the event loop for _ s",
        f"submission {submission}: plugin 'heavy', hook 'around_attempt': stopped the event loop for _ s",
        f"submission {submission}: plugin 'heavy', transport 'slow': stopped the event loop for _ s",
    }
    for hook in ("services", "pages", "api_methods", "metrics", "around_attempt", "transports"):
        assert re.search(rf'plugin_slow_total{{hook="{hook}",plugin="heavy"}} [1-9]', shown), hook
