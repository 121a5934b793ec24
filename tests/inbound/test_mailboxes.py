"""Messages in a store, changed by several at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from gateway.clock import ManualClock
from gateway.config.settings import Settings
from gateway.errors import NotVisible
from gateway.inbound.mailboxes import Mailboxes
from gateway.store import received
from gateway.store.changes import NewCopy, NewReceived
from gateway.store.content import SMALL
from gateway.store.mailbox_listing import MessageFilter
from gateway.store.store import Store

SETTINGS = Settings.model_validate(
    {
        "hostname": "gateway.example",
        "domains": {"example.org": {}},
        "accounts": {"shop": {"addresses": ["shop@example.org"], "mailboxes": ["Orders"]}},
    }
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path, ManualClock()) as store:
        yield store


async def add(store: Store, *accounts: str, size: int = SMALL) -> tuple[int, ...]:
    stored = await store.content.put(b"x" * size)
    copies = tuple(NewCopy(account=account, mailbox="Inbox") for account in accounts)
    new = NewReceived(content=stored, copies=copies)
    return await store.write(lambda conn: received.add(conn, new, store.clock.now()))


async def together(*works: Callable[[], Awaitable[object]]) -> list[object]:
    """What each answers, or NotVisible."""
    answers: list[object] = [None] * len(works)

    async def run(index: int, work: Callable[[], Awaitable[object]]) -> None:
        try:
            answers[index] = await work()
        except NotVisible:
            answers[index] = NotVisible

    async with trio.open_nursery() as nursery:
        for index, work in enumerate(works):
            nursery.start_soon(run, index, work)
    return answers


def files(store: Store) -> int:
    return len(list(store.content.directory.iterdir()))


async def test_content_stays_until_its_last_copy_is_deleted(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    one, two = await add(store, "shop", "news")
    await mailboxes.delete("shop", one)
    _, content = await mailboxes.get("news", two)
    assert len(await content.read()) == SMALL
    await mailboxes.delete("news", two)
    assert files(store) == 0


async def test_of_deletes_at_once_one_is_done(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    (only,) = await add(store, "shop")
    answers = await together(*[lambda: mailboxes.delete("shop", only)] * 5)
    assert sorted(answers, key=str) == [NotVisible] * 4 + [None]
    assert files(store) == 0


async def test_all_copies_deleted_at_once(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    one, two = await add(store, "shop", "news")
    answers = await together(lambda: mailboxes.delete("shop", one), lambda: mailboxes.delete("news", two))
    assert answers == [None, None]
    assert files(store) == 0


async def test_move_and_flags_while_delete(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    for _ in range(5):
        (only,) = await add(store, "shop", size=10)
        answers = await together(
            partial(mailboxes.delete, "shop", only),
            partial(mailboxes.move, "shop", only, "Trash"),
            partial(mailboxes.change_flags, "shop", only, add=frozenset({"\\seen"})),
        )
        # Before the deletion they are done, after it there is nothing to do it to.
        assert answers[0] is None
        assert answers[1] in (True, NotVisible)
        assert answers[2] in (None, NotVisible)
        with pytest.raises(NotVisible):
            await mailboxes.get("shop", only)


async def test_flags_of_several_at_once_are_all_there(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    (only,) = await add(store, "shop", size=10)
    names = [f"k{n}" for n in range(20)]
    await together(*(partial(mailboxes.change_flags, "shop", only, add=frozenset({name})) for name in names))
    message, _ = await mailboxes.get("shop", only)
    assert message.flags == tuple(sorted(names))


async def test_a_reader_has_all_of_what_is_deleted_meanwhile(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    (only,) = await add(store, "shop", size=1_000_000)
    _, content = await mailboxes.get("shop", only)
    chunks = content.chunks()
    size = len(await anext(chunks))
    await mailboxes.delete("shop", only)
    async for chunk in chunks:
        size += len(chunk)
    assert size == 1_000_000


async def test_own_mailboxes_are_there_before_anything_is_in_them(store: Store) -> None:
    mailboxes = Mailboxes(SETTINGS, store)
    one, two = await add(store, "shop", "news")
    everything = MessageFilter()
    assert await mailboxes.page("shop", replace(everything, mailbox="Orders"), cursor="", maximum=10) == (
        (),
        "",
    )
    assert await mailboxes.page("news", replace(everything, mailbox="Orders"), cursor="", maximum=10) is None
    assert await mailboxes.move("shop", one, "Orders")
    assert not await mailboxes.move("shop", one, "orders")
    assert not await mailboxes.move("news", two, "Orders")
    found, _ = await mailboxes.get("shop", one)
    assert found.mailbox == "Orders"
