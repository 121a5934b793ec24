"""Links to unsubscribe: what they hold, that nobody can make one, and what following one does."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.config.settings import Settings
from gateway.mail.address import Address
from gateway.outbound.unsubscribe import MAX_TOKEN, BadLinkError, Link, Unsubscriber, sign, verify
from gateway.plugins.loading import load_plugins
from gateway.store import events, suppressions, webhook_calls
from gateway.store.changes import ClaimCalls
from gateway.store.store import Store
from tests.store import sample

KEY = b"k" * 32
LINK = Link("shop", "news", Address.parse("jo@example.net"), "<m1@example.org>")
TOKEN = sign(LINK, KEY)


def test_there_and_back() -> None:
    for link in (
        LINK,
        replace(LINK, list_name=""),
        replace(LINK, recipient=Address.parse('"j ü"@bücher.example')),
    ):
        token = sign(link, KEY)
        assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", token)
        assert verify(token, KEY) == link
    longest = Link(
        "a" * 100, "l" * 100, Address.parse("a" * 64 + "@" + "b." * 120 + "example"), "<" + "m" * 899 + ">"
    )
    assert len(sign(longest, KEY)) <= MAX_TOKEN


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "a.b.c",
        "ü.x",
        TOKEN[:-1],
        TOKEN[:-5],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN.replace(".", ""),
        "A" + TOKEN[1:],
        TOKEN.partition(".")[0] + ".",
        "." + TOKEN.partition(".")[2],
        "x" * (MAX_TOKEN + 1),
        sign(LINK, b"o" * 32),
        # Another recipient's payload under this signature.
        sign(replace(LINK, recipient=Address.parse("al@example.net")), KEY).partition(".")[0]
        + TOKEN[TOKEN.index(".") :],
    ],
)
def test_what_is_not_ours(token: str) -> None:
    with pytest.raises(BadLinkError):
        verify(token, KEY)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("ABYZabyz0189-_."))
def test_every_changed_character_counts(position: int, other: str) -> None:
    changed = TOKEN[:position] + other + TOKEN[position + 1 :]
    if changed != TOKEN:
        with pytest.raises(BadLinkError):
            verify(changed, KEY)


@given(st.text(), st.text(max_size=60))
def test_any_text_is_refused(token: str, rest: str) -> None:
    for text in (
        token,
        f"{token}.{rest}",
        base64.urlsafe_b64encode(token.encode("utf-8", "replace")).decode(),
    ):
        with pytest.raises(BadLinkError):
            verify(text, KEY)


# --- Following one ----------------------------------------------------------------------------------


class World:
    def __init__(self, store: Store, clock: ManualClock, told: list[str]) -> None:
        account: dict[str, Any] = {
            "addresses": ["shop@example.org"],
            "webhook_outgoing": {"url": sample.HOOK},
        }
        settings = Settings.model_validate(
            {
                "hostname": "mail.example.org",
                "web": {"base_url": "https://mail.example.org"},
                "domains": {"example.org": {}},
                "accounts": {"shop": account},
            }
        )
        hooks = load_plugins(settings, Path("/etc/gateway"))
        self.store, self.clock, self.told = store, clock, told
        self.unsubscriber = Unsubscriber(settings, hooks, store, clock, lambda: told.append("told"))

    async def events(self) -> list[Any]:
        return list(await self.store.read(lambda conn: events.after(conn, 0, 100)))

    async def listed(self) -> list[tuple[str, str]]:
        page, _ = await self.store.read(lambda conn: suppressions.page(conn, "shop", self.clock.now()))
        return [(entry.base_address, entry.list_name) for entry in page]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock()
    async with Store.open(tmp_path, clock) as store:
        yield World(store, clock, [])


async def test_the_account_hears_of_it_once(world: World) -> None:
    now = world.clock.now()
    await world.store.write(
        lambda conn: sample.add(conn, "jo@example.net", "al@example.net", list_name="news")
    )
    url = await world.unsubscriber.url(LINK)
    assert url.startswith("https://mail.example.org/unsubscribe/")
    link = await world.unsubscriber.read(url.rpartition("/")[2])
    assert link == LINK
    for _ in range(3):
        await world.unsubscriber.unsubscribe(link)
    assert await world.listed() == [("jo@example.net", "news")]
    [event] = await world.events()
    assert (event.name, event.queue_msg_id, event.recipient, event.message_id, event.suppressing) == (
        "unsubscribed",
        1,
        "jo@example.net",
        "<m1@example.org>",
        True,
    )
    assert (event.error, event.subject) == ("unsubscribed from news", "hi")
    assert world.told
    wanted = ClaimCalls(owner="me", now=now, lease_seconds=60, room=10)
    claims = await world.store.write(
        lambda conn: webhook_calls.claim(conn, wanted, sample.later, lambda _: None)
    )
    assert [(call.event_name, call.url) for call in claims.calls] == [("unsubscribed", sample.HOOK)]


async def test_a_message_that_is_kept_no_more(world: World) -> None:
    for name in ("al@example.net", "j.o+x@example.net"):
        await world.unsubscriber.unsubscribe(replace(LINK, recipient=Address.parse(name), list_name=""))
    assert await world.listed() == [("al@example.net", ""), ("jo@example.net", "")]
    first, second = await world.events()
    assert (first.queue_msg_id, first.recipient, first.error) == (
        0,
        "al@example.net",
        "unsubscribed from all mail",
    )
    assert (second.queue_msg_id, second.recipient, second.suppressing) == (0, "j.o+x@example.net", True)
    wanted = ClaimCalls(owner="me", now=world.clock.now(), lease_seconds=60, room=10, per_url=10)
    claims = await world.store.write(
        lambda conn: webhook_calls.claim(conn, wanted, sample.later, lambda _: None)
    )
    assert len(claims.calls) == 2  # neither supersedes the other


async def test_an_account_that_is_configured_no_more(world: World) -> None:
    await world.unsubscriber.unsubscribe(replace(LINK, account="gone"))
    page, _ = await world.store.read(lambda conn: suppressions.page(conn, "gone", world.clock.now()))
    assert len(page) == 1


async def test_the_key_stays(world: World) -> None:
    url = await world.unsubscriber.url(LINK)
    again = World(world.store, world.clock, []).unsubscriber
    assert await again.url(LINK) == url
