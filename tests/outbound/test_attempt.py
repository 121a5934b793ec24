"""What the log says of an attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway import Outcome
from gateway.outbound.attempt import server_for_log


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("", "", ""),
        ("mx.example.org", "", " server=mx.example.org"),
        ("mx.example.org", "192.0.2.1", " server=mx.example.org[192.0.2.1]"),
        ("mx\n2030-01-01 forged", "", " server='mx\\n2030-01-01 forged'"),
    ],
)
def test_the_server(name: str, address: str, said: str) -> None:
    """A plugin's transport may say anything, and that stays on its line."""
    outcome = replace(Outcome.temporary("later"), remote_mta=name, remote_ip=address)
    assert server_for_log(outcome) == said
