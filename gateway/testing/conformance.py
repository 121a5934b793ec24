"""Suites that every transport, report reader and content store has to pass, whoever wrote it.

Subclass one in a test module, give what it asks for, and pytest runs it. The built-in ones pass the same.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import pytest
import trio

from gateway.config.settings import Settings
from gateway.errors import StoreUnavailable
from gateway.hooks.calls import SLOW
from gateway.hooks.stages import Hooks
from gateway.hookspecs.additions import ContentStore, NewContent
from gateway.mail.dsn import DeliveryStatus
from gateway.mail.feedback import AutomaticReply, FeedbackReport
from gateway.model import Delivery, Outcome, Result, ServingTransport, Transport
from gateway.outbound.outcomes import checked
from gateway.plugins.loading import load_plugins
from gateway.store.content_files import FileStore
from gateway.store.content_reading import BytesContent, StoredContent
from gateway.store.content_stores import CalledStore
from gateway.testing.beside import beside
from gateway.testing.running import plugin_name
from gateway.testing.samples import delivery, report_source

PATIENCE = 20.0  # seconds
REST = ("mox.routing", "retry", "mox.webhook", "smtp")  # what every plugin set must have

Report = DeliveryStatus | FeedbackReport | AutomaticReply


class TransportSuite(ABC):
    """What the gateway expects of a transport: see `transports` in docs/plugins/hooks-delivery.md."""

    pytestmark: ClassVar = [pytest.mark.trio]

    @abstractmethod
    def accepting(self) -> AbstractAsyncContextManager[Transport]:
        """A transport whose next hop takes every message."""

    @abstractmethod
    def failing(self) -> AbstractAsyncContextManager[Transport]:
        """A transport whose next hop cannot be reached now."""

    @pytest.mark.parametrize("count", [1, 3])
    async def test_one_outcome_for_each_message(self, count: int) -> None:
        recipients = [f"user{number}@example.net" for number in range(count)]
        async with _served(self.accepting()) as transport:
            outcomes = await _deliver(transport, delivery(*recipients))
        assert [outcome.result for outcome in outcomes] == [Result.DELIVERED] * count

    @pytest.mark.parametrize(
        "data",
        [
            b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" * 20_000,
            b"Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n",
            b"Subject: no body\r\n\r\n",
            b"Subject: no line end\r\n\r\nthe end",
        ],
        ids=["large", "dots", "no-body", "no-line-end"],
    )
    async def test_any_message(self, data: bytes) -> None:
        async with _served(self.accepting()) as transport:
            [outcome] = await _deliver(transport, delivery(data=data))
        assert outcome.result is Result.DELIVERED

    async def test_deliveries_at_the_same_time(self) -> None:
        results: list[Result] = []
        async with _served(self.accepting()) as transport:

            async def one(number: int) -> None:
                [outcome] = await _deliver(transport, delivery(f"user{number}@example.net", id=number))
                results.append(outcome.result)

            async with trio.open_nursery() as nursery:
                for number in range(1, 6):
                    nursery.start_soon(one, number)
        assert results == [Result.DELIVERED] * 5

    async def test_one_after_the_other(self) -> None:
        async with _served(self.accepting()) as transport:
            for number in range(1, 4):
                [outcome] = await _deliver(transport, delivery(id=number))
                assert outcome.result is Result.DELIVERED

    async def test_a_failure_for_now_is_temporary_and_says_why(self) -> None:
        async with _served(self.failing()) as transport:
            outcomes = await _deliver(transport, delivery("a@example.net", "b@example.net"))
        for outcome in outcomes:
            assert outcome.result is Result.TEMPORARY
            assert outcome.error

    async def test_cancellation_passes_and_harms_nothing(self) -> None:
        async with _served(self.accepting()) as transport:
            with trio.CancelScope() as scope:
                scope.cancel()
                await transport.deliver(delivery())
            [outcome] = await _deliver(transport, delivery())
            assert outcome.result is Result.DELIVERED


@asynccontextmanager
async def _served(made: AbstractAsyncContextManager[Transport]) -> AsyncIterator[Transport]:
    """The transport, while its own work runs, if it has some."""
    async with made as transport, beside() as nursery:
        if isinstance(transport, ServingTransport):
            nursery.start_soon(transport.serve)
        yield transport


async def _deliver(transport: Transport, given: Delivery) -> list[Outcome]:
    with trio.fail_after(PATIENCE):
        answer = await transport.deliver(given)
    outcomes = checked(answer, len(given.messages))
    assert outcomes is not None, f"{answer!r} is not one Outcome for each of {len(given.messages)} messages"
    return outcomes


class ContentStoreSuite(ABC):
    """What the gateway expects of a content store: see `content_store` in docs/plugins/hooks-gateway.md."""

    pytestmark: ClassVar = [pytest.mark.trio]

    @abstractmethod
    def store(self) -> AbstractAsyncContextManager[ContentStore]:
        """A store, empty when a test begins. Asked for again in the same test, one as after a restart."""

    @abstractmethod
    def failing(self) -> AbstractAsyncContextManager[ContentStore]:
        """A store that cannot be reached now."""

    @pytest.mark.parametrize("size", [128 * 1024, 1_000_001])
    @pytest.mark.parametrize("kind", ["memory", "file"])
    async def test_what_was_put_comes_back(self, kind: str, size: int, tmp_path: Path) -> None:
        data = random.Random(size).randbytes(size)  # noqa: S311 - the same each time
        async with self.store() as made:
            store = _called(made)
            await store.put(NAMES[0], _new(data, tmp_path if kind == "file" else None))
            assert await _read(store, NAMES[0], size) == data
        async with self.store() as made:
            store = _called(made)
            assert await _read(store, NAMES[0], size) == data, "it did not survive a restart"
            content = StoredContent(store, NAMES[0], size)
            assert b"".join([piece async for piece in content.chunks()]) == data
            reader = await store.open(NAMES[0])
            for start, count in ((0, 1), (70_000, 4096), (size - 3, 10), (5, 64 * 1024)):
                assert await store.read(reader, start, count) == data[start : start + count]

    async def test_a_reader_may_be_left_early(self) -> None:
        async with self.store() as made:
            store = _called(made)
            await store.put(NAMES[0], _new(DATA))
            for _ in range(20):
                assert await store.read(await store.open(NAMES[0]), 0, 10) == DATA[:10]
            await store.delete(NAMES[:1])

    async def test_what_is_deleted_is_gone(self) -> None:
        async with self.store() as made:
            store = _called(made)
            for name in NAMES:
                await store.put(name, _new(DATA))
            await store.delete([NAMES[0], NAMES[1]])
            await store.delete([NAMES[0], "f" * 32])  # gone already, and never there
            assert await _names(store, LATER) == sorted(NAMES[2:])
            for name in NAMES[:2]:
                with pytest.raises(StoreUnavailable):
                    await _read(store, name, len(DATA))
            assert await _read(store, NAMES[2], len(DATA)) == DATA

    async def test_names_are_those_that_are_old(self) -> None:
        async with self.store() as made:
            store = _called(made)
            assert await _names(store, LATER) == []
            for name in NAMES:
                await store.put(name, _new(DATA))
            assert await _names(store, LATER) == sorted(NAMES)
            assert await _names(store, datetime.now(UTC) - timedelta(hours=1)) == []

    async def test_contents_at_the_same_time(self) -> None:
        async with self.store() as made:
            store = _called(made)

            async def one(name: str) -> None:
                data = name.encode() * 5000
                await store.put(name, _new(data))
                assert await _read(store, name, len(data)) == data

            async with trio.open_nursery() as nursery:
                for name in NAMES:
                    nursery.start_soon(one, name)

    async def test_a_store_that_is_away_says_so(self) -> None:
        async with self.failing() as made:
            store = _called(made)
            with pytest.raises(StoreUnavailable):
                await store.put(NAMES[0], _new(DATA))
            with pytest.raises(StoreUnavailable):
                await _read(store, NAMES[0], len(DATA))
            with pytest.raises(StoreUnavailable):
                await _names(store, LATER)

    async def test_cancellation_passes_and_harms_nothing(self) -> None:
        async with self.store() as made:
            store = _called(made)
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.put(NAMES[0], _new(DATA))
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            await store.put(NAMES[1], _new(DATA))
            assert await _read(store, NAMES[1], len(DATA)) == DATA


NAMES = tuple(f"{number:032x}" for number in range(5))
DATA = bytes(range(256)) * 600
LATER = datetime.now(UTC) + timedelta(days=1)


def _called(store: ContentStore) -> CalledStore:
    """As the gateway calls it, which looks at the types of what it answers too."""
    return CalledStore("under test", store, PATIENCE)


def _new(data: bytes, directory: Path | None = None) -> NewContent:
    """In memory, or in a file as it is spooled."""
    if directory is None:
        return BytesContent(data)
    (directory / "spooled").write_bytes(data)
    files = CalledStore("files", FileStore(directory), PATIENCE)
    return StoredContent(files, "spooled", len(data), directory / "spooled")


async def _read(store: CalledStore, name: str, size: int) -> bytes:
    return await StoredContent(store, name, size).read()


async def _names(store: CalledStore, before: datetime) -> list[str]:
    return sorted([name async for name in store.names(before)])


class ReportReaderSuite(ABC):
    """What the gateway expects of a plugin with `read_report`: see docs/plugins/hooks-receiving.md.

    `settings`: its [plugin.NAME].
    """

    pytestmark: ClassVar = [pytest.mark.trio]
    settings: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def plugin(self) -> object:
        """The plugin, or the name of an installed one."""

    @abstractmethod
    def reports(self) -> Mapping[str, bytes]:
        """Whole messages that it reads, by names for people."""

    async def test_it_reads_its_reports(self) -> None:
        reader, reports = self._reader(), self.reports()
        assert reports, "reports() names no report, so that nothing would be tested"
        for name, data in reports.items():
            assert await reader.read(data) is not None, name

    async def test_the_same_report_is_read_the_same(self) -> None:
        reader = self._reader()
        for name, data in self.reports().items():
            unix = data.replace(b"\r\n", b"\n")
            assert await reader.read(unix) == await reader.read(unix.replace(b"\n", b"\r\n")), name

    async def test_a_letter_is_no_report(self) -> None:
        letter = b"From: ada@example.org\r\nTo: app@example.org\r\nSubject: lunch\r\n\r\nAt one?\r\n"
        assert await self._reader().read(letter) is None

    async def test_a_report_that_was_cut_off_does_no_harm(self) -> None:
        reader = self._reader()
        for data in self.reports().values():
            for sixteenth in range(16):
                await reader.read(data[: len(data) * sixteenth // 16])

    async def test_nonsense_does_no_harm(self) -> None:
        reader, chance = self._reader(), random.Random(1)  # noqa: S311 - the same each time
        for data in self.reports().values():
            for _ in range(50):
                changed = bytearray(data)
                for _ in range(20):
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
                await reader.read(bytes(changed))
        for data in (
            b"",
            b"\0",
            b"\r\n" * 1000,
            b"X: " + b"y" * 100_000,
            b"Subject: x\r\n\r\n" + b"a " * 50_000,
        ):
            await reader.read(data)

    def _reader(self) -> _Reader:
        return _Reader(self.plugin(), self.settings)


class _Reader:
    """A report reader in a plugin set of its own."""

    def __init__(self, plugin: object, settings: Mapping[str, Any]) -> None:
        self._name = plugin if isinstance(plugin, str) else plugin_name(plugin)
        raw = {
            "hostname": "gateway.example",
            "plugins": {"sets": ["test"]},
            "plugin_sets": {"test": {"plugins": [self._name, *REST]}},
            "plugin": {self._name: dict(settings)},
        }
        extra = {} if isinstance(plugin, str) else {self._name: plugin}
        self._hooks: Hooks = load_plugins(Settings.model_validate(raw), Path.cwd(), extra=extra)

    async def read(self, data: bytes) -> Report | None:
        """What the plugin makes of it. Fails if that raises, is of the wrong type, or holds up the loop."""
        source = report_source(data)
        tally = self._hooks.calls[self._name, "read_report"]
        failures, started = tally.failures, perf_counter()
        answer = await self._hooks.gateway.read_report(source=source)
        took = perf_counter() - started
        assert tally.failures == failures, (
            f"{self._name} failed; the log says how. It was given: {data[:2000]!r}"
        )
        assert took < 10 * SLOW, f"{self._name} took {took:.1f} s for: {data[:2000]!r}"
        return answer
