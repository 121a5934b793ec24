from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from gateway.mail.flags import MAX_FLAGS, FlagError
from gateway.store import events, received, tables
from gateway.store.changes import CallDraft, IncomingDraft, NewCopy, NewReceived
from gateway.store.content import StoredBytes
from gateway.store.events import IncomingReference
from tests.store.sample import HOOK, KEEP, NOW, count, database, messages_in, plans


@pytest.fixture
def conn() -> Iterator[sa.Connection]:
    with database() as conn:
        yield conn


def new(*accounts: str, file: str | None = None) -> NewReceived:
    return NewReceived(
        content=StoredBytes(4, data=None if file else b"mail", file=file),
        copies=tuple(
            NewCopy(
                account=account,
                mailbox="Inbox",
                flags=("$junk",),
                mail_from="jo@example.net",
                mail_from_validated=True,
                rcpt_to=f"{account}@example.org",
                dkim_verified_domains=("example.net",),
                remote_ip="192.0.2.1",
                message_id="<in@example.net>",
                event=IncomingDraft(keep_until=KEEP, calls=(CallDraft(url=HOOK),)),
            )
            for account in accounts
        ),
    )


def test_copies_share_content_and_are_announced(conn: sa.Connection) -> None:
    one, two = received.add(conn, new("shop", "news"), NOW)
    assert count(conn, tables.content) == 1
    found = received.get(conn, "shop", one)
    assert found is not None
    message = found.message
    assert (message.mailbox, message.size, message.flags) == ("Inbox", 4, ("$junk",))
    assert (message.rcpt_to, message.dkim_verified_domains) == ("shop@example.org", ("example.net",))
    assert found.content.data == b"mail"
    told = events.after(conn, 0, 10)
    assert [(type(e), e.account) for e in told] == [(IncomingReference, "shop"), (IncomingReference, "news")]
    assert [e.received_id for e in told if isinstance(e, IncomingReference)] == [one, two]
    calls = conn.execute(sa.select(tables.webhook_call)).all()
    assert [(c.event_name, c.queue_msg_id, c.state) for c in calls] == [("incoming", 0, "queued")] * 2


def test_another_accounts_message_is_none(conn: sa.Connection) -> None:
    (only,) = received.add(conn, new("shop"), NOW)
    assert received.get(conn, "news", only) is None
    assert received.get(conn, "shop", only + 1) is None
    assert received.delete(conn, "news", only) is None
    assert not received.change_flags(conn, "news", only, add=frozenset({"\\seen"}), remove=frozenset())
    assert received.move(conn, "news", only, "Inbox") is False


def test_mailboxes_are_made_once(conn: sa.Connection) -> None:
    received.add(conn, new("shop"), NOW)
    received.add(conn, new("shop"), NOW)
    assert received.mailboxes(conn, "shop") == ("Inbox",)
    assert count(conn, tables.mailbox) == 1


def test_flags_move_and_pages(conn: sa.Connection) -> None:
    ids = [received.add(conn, new("shop"), NOW)[0] for _ in range(3)]
    assert received.change_flags(conn, "shop", ids[0], add=frozenset({"\\seen"}), remove=frozenset({"$junk"}))
    assert [m.flags for m in messages_in(conn, "shop", "Inbox")] == [("$junk",), ("$junk",), ("\\seen",)]
    assert received.move(conn, "shop", ids[0], "Orders") is None
    received.add(
        conn,
        NewReceived(content=StoredBytes(1, data=b"x"), copies=(NewCopy(account="shop", mailbox="Orders"),)),
        NOW,
    )
    assert received.move(conn, "shop", ids[0], "Orders")
    assert received.move(conn, "shop", 999, "Orders") is False
    assert len(messages_in(conn, "shop", "Orders")) == 2
    assert messages_in(conn, "shop", "Nowhere") == []


@pytest.mark.parametrize("name", sorted(received.STANDARD))
def test_standard_mailboxes_are_there(conn: sa.Connection, name: str) -> None:
    (only,) = received.add(conn, new("shop"), NOW)
    assert received.move(conn, "shop", only, name)
    assert [m.id for m in messages_in(conn, "shop", name)] == [only]
    assert received.move(conn, "shop", 999, "Trash") is False
    assert received.mailboxes(conn, "shop") == tuple(sorted({"Inbox", name}))


def test_changes_find_their_message_by_its_id(conn: sa.Connection) -> None:
    (only,) = received.add(conn, new("shop"), NOW)

    def work() -> None:
        received.change_flags(conn, "shop", only, add=frozenset({"a"}), remove=frozenset())
        received.move(conn, "shop", only, "Inbox")
        received.delete(conn, "shop", only)

    plan = plans(conn, work)
    assert "SCAN" not in plan
    assert "received USING INTEGER PRIMARY KEY" in plan


def test_too_many_flags_change_nothing(conn: sa.Connection) -> None:
    (only,) = received.add(conn, new("shop"), NOW)
    many = frozenset(f"k{n}" for n in range(MAX_FLAGS))
    with pytest.raises(FlagError, match="at most 100"):
        received.change_flags(conn, "shop", only, add=many, remove=frozenset())
    assert messages_in(conn, "shop", "Inbox")[0].flags == ("$junk",)


def test_content_goes_with_the_last_copy(conn: sa.Connection) -> None:
    one, two = received.add(conn, new("shop", "news", file="f1"), NOW)
    assert received.delete(conn, "shop", one) == []
    assert received.delete(conn, "news", two) == ["f1"]
    assert count(conn, tables.content) == 0
