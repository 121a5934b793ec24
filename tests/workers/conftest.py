from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.under_load import Webhooks


@pytest.fixture
def webhooks() -> Iterator[Webhooks]:
    server = Webhooks()
    yield server
    server.shutdown()
    server.server_close()
