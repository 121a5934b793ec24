"""`gateway queue`, asked of a gateway that runs."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner

from gateway import datadir
from gateway.cli import common
from gateway.cli.common import duration, relative, time_bound
from gateway.cli.main import main
from gateway.clock import Clock
from tests.cli.asking import ESCAPES, listed, ok, refused
from tests.running import Running, receiving, running


@pytest.fixture
async def three(tmp_path: Path) -> Any:
    """A gateway with three messages that wait: 1 and 2 of one submission, 3 due later."""
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        now = Clock().now()
        await gateway.send(
            "one@example.org",
            CC=[{"Address": "two@example.net"}],
            FutureRelease=(now + timedelta(hours=1)).isoformat(),
        )
        await gateway.send("three@example.org", FutureRelease=(now + timedelta(hours=5)).isoformat())
        yield gateway


async def test_list(three: Running) -> None:
    lines = (await ok(three, "queue", "list")).splitlines()
    assert lines[0].split() == [
        "ID",
        "QUEUED",
        "HOLD",
        "FROM",
        "TO",
        "ATTEMPTS",
        "NEXT",
        "SUBJECT",
        "LAST",
        "ERROR",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert "mox+" in lines[1]
    assert "in 60.0m" in lines[1] or "in 1.0h" in lines[1]
    assert "in 5.0h" in lines[3]
    assert await ok(three, "queue", "list", "--to", "nobody") == "no messages match\n"
    assert await ok(three, "queue", "list", "--retired") == "no messages\n"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--id", "1", "--id", "3"], [1, 3]),
        (["--id", "9"], []),
        (["--account", "mox"], [1, 2, 3]),
        (["--account", "other"], []),
        (["--from", "MOX+"], [1, 2, 3]),
        (["--to", "example.org"], [1, 3]),
        (["--to", "%"], []),
        (["--to", "_"], []),
        (["--held"], []),
        (["--not-held"], [1, 2, 3]),
        (["--submitted", "<now"], [1, 2, 3]),
        (["--submitted", ">-1h"], [1, 2, 3]),
        (["--submitted", "<-1h"], []),
        (["--next-attempt", "<2h"], [1, 2]),
        (["--next-attempt", ">1h30m"], [3]),
        (["--next-attempt", "<now"], []),
        (["--transport", "localserve"], []),
        (["--to", "example.org", "--next-attempt", ">2h"], [3]),
        (["--desc"], [3, 2, 1]),
        (["--sort", "queued", "--desc"], [3, 2, 1]),
    ],
)
def test_filters(filters: list[str], expected: list[int], of_three: dict[str, list[int]]) -> None:
    assert of_three[json.dumps(filters)] == expected


@pytest.fixture(scope="module")
def of_three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """What each of the filters finds, asked of one gateway."""
    [mark] = [m for m in test_filters.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    found: dict[str, list[int]] = {}

    async def ask() -> None:
        async with receiving() as webhooks, running(tmp_path_factory.mktemp("gw"), webhooks) as gateway:
            now = Clock().now()
            soon, late = ((now + timedelta(hours=hours)).isoformat() for hours in (1, 5))
            await gateway.send("one@example.org", CC=[{"Address": "two@example.net"}], FutureRelease=soon)
            await gateway.send("three@example.org", FutureRelease=late)
            for filters, _ in mark.args[1]:
                found[json.dumps(filters)] = await listed(gateway, *filters)

    trio.run(ask)
    return found


async def test_pages(three: Running) -> None:
    seen, cursor = [], ""
    for _ in range(3):
        options = ["--max", 1, *(["--cursor", cursor] if cursor else [])]
        table = await ok(three, "queue", "list", *options)
        answer = json.loads(await ok(three, "queue", "list", "--json", *options))
        seen.append(answer["Messages"][0]["ID"])
        cursor = answer["NextCursor"]
        assert (f"more: --cursor {cursor}" in table) is bool(cursor)
    assert seen == [1, 2, 3]
    assert cursor == ""
    assert "cursor" in await refused(three, "queue", "list", "--cursor", "nonsense")


async def test_show(three: Running) -> None:
    text = await ok(three, "queue", "show", 1)
    assert "Recipient:      one@example.org\n" in text
    assert "NextAttempt:    20" in text
    assert json.loads(await ok(three, "queue", "show", 1, "--json"))["Message"]["ID"] == 1
    assert await refused(three, "queue", "show", 99) == (
        "there is no message 99, queued or kept; see gateway queue list"
    )

    await three.send("user550@example.org", Extra={"Order": "17"})
    await three.webhooks.event("failed")
    text = await ok(three, "queue", "show", 4)
    assert "attempt 1: done," in text
    assert "transport localserve, remote 127.0.0.1\n" in text
    assert "550 5.0.0 remote answered 550 5.0.0 simulated failure" in text
    assert "    > RCPT TO:<user550@example.org>\n" in text
    assert "Extra:          Order=17\n" in text
    assert "failed" in await ok(three, "queue", "list", "--retired")


async def test_hold_release_schedule_and_drop(three: Running) -> None:
    assert await ok(three, "queue", "hold", "--to", "example.org") == "2 messages\n"
    assert await ok(three, "queue", "hold", "--to", "example.org") == "0 messages\n"
    assert await listed(three, "--held") == [1, 3]
    assert "when released" in await ok(three, "queue", "list", "--held")
    assert await ok(three, "queue", "schedule", "--all") == "3 messages\n"
    await three.webhooks.event("delivered", QueueMsgID=2)
    assert await ok(three, "queue", "schedule", "--id", 3, "--in", "1h30m") == "1 message\n"
    [item] = await three.messages(ids=(3,))
    wait = item.message.next_attempt - three.gateway.clock.now()
    assert timedelta(minutes=89) < wait < timedelta(minutes=91)
    assert await ok(three, "queue", "release", "--all") == "2 messages\n"
    await three.webhooks.event("delivered", QueueMsgID=1)
    assert await ok(three, "queue", "drop", "--id", 3) == "1 message\n"
    assert (await three.webhooks.event("canceled"))["Error"] == "canceled by admin"
    retired = (await ok(three, "queue", "list", "--retired", "--sort", "queued")).splitlines()[1:]
    assert [line.split()[8] for line in retired] == ["delivered", "delivered", "canceled"]
    for action in ("hold", "release", "schedule", "drop"):
        assert await refused(three, "queue", action) == (
            "choose messages (--id, --to, ...), or --all for every message of the queue"
        )
        assert await ok(three, "queue", action, "--all") == "0 messages\n"


async def test_hold_rules(three: Running) -> None:
    assert await ok(three, "queue", "hold-rules", "list") == "no hold rules\n"
    added = await ok(three, "queue", "hold-rules", "add", "--to-domain", "EXAMPLE.net")
    assert added == "hold rule 1 added; 1 message of the queue put on hold\n"
    added = await ok(three, "queue", "hold-rules", "add", "--account", "mox", "--from-domain", "localhost")
    assert added == "hold rule 2 added; 2 messages of the queue put on hold\n"
    lines = [line.split() for line in (await ok(three, "queue", "hold-rules", "list")).splitlines()]
    assert lines[1:] == [["1", "any", "any", "example.net"], ["2", "mox", "localhost", "any"]]
    rules = json.loads(await ok(three, "queue", "hold-rules", "list", "--json"))
    assert rules[0]["RecipientDomain"] == "example.net"
    assert "hold rule 1 removed; messages on hold stay so" in await ok(
        three, "queue", "hold-rules", "remove", 1
    )
    assert await listed(three, "--held") == [1, 2, 3]
    assert await refused(three, "queue", "hold-rules", "remove", 1) == (
        "there is no hold rule 1; see gateway queue hold-rules list"
    )
    assert "give --account, --from-domain or --to-domain" in await refused(
        three, "queue", "hold-rules", "add"
    )
    assert await refused(three, "queue", "hold-rules", "add", "--account", "max") == (
        "there is no account 'max'; there are: mox"
    )
    assert "example..org" in await refused(three, "queue", "hold-rules", "add", "--to-domain", "example..org")
    narrowed = await refused(three, "queue", "hold-rules", "add", "--all", "--to-domain", "example.org")
    assert narrowed.startswith("--all holds everything: ")
    assert "hold rule 3 added" in await ok(three, "queue", "hold-rules", "add", "--all")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["queue", "list", "--submitted", "1h"], "Invalid value for '--submitted': '1h' must start with"),
        (["queue", "list", "--next-attempt", "<tomorrow"], "'tomorrow' is no duration"),
        (["queue", "list", "--next-attempt", "<99999999999999999999d"], "is no duration"),
        (["queue", "list", "--max", "0"], "Invalid value for '--max'"),
        (["queue", "list", "--id", "99999999999999999999"], "Invalid value for '--id'"),
        (["queue", "schedule", "--all", "--in", "soon"], "Invalid value for '--in': 'soon' is no duration"),
        (["queue", "schedule", "--all", "--in", "9" * 400 + "d"], "is no duration"),
        (["queue", "schedule", "--all", "--in", "-1h"], "is no duration"),
        (["queue", "show", "one"], "'one' is not a valid integer"),
        (["queue", "show", "0"], "0 is not in the range"),
        (["queue", "frobnicate"], "No such command"),
        (["queue", "show"], "Missing argument"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert says in result.stderr


def test_no_gateway_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["queue", "list", "--dir", str(tmp_path / "no\x1b[2Jne")])
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr
    assert "there is no such file" in result.stderr


async def test_the_gateway_has_stopped(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        pass
    line = await refused(gateway, "queue", "list")
    assert line.startswith(
        f"no gateway runs with {tmp_path}; start one (gateway localserve --dir {tmp_path})"
    )


async def test_a_gateway_that_starts_is_waited_for(tmp_path: Path) -> None:
    async with (
        receiving() as webhooks,
        running(tmp_path, webhooks) as gateway,
        trio.open_nursery() as nursery,
    ):
        socket = datadir.control_socket(gateway.gateway.settings.data_dir)
        away = socket.rename(socket.with_name("away"))

        async def listen() -> None:
            await trio.sleep(0.3)
            away.rename(socket)

        nursery.start_soon(listen)
        assert await listed(gateway) == []


async def test_a_gateway_that_takes_no_commands_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, or with workers the first of them does."""
    monkeypatch.setattr(common, "STARTING", 0.2)
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        datadir.control_socket(gateway.gateway.settings.data_dir).unlink()
        line = await refused(gateway, "queue", "list")
    assert line == (
        f"the gateway with {tmp_path} (process {os.getpid()}) takes no commands yet: it is starting, or one "
        "of its processes is being started again; try again in a moment"
    )


