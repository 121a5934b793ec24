"""What `gateway queue` does to messages, and how it shows one."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.clock import Clock
from gateway.store.listing import Filter
from tests.cli.asking import ESCAPES, listed, ok, refused
from tests.plugins.smtp_servers import Server, serving, smtp_transport
from tests.running import Running, receiving, running


@pytest.fixture
async def gateway(tmp_path: Path) -> Any:
    """A gateway with message 1, that waits for an hour."""

    def impatient(raw: dict[str, Any]) -> None:
        raw["grace"] = 0.2

    async with receiving() as webhooks, running(tmp_path, webhooks, change=impatient) as gateway:
        later = (Clock().now() + timedelta(hours=1)).isoformat()
        await gateway.send("one@example.org", FutureRelease=later)
        yield gateway


async def test_fail(gateway: Running) -> None:
    assert await refused(gateway, "queue", "fail") == (
        "choose messages (--id, --to, ...), or --all for every message of the queue"
    )
    assert await ok(gateway, "queue", "fail", "--to", "nobody") == "0 messages\n"
    assert await ok(gateway, "queue", "fail", "--to", "example.org") == "1 message\n"
    told = await gateway.webhooks.event("failed")
    assert (told["QueueMsgID"], told["Error"]) == (1, "failed by admin")
    assert (told["SMTPCode"], told["Suppressing"], told["DSN"]) == (0, False, False)
    item, attempts = await gateway.message(1)
    assert (item.state, item.retired_as, item.success, item.leased) == ("retired", "failed", False, False)
    assert [(a.number, a.success, a.error) for a in attempts] == [(0, False, "failed by admin")]
    assert item.content_id is None
    assert "noted 0s ago:\n  failed by admin\n" in await ok(gateway, "queue", "show", 1)
    assert await ok(gateway, "queue", "fail", "--all") == "0 messages\n"


async def test_fail_says_that_an_attempt_was_under_way(gateway: Running) -> None:
    await gateway.send("timeout@example.org")  # whose attempt takes ten minutes

    async def under_way() -> bool:
        return any(item.leased for item in await gateway.messages(ids=(2,)))

    await gateway.until(under_way, True)
    assert "now" in await ok(gateway, "queue", "list", "--id", 2)
    assert await ok(gateway, "queue", "schedule", "--id", 2, "--add", "1h") == "0 messages\n"
    assert await ok(gateway, "queue", "fail", "--id", 2) == "1 message\n"
    told = await gateway.webhooks.event("failed")
    assert told["Error"] == "failed by admin; an attempt was under way and may still deliver it"
    assert (await gateway.message(2))[0].retired_as == "failed"
    [notice] = (await gateway.call("MessageList", {"MailboxName": "Inbox"}))["Messages"]
    assert notice["Subject"].startswith("Perhaps not delivered")


async def test_fail_many(gateway: Running) -> None:
    """More than one step takes."""
    await gateway.gateway.holding.add("", "", "")
    to = [{"Address": f"user{number}@example.net"} for number in range(230)]
    await gateway.call("Send", {"To": to, "Subject": "many", "Text": "hello"})
    assert await ok(gateway, "queue", "fail", "--to", "example.net") == "230 messages\n"
    assert await listed(gateway) == [1]
    failed = await gateway.messages(state="retired", recipient_domain="example.net")
    assert {item.retired_as for item in failed} == {"failed"}


async def test_at_most_so_many(gateway: Running) -> None:
    """Over more than one step, and each time those queued first of what is not done yet."""
    later = (Clock().now() + timedelta(hours=1)).isoformat()
    to = [{"Address": f"user{number}@example.net"} for number in range(600)]
    await gateway.call("Send", {"To": to, "Subject": "many", "Text": "hello", "FutureRelease": later})
    mine, most = ("--to", "@example.net"), ("--to", "@example.net", "--max", 550)

    async def left(*filters: object) -> int:
        return len(await listed(gateway, *mine, "--max", 1000, *filters))

    assert "choose messages" in await refused(gateway, "queue", "hold", "--max", 2)
    assert await ok(gateway, "queue", "release", "--all", "--max", 2**63 - 1) == "0 messages\n"
    assert await ok(gateway, "queue", "hold", "--all", "--max", 1) == "1 message\n"
    assert await listed(gateway, "--held") == [1]
    assert await ok(gateway, "queue", "hold", *most) == "550 messages\n"
    assert await listed(gateway, "--not-held") == list(range(552, 602))
    assert await ok(gateway, "queue", "hold", *most) == "50 messages\n"
    assert await ok(gateway, "queue", "release", *most) == "550 messages\n"
    assert await left("--held") == 50
    assert await ok(gateway, "queue", "schedule", *mine, "--in", "3h", "--max", 2) == "2 messages\n"
    assert await left("--next-attempt", ">2h") == 2
    assert await ok(gateway, "queue", "schedule", *mine, "--add", "3h", "--max", 3) == "3 messages\n"
    assert await left("--next-attempt", ">2h") == 3
    assert await ok(gateway, "queue", "transport", *most, "--set", "localserve") == "550 messages\n"
    assert await left("--transport", "localserve") == 550
    assert await ok(gateway, "queue", "require-tls", "yes", *mine, "--max", 7) == "7 messages\n"
    assert await ok(gateway, "queue", "fail", *mine, "--max", 130) == "130 messages\n"
    assert await left() == 470
    assert await ok(gateway, "queue", "drop", *mine, "--max", 120) == "120 messages\n"
    assert await listed(gateway, "--max", 1000) == [1, *range(252, 602)]


async def test_transport(gateway: Running) -> None:
    assert await ok(gateway, "queue", "transport", "--all", "--set", "localserve") == "1 message\n"
    assert await ok(gateway, "queue", "transport", "--all", "--set", "localserve") == "0 messages\n"
    assert await listed(gateway, "--transport", "localserve") == [1]
    assert await refused(gateway, "queue", "transport", "--all", "--set", "elsewhere") == (
        "there is no transport 'elsewhere'; there are: localserve"
    )
    assert await ok(gateway, "queue", "transport", "--id", 1, "--set", "") == "1 message\n"
    assert await listed(gateway, "--transport", "localserve") == []


async def test_the_next_attempt_takes_the_transport(tmp_path: Path) -> None:
    """In place of what routes say, and what routes say once it is taken back."""
    async with receiving() as webhooks, serving(Server()) as chosen, serving(Server()) as routed:

        def change(raw: dict[str, Any]) -> None:
            raw["transports"] |= {"chosen": smtp_transport(chosen), "routed": smtp_transport(routed)}
            raw["routes"] = [{"transport": "routed"}]

        async with running(tmp_path, webhooks, change=change) as gateway:
            later = (Clock().now() + timedelta(hours=1)).isoformat()
            for name in ("one", "two"):
                await gateway.send(f"{name}@example.org", FutureRelease=later)
            assert await ok(gateway, "queue", "transport", "--all", "--set", "chosen") == "2 messages\n"
            assert await ok(gateway, "queue", "transport", "--id", 2, "--set", "") == "1 message\n"
            assert await ok(gateway, "queue", "schedule", "--all") == "2 messages\n"
            for message_id, name in ((1, "chosen"), (2, "routed")):
                await webhooks.event("delivered", QueueMsgID=message_id)
                _, attempts = await gateway.message(message_id)
                assert [(a.transport, a.success) for a in attempts] == [(name, True)]
            assert (chosen.recipients, routed.recipients) == ([["one"]], [["two"]])


@pytest.mark.parametrize(("value", "expected"), [("yes", True), ("no", False), ("default", None)])
async def test_require_tls(gateway: Running, value: str, expected: bool | None) -> None:
    other = "no" if value == "yes" else "yes"
    assert await ok(gateway, "queue", "require-tls", other, "--all") == "1 message\n"
    assert await ok(gateway, "queue", "require-tls", value, "--id", 1) == "1 message\n"
    assert await ok(gateway, "queue", "require-tls", value, "--id", 1) == "0 messages\n"
    assert (await gateway.message(1))[0].message.require_tls is expected


async def test_schedule_adds_to_what_was_set(gateway: Running) -> None:
    before = (await gateway.message(1))[0].message.next_attempt
    assert await ok(gateway, "queue", "schedule", "--id", 1, "--add", "1h30m") == "1 message\n"
    assert (await gateway.message(1))[0].message.next_attempt == before + timedelta(hours=1.5)
    await ok(gateway, "queue", "schedule", "--id", 1, "--in", "2h")
    wait = (await gateway.message(1))[0].message.next_attempt - gateway.gateway.clock.now()
    assert timedelta(minutes=119) < wait < timedelta(minutes=121)


async def test_postponing_for_ever_ends(gateway: Running) -> None:
    """A time that no datetime can say would make the message unreadable."""
    for _ in range(3):
        await gateway.gateway.operations.postpone(Filter(ids=(1,)), timedelta(days=365 * 4000))
    assert (await gateway.message(1))[0].message.next_attempt.year == 9000


async def test_content(gateway: Running) -> None:
    text = await ok(gateway, "queue", "show", 1, "--content")
    assert "\n    To: one@example.org\n" in text
    assert "\n    hello\n" in text
    assert "content" not in await ok(gateway, "queue", "show", 1)
    answer = json.loads(await ok(gateway, "queue", "show", 1, "--content", "--json"))
    assert answer["Content"]["Complete"] is True
    assert answer["Content"]["Size"] == answer["Message"]["Size"] == len(answer["Content"]["Text"])

    # A long one is shown as far as its beginning goes; one from a file too.
    for message_id, length in ((2, 50_000), (3, 500_000)):
        later = (Clock().now() + timedelta(hours=1)).isoformat()
        await gateway.send(FutureRelease=later, Text="long line\n" * (length // 10))
        answer = json.loads(await ok(gateway, "queue", "show", message_id, "--content", "--json"))
        assert (answer["Content"]["Complete"], len(answer["Content"]["Text"])) == (False, 16384)
        shown = await ok(gateway, "queue", "show", message_id, "--content")
        assert " bytes, of which the first are shown:\n    " in shown

    await ok(gateway, "queue", "drop", "--id", 1)
    assert (await ok(gateway, "queue", "show", 1, "--content")).endswith("\ncontent: not kept any more\n")


async def test_content_is_safe_for_terminals(gateway: Running) -> None:
    later = (Clock().now() + timedelta(hours=1)).isoformat()
    text = f"one {ESCAPES} two\r\x0bthree"
    await gateway.send(FutureRelease=later, Text=text, Extra={"key": ESCAPES})
    for options in ((), ("--json",)):
        shown = await ok(gateway, "queue", "show", 2, "--content", *options)
        assert "one" in shown
        assert all(c.isprintable() or c == "\n" for c in shown), shown


async def test_identifiers(gateway: Running) -> None:
    [item] = await gateway.messages()
    message_id = item.message.message_id
    for given in (message_id, message_id.strip("<>")):
        assert await listed(gateway, "--message-id", given) == [1]
    assert await listed(gateway, "--message-id", message_id[:-2]) == []
    assert await listed(gateway, "--from-id", "elsewhere") == []


async def test_retired(gateway: Running) -> None:
    await gateway.send("user550@example.org")
    await gateway.webhooks.event("failed", QueueMsgID=2)
    await gateway.send("good@example.org")
    await gateway.webhooks.event("delivered", QueueMsgID=3)
    for filters, expected in (
        ((), [2, 3]),
        (("--success",), [3]),
        (("--failed",), [2]),
        (("--last-activity", "<now"), [2, 3]),
        (("--last-activity", "<-1h"), []),
        (("--last-activity", ">-1h", "--success"), [3]),
        (("--to", "user550"), [2]),
        (("--sort", "queued", "--desc"), [3, 2]),
    ):
        assert await listed(gateway, "--retired", *filters) == expected, filters
    shown = (await ok(gateway, "queue", "show", 3)).split()
    assert shown[shown.index("NextAttempt:") + 1] == "-"
    for option in (("--success",), ("--failed",), ("--last-activity", "<now")):
        result = CliRunner().invoke(main, ["queue", "list", *option])
        assert result.exit_code == 2
        assert "are of messages that are --retired" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["schedule", "--all", "--in", "1h", "--add", "1h"], "give either --in or --add"),
        (["hold", "--all", "--max", "0"], "0 is not in the range"),
        (["hold", "--all", "--max", str(2**63)], f"{2**63} is not in the range"),
        (["transport", "--all"], "Missing option '--set'"),
        (["require-tls", "maybe", "--all"], "'maybe' is not one of 'yes', 'no', 'default'"),
        (["require-tls", "--all"], "Missing argument"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["queue", *arguments])
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
