"""A certificate that is renewed while it is in use."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from trio.testing import MockClock

from gateway.errors import ConfigError
from gateway.net.certificates import self_signed
from gateway.net.renewal import LOOK_AFTER, RenewedCertificate


class Files:
    def __init__(self, directory: Path) -> None:
        self.paths = directory / "chain.pem", directory / "key.pem"
        self.made = [self_signed(datetime.now(UTC)) for _ in range(2)]

    def write(self, which: int, *, parts: tuple[int, ...] = (0, 1)) -> None:
        """As certbot does it: new files in place of the old ones."""
        for part in parts:
            new = self.paths[part].with_suffix(".new")
            new.write_bytes(self.made[which][part])
            new.replace(self.paths[part])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.write(0)
    return files


async def test_it_is_taken_soon_and_not_looked_for_all_the_time(
    files: Files, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    renewed = RenewedCertificate(*files.paths)
    first = renewed.context()
    files.write(1)
    assert renewed.context() is first
    mock_clock.jump(LOOK_AFTER)
    second = renewed.context()
    assert second is not first
    mock_clock.jump(LOOK_AFTER)
    assert renewed.context() is second
    assert caplog.text.count("it was renewed, and is in use") == 1


async def test_what_is_half_written_is_not_taken(
    files: Files, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    renewed = RenewedCertificate(*files.paths)
    first = renewed.context()
    files.write(1, parts=(0,))
    for _ in range(3):
        mock_clock.jump(LOOK_AFTER)
        assert renewed.context() is first
    [record] = [one for one in caplog.records if one.levelname == "ERROR"]  # once
    assert "does not belong to the first certificate" in record.getMessage()
    assert "the certificate that was read before stays in use" in record.getMessage()
    files.write(1, parts=(1,))
    mock_clock.jump(LOOK_AFTER)
    second = renewed.context()
    assert second is not first
    files.paths[0].unlink()
    mock_clock.jump(LOOK_AFTER)
    assert renewed.context() is second
    assert "there is no such file" in caplog.text


async def test_at_the_start_it_has_to_be_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Files(tmp_path)
    with pytest.raises(ConfigError, match="there is no such file"):
        RenewedCertificate(*files.paths)
    files.made.append(self_signed(datetime(2010, 1, 1, tzinfo=UTC)))
    files.write(2)
    RenewedCertificate(*files.paths)
    assert "expired on 2019-12-30" in caplog.text
