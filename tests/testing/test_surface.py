"""Nothing that a plugin may rely on is taken away or changed unannounced."""

from __future__ import annotations

from tests.testing.surface import FILE, surface


def test_nothing_is_gone_or_changed() -> None:
    promised = FILE.read_text(encoding="utf-8").splitlines()
    assert len(promised) > 500
    gone = [line for line in promised if line not in set(surface())]
    assert not gone, (
        "plugins may rely on these lines: keep them; or say in CHANGELOG.md what has changed, and run"
        f" python -m tests.testing.surface: {gone}"
    )


def test_a_change_would_be_seen() -> None:
    lines = surface()
    for line in (
        "hook route: message: QueuedMessage",
        "hook retry: FIRST account FALLBACK",
        "gateway.Outcome.code: int",
        "gateway.EventName may be 'delivered'",
        "gateway.testing.RunningGateway.deliver: async function",
        "gateway.testing.temporary: code: int",
        "gateway.testing.conformance.TransportSuite.accepting: function",
    ):
        assert line in lines
