from __future__ import annotations

from gateway.config.settings import Settings
from gateway.model import Limits
from gateway.workers.shares import DIVIDED, share_of_limits, share_of_settings

SETTINGS = Settings(hostname="gateway.example.org", workers=3)


def test_the_only_worker_has_all() -> None:
    alone = SETTINGS.model_copy(update={"workers": 1})
    assert share_of_settings(alone) is alone
    limits = Limits(connections=5)
    assert share_of_limits(limits, 1) is limits


def test_each_has_its_part() -> None:
    mine = share_of_settings(SETTINGS)
    for section, (_, names) in DIVIDED.items():
        for name in names:
            whole, part = (getattr(getattr(s, section), name) for s in (SETTINGS, mine))
            assert whole <= 3 * part < whole + 3, (section, name)
    assert mine.queue.max_deliveries_per_destination == SETTINGS.queue.max_deliveries_per_destination
    assert mine.webhooks.max_calls_per_url == SETTINGS.webhooks.max_calls_per_url


def test_limits_of_a_server() -> None:
    assert share_of_limits(None, 3) is None
    assert share_of_limits(Limits(), 3) == Limits()
    assert share_of_limits(Limits(connections=10, per_minute=30.0), 3) == Limits(
        connections=3, per_minute=10.0
    )
    assert share_of_limits(Limits(connections=2), 3) == Limits(connections=1)