async def test_nothing_that_strangers_wrote_reaches_the_terminal(tmp_path: Path) -> None:
    """A message's subject is the application's, an error the remote's; either may be hostile."""
    from gateway import Outcome
    from tests.whole.test_transports import Odd, through_odd

    def act(delivery: Any) -> list[Outcome]:
        return [Outcome.temporary(f"error {ESCAPES}", code=451, enhanced="4.0.0")]

    plugins = {"odd": Odd(act)}
    async with (
        receiving() as webhooks,
        running(tmp_path, webhooks, change=through_odd, plugins=plugins) as gateway,
    ):
        await gateway.send("user@sub.example.org", Subject="spoof\u202e", Extra={"k": ESCAPES})
        await webhooks.event("delayed")
        for arguments in (("list",), ("show", 1), ("list", "--json"), ("show", 1, "--json")):
            text = await ok(gateway, "queue", *arguments)
            assert "error" in text
            assert all(c.isprintable() or c == "\n" for c in text), text


def test_durations() -> None:
    assert duration("90s") == timedelta(seconds=90)
    assert duration("7.5m") == timedelta(minutes=7.5)
    assert duration("1h30m") == timedelta(hours=1.5)
    assert duration("2d") == timedelta(days=2)
    for wrong in ("", "5", "h", "1h 30m", "1.h", "-1h", "1y", "١h"):
        with pytest.raises(click.BadParameter):
            duration(wrong)
    now = Clock().now()
    assert set(time_bound("<now")) == {"Before"}
    assert set(time_bound("> -2d")) == {"After"}
    for wrong in ("now", "", "<", "<--1h", "=1h"):
        with pytest.raises(click.BadParameter):
            time_bound(wrong)
    assert relative((now + timedelta(minutes=7.5, seconds=1)).isoformat()) == "in 7.5m"
    assert relative((now - timedelta(days=3)).isoformat()) == "3.0d ago"
    assert relative(None) == "-"


def walk(command: click.Command, path: tuple[str, ...] = ("gateway",)) -> list[tuple[str, ...]]:
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += walk(inner, (*path, name))
    return found


@pytest.mark.parametrize("path", walk(main), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path[1:], "--help"])
    assert result.exit_code == 0
    assert "Example: " in result.stdout
    _, _, example = result.stdout.partition("Example: ")
    assert " ".join(path) in example
    assert CliRunner().invoke(main, [*path[1:], "-h"]).stdout == result.stdout
