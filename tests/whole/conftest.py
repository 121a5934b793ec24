"""A gateway to start with: the tests that need another one make it themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import Receiver, Running, receiving, running


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def gateway(tmp_path: Path, webhooks: Receiver) -> AsyncIterator[Running]:
    """A gateway as localserve makes it."""
    async with running(tmp_path, webhooks) as gateway:
        yield gateway
