import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gateway_shared_suppression import SharedSettings, SharedSuppression

from gateway import Address, Event, QueuedMessage

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> SharedSettings:
    return SharedSettings(file=tmp_path / "list", apart=("alerts",))


def failed(recipient: str, *, account: str = "shop", suppressing: bool = True) -> Event:
    return Event(
        id=1, time=NOW, account=account, name="failed", queue_msg_id=1, from_id="",
        message_id="<1@example.org>", subject="hi", recipient=recipient, attempt=1,
        suppressing=suppressing, code=550, enhanced="5.1.1",
    )  # fmt: skip


def message(recipient: str, account: str = "news") -> QueuedMessage:
    return QueuedMessage(
        id=2, base_id=0, submission_id="2", account=account, sender=Address.parse("news@example.org"),
        recipient=Address.parse(recipient), queued=NOW, hold=False, attempts=1, max_attempts=0,
        next_attempt=NOW, last_attempt=NOW, message_id="<2@example.org>", subject="hi", size=100,
        has_8bit=False, smtputf8=False, require_tls=None, transport="", from_id="", env_id="", extra={},
    )  # fmt: skip


def test_what_fails_for_one_account_is_suppressed_for_all(settings: SharedSettings) -> None:
    plugin = SharedSuppression()
    assert plugin.suppressed(message("ada@example.com"), settings) is None
    for _ in range(2):  # an event may be told twice
        plugin.event(failed("Ada+orders@example.com"), settings)
    assert plugin.suppressed(message("ada@example.com"), settings) is True
    assert plugin.suppressed(message("ada+news@example.com"), settings) is True
    assert plugin.suppressed(message("ada@example.net"), settings) is None
    assert plugin.suppressed(message("ada@example.com", account="alerts"), settings) is None


def test_other_events_and_other_accounts_add_nothing(settings: SharedSettings) -> None:
    plugin = SharedSuppression()
    plugin.event(failed("ada@example.com", suppressing=False), settings)
    plugin.event(failed("ada@example.com", account="alerts"), settings)
    assert plugin.suppressed(message("ada@example.com"), settings) is None


def test_many_at_once(settings: SharedSettings) -> None:
    plugin = SharedSuppression()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: plugin.event(failed(f"user{n}@example.com"), settings), range(40)))
    assert all(plugin.suppressed(message(f"user{n}@example.com"), settings) for n in range(40))


def test_the_command(settings: SharedSettings) -> None:
    plugin = SharedSuppression()

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "gateway_shared_suppression", str(settings.file), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert "there is no file" in command().stderr
    plugin.event(failed("ada@example.com"), settings)
    assert command().stdout == f"ada@example.com\t{NOW.isoformat()}\tshop\n"
    assert command("--remove", "Ada@example.com").returncode == 0
    assert plugin.suppressed(message("ada@example.com"), settings) is None
    assert "ada@example.com is not on the list" in command("--remove", "ada@example.com").stderr
