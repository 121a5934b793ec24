"""`gateway suppression`, asked of a gateway that runs."""

from __future__ import annotations

import json
import re
import shlex
from datetime import timedelta
from pathlib import Path

from click.testing import CliRunner

from gateway.cli.main import main
from gateway.clock import ManualClock
from tests.cli.asking import ESCAPES, ok, refused
from tests.running import receiving, running
from tests.thirdparty.gateways import add_account


async def test_add_list_lookup_and_remove(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        assert await ok(gateway, "suppression", "list") == "no addresses\n"
        added = await ok(gateway, "suppression", "add", "Ada+x@example.org", "--reason", "asked for it")
        assert added == "Ada+x@example.org added as ada@example.org\n"
        await gateway.send("user550@example.org")
        await webhooks.event("failed", Suppressing=True)
        header, *lines = (await ok(gateway, "suppression", "list")).splitlines()
        assert header.split() == ["BASE", "ADDRESS", "ADDED", "BY", "EXPIRES", "LIST", "ADDRESS", "REASON"]
        assert lines[0].startswith("ada@example.org ")
        assert lines[0].split()[-6:] == ["-", "all", "Ada+x@example.org", "asked", "for", "it"]
        assert " automatically " in lines[1]
        assert lines[1].endswith(" failure reported by the queue: 550 5.0.0")

        found = await ok(gateway, "suppression", "lookup", "a.d.a@EXAMPLE.org")
        assert found.startswith("a.d.a@EXAMPLE.org is suppressed\nBase address:  ada@example.org\n")
        assert "manually" in found
        assert "Expires:       never\nList:          all\nReason:        asked for it\n" in found
        assert await refused(gateway, "suppression", "add", "ada@example.org") == (
            "ada@example.org is on the suppression list of account mox already, as ada@example.org"
        )
        assert await ok(gateway, "suppression", "remove", "ada-y@example.org") == (
            "ada-y@example.org removed\n"
        )
        assert await ok(gateway, "suppression", "lookup", "ada@example.org") == (
            "ada@example.org is not suppressed\n"
        )
        assert await refused(gateway, "suppression", "remove", "ada@example.org") == (
            "ada@example.org is not on the suppression list of account mox"
        )


async def test_one_list(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        news = ("ada@example.org", "--list", "news")
        await ok(gateway, "suppression", "add", *news)
        assert await ok(gateway, "suppression", "lookup", news[0]) == "ada@example.org is not suppressed\n"
        assert "\nList:          news\n" in await ok(gateway, "suppression", "lookup", *news)
        assert (await ok(gateway, "suppression", "list")).splitlines()[1].split()[-3:-1] == ["-", "news"]
        assert "not on the suppression list" in await refused(gateway, "suppression", "remove", news[0])
        await ok(gateway, "suppression", "remove", *news)
        assert "List" in await refused(gateway, "suppression", "add", news[0], "--list", "a b")


async def test_json_and_pages(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        for name in ("c", "a", "b"):
            await ok(gateway, "suppression", "add", f"{name}@example.org", "--expires-in", "1h")
        seen, cursor = [], ""
        for _ in range(3):
            options = ["--max", 1, *(["--cursor", cursor] if cursor else [])]
            table = await ok(gateway, "suppression", "list", *options)
            answer = json.loads(await ok(gateway, "suppression", "list", "--json", *options))
            [entry] = answer["Suppressions"]
            seen.append(entry["BaseAddress"])
            cursor = answer["NextCursor"]
            assert (f"more: --cursor {cursor}" in table) is bool(cursor)
        assert seen == ["a@example.org", "b@example.org", "c@example.org"]
        assert cursor == ""
        assert await refused(gateway, "suppression", "list", "--cursor", "zzz") == (
            "cursor 'zzz' is none that a page ended with"
        )
        looked = json.loads(await ok(gateway, "suppression", "lookup", "c@example.org", "--json"))
        assert looked["Suppression"] == entry
        assert entry["Manual"]
        assert entry["Account"] == "mox"
        looked = json.loads(await ok(gateway, "suppression", "lookup", "d@example.org", "--json"))
        assert looked == {"Suppression": None}


async def test_a_cursor_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        for address in ("o'brien|`id`@example.org", "z@example.org"):
            await ok(gateway, "suppression", "add", address)
        *_, more = (await ok(gateway, "suppression", "list", "--max", 1)).splitlines()
        options = [":o'brien|`id`@example.org"]
        assert more == "more: --cursor " + shlex.join(options)
        page = await ok(gateway, "suppression", "list", "--cursor", *options)
        assert page.splitlines()[1].startswith("z@example.org ")


async def test_an_end(tmp_path: Path) -> None:
    clock = ManualClock()
    async with receiving() as webhooks, running(tmp_path, webhooks, clock=clock) as gateway:
        await ok(gateway, "suppression", "add", "user@example.org", "--expires-in", "2h")
        await gateway.send()
        await webhooks.event("suppressed")
        clock.advance(timedelta(hours=2))
        assert await ok(gateway, "suppression", "list") == "no addresses\n"
        await gateway.send()
        await webhooks.event("delivered", QueueMsgID=2)


async def test_an_address_that_begins_as_an_option(tmp_path: Path) -> None:
    """The examples of the commands' help."""
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        for action, says in (("add", "added as "), ("lookup", "is suppressed"), ("remove", "removed")):
            shown = CliRunner().invoke(main, ["suppression", action, "--help"]).stdout
            assert "that begins with - comes after --" in shown
            [example] = re.findall(r"Example: gateway (.* -- .*)", shown)
            words = shlex.split(example)
            assert says in await ok(gateway, *words), example


async def test_which_account(tmp_path: Path) -> None:
    async with (
        receiving() as webhooks,
        running(tmp_path, webhooks, change=lambda raw: add_account(raw, "desk")) as gateway,
    ):
        for arguments in (("list",), ("add", "a@example.org"), ("remove", "a@example.org")):
            assert await refused(gateway, "suppression", *arguments) == (
                "say which account, with --account; there are: mox, desk"
            )
        await ok(gateway, "suppression", "add", "user@example.org", "--account", "desk")
        assert await ok(gateway, "suppression", "list", "--account", "mox") == "no addresses\n"
        await gateway.send()  # of mox
        await webhooks.event("delivered")
        assert "there is no account 'max'" in await refused(
            gateway, "suppression", "list", "--account", "max"
        )


async def test_what_is_no_address(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        for action in ("add", "remove", "lookup"):
            assert "has no @" in await refused(gateway, "suppression", action, "ada")
        assert "Reason" in await refused(
            gateway, "suppression", "add", "ada@example.org", "--reason", "x" * 2001
        )
        # Reasons may be a stranger's words.
        await gateway.call("SuppressionAdd", {"EmailAddress": "ada@example.org", "Reason": ESCAPES})
        for arguments in (("list",), ("lookup", "ada@example.org")):
            text = await ok(gateway, "suppression", *arguments)
            assert all(c.isprintable() or c == "\n" for c in text)


def test_what_is_over_at_once_is_a_mistake() -> None:
    for command in (("suppression", "add", "a@example.org"), ("account", "keys", "add", "mox", "key")):
        result = CliRunner().invoke(main, [*command, "--expires-in", "0s"])
        assert (result.exit_code, "'0s' is over at once; write one such as" in result.stderr) == (2, True)
