"""What of a plugin's stops the event loop is named, whatever it runs in: services, pages, transports."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
import trio
from pydantic import BaseModel

from gateway import (
    AsgiApplication,
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


async def test_what_stops_the_loop_is_named(
    mail_gateway: MailGateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with mail_gateway(Heavy(), transports={"slow": {"type": "slow"}}) as gateway:
        base = (await gateway.api()).base_url
        async with httpx.AsyncClient(base_url=f"{base.scheme}://{base.host}:{base.port}") as browser:
            assert (await browser.get("/plugins/blocks/")).status_code == 204
        happened = await gateway.deliver(to="ada@example.com")
        assert happened["ada@example.com"].state == "delivered"
    lines = {re.sub(r"\d\.\d\d s", "_ s", line) for line in caplog.messages}
    submission = happened["ada@example.com"].message.submission_id
    assert lines >= {
        "plugin 'heavy', service 'blocks': stopped the event loop for _ s",
        "plugin 'heavy', service 'blocks': it ended; it is started again in 1 s",
        "plugin 'heavy', page 'blocks': stopped the event loop for _ s",
        f"transport slow stopped the event loop for _ s submission={submission}",
    }
