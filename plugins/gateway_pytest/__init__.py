"""The pytest plugin of `gateway.testing`: one fixture. It imports the gateway when a test asks for that."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gateway.testing import MailGateway


@pytest.fixture
def mail_gateway(tmp_path: Path) -> MailGateway:
    """`gateway.testing.running_gateway` in this test's own directory.

    Use: `async with mail_gateway(Plugin()) as gateway`.
    """
    from gateway.testing import running_gateway

    return partial(running_gateway, directory=tmp_path)
