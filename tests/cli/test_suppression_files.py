"""`gateway suppression import`, `export`, and the files of `remove` and `lookup`."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.clock import ManualClock
from gateway.store import suppressions
from tests.cli.asking import ESCAPES, ok, refused, run
from tests.running import Running, receiving, running
from tests.thirdparty.gateways import add_account


def write(gateway: Running, text: str, name: str = "list.csv") -> Path:
    path = gateway.directory / name
    path.write_text(text, encoding="utf-8")
    return path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


async def test_what_is_exported_can_be_imported(tmp_path: Path) -> None:
    clock = ManualClock()
    change = partial(add_account, name="desk")
    async with receiving() as webhooks, running(tmp_path, webhooks, change=change, clock=clock) as gateway:
        mine, other = ("--account", "mox"), ("--account", "desk")
        await ok(
            gateway, "suppression", "add", "Ada+x@example.org", "--reason", 'she said "no",\ntwice', *mine
        )
        await gateway.send("user550@example.org")
        await webhooks.event("failed", Suppressing=True)
        await ok(gateway, "suppression", "add", "büro@bücher.example", "--expires-in", "2d", *mine)
        file = tmp_path / "out.csv"
        assert await ok(gateway, "suppression", "export", "--output", file, *mine) == ""
        text = file.read_text("utf-8")
        assert text == await ok(gateway, "suppression", "export", *mine)
        one, two, three = rows(text)
        assert list(one) == ["address", "base_address", "manual", "reason", "created", "expires", "list"]
        assert (one["address"], one["base_address"]) == ("Ada+x@example.org", "ada@example.org")
        assert (one["manual"], one["reason"], one["expires"]) == ("true", 'she said "no",\ntwice', "")
        assert (two["address"], two["base_address"]) == ("büro@bücher.example", "büro@bücher.example")
        assert datetime.fromisoformat(two["expires"]) - clock.now() == timedelta(days=2)
        assert (three["manual"], three["reason"]) == ("false", "failure reported by the queue: 550 5.0.0")

        clock.advance(timedelta(days=1))
        said = await ok(gateway, "suppression", "import", file, *other)
        assert said == "3 added, 0 on the list already\n"
        assert await ok(gateway, "suppression", "export", *other) == text
        said = await ok(gateway, "suppression", "import", file, *other)
        assert said == "0 added, 3 on the list already\n"
        clock.advance(timedelta(days=1))
        said = await ok(gateway, "suppression", "import", file, *other)
        assert said == "0 added, 2 on the list already, 1 expired\n"
        assert "example.org removed" in await ok(gateway, "suppression", "remove", "ada@example.org", *other)
        said = await ok(gateway, "suppression", "remove", "--file", file, *other)
        assert said == "1 removed, 2 not on the list\n"
        assert rows(await ok(gateway, "suppression", "export", *other)) == []


async def test_files_of_others(tmp_path: Path) -> None:
    """Columns in any order and case, a byte order mark, names that other systems use, no names at all."""
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        bom = write(gateway, "\ufeffStatus;,Email , Reason\nx, a@example.org ,gone\n\n,b@example.org,\n")
        options = ("--reason", "imported", "--expires-in", "30d")
        assert await ok(gateway, "suppression", "import", bom, *options) == (
            "2 added, 0 on the list already\n"
        )
        one, two = rows(await ok(gateway, "suppression", "export"))
        assert (one["address"], one["reason"], two["reason"]) == ("a@example.org", "gone", "imported")
        assert datetime.fromisoformat(one["expires"]) > datetime.now(UTC) + timedelta(days=29)
        plain = write(gateway, "a.@example.org\nc@example.org\r\n", "plain.csv")
        failed = await run(gateway, "suppression", "import", plain)
        assert failed.exit_code == 1
        assert failed.stderr.startswith(f"{plain}: line 1: ")
        assert await ok(gateway, "suppression", "import", write(gateway, "c@example.org", "p.csv")) == (
            "1 added, 0 on the list already\n"
        )
        dates = write(gateway, "address,expires\nd@example.org,2999-01-31\ne@example.org,2001-01-31\n")
        assert await ok(gateway, "suppression", "import", dates) == (
            "1 added, 0 on the list already, 1 expired\n"
        )

        def piped() -> str:
            arguments = ["suppression", "import", "-", "--dir", str(gateway.directory)]
            return CliRunner().invoke(main, arguments, input="f@example.org\ng@example.org\n").stdout

        assert await trio.to_thread.run_sync(piped) == "2 added, 0 on the list already\n"


async def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        wrong = write(
            gateway,
            "address,manual,expires,reason\nada,,,\na@example.org,perhaps,,\nb@example.org,,soon,\n"
            f"c@example.org,,0001-01-01T00:00:00+14:00,\nd@example.org,,,{'x' * 2001}\ngood@example.org,,,\n",
        )
        result = await run(gateway, "suppression", "import", wrong)
        lines = result.stderr.splitlines()
        assert lines[0] == f"{wrong}: line 2: address 'ada' has no @"
        assert lines[1] == f"{wrong}: line 3: manual is 'perhaps'; write true or false"
        assert "line 4: expires is 'soon'; write a time such as" in lines[2]
        assert "line 5: expires is" in lines[3]
        assert "line 6: the reason has 2001 characters" in lines[4]
        assert lines[5].endswith("5 lines are wrong, and nothing was done; mend them, or add --skip-wrong")
        assert (result.exit_code, len(lines)) == (1, 6)
        assert rows(await ok(gateway, "suppression", "export")) == []
        result = await run(gateway, "suppression", "import", wrong, "--skip-wrong")
        assert (result.exit_code, result.stdout) == (0, "1 added, 0 on the list already\n")
        many = write(gateway, "address\n" + "no\n" * 30)
        assert f"{many}: and 20 more" in (await run(gateway, "suppression", "import", many)).stderr

        for text, said in (
            ("name,age\nx,1\n", "no column is named address; the first line names the columns"),
            ("address\n" + "x" * 200_000, "field larger than field limit"),
            # Else the next address would be a part of this reason.
            ('address,reason\na@example.org,"gone\nb@example.org,\n', "line 2: unexpected end of data"),
            ('address,reason\na@example.org,"gone\nb@example.org,"no"\n', "line 2: ',' expected after"),
        ):
            assert said in await refused(gateway, "suppression", "import", write(gateway, text))
        binary = tmp_path / "binary.csv"
        binary.write_bytes(b"address\n\xff\xfe@example.org\n")
        assert "is not UTF-8" in await refused(gateway, "suppression", "import", binary)
        assert "No such file" in await refused(gateway, "suppression", "import", tmp_path / "none.csv")
        assert "Is a directory" in await refused(gateway, "suppression", "import", tmp_path)
        nowhere = tmp_path / "no" / "x.csv"
        assert await refused(gateway, "suppression", "export", "--output", nowhere) == (
            f"{nowhere}: No such file or directory; name a file that can be written"
        )
        for action in ("remove", "lookup"):
            result = await run(gateway, "suppression", action)
            assert (result.exit_code, "give an address, or a file with --file" in result.stderr) == (2, True)


async def test_lookup_of_a_file(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        await gateway.call("SuppressionAdd", {"EmailAddress": "ada@example.org", "Reason": ESCAPES})
        file = write(gateway, "a.da+x@example.org\nbob@example.org\nada@example.org\n")
        found = rows(await ok(gateway, "suppression", "lookup", "--file", file))
        assert [(row["asked"], row["address"]) for row in found] == [
            ("a.da+x@example.org", "ada@example.org"),
            ("ada@example.org", "ada@example.org"),
        ]
        assert found[0]["reason"] == ESCAPES  # a file is to be exact
        empty = await ok(gateway, "suppression", "lookup", "--file", write(gateway, "address\n"))
        assert (empty.startswith("asked,address,"), rows(empty)) == (True, [])
        assert "no column is named address" in await refused(
            gateway, "suppression", "lookup", "--file", write(gateway, "name,age\nx,1\n")
        )
        result = await run(gateway, "suppression", "lookup", "--file", write(gateway, "address\nada\n"))
        assert (result.exit_code, result.stdout) == (1, "")


async def test_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps of 500 rows, with progress; other writes go on in between."""
    most = 0
    add_one = suppressions.add
    counts: dict[int, int] = {}

    def counted(conn: object, *args: object, **more: object) -> bool:
        counts[id(conn)] = counts.get(id(conn), 0) + 1
        return add_one(conn, *args, **more)  # type: ignore[arg-type]

    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        write_ = gateway.gateway.store.write

        async def watched(work: object, **more: object) -> object:
            nonlocal most
            counts.clear()
            answer: object = await write_(work, **more)  # type: ignore[arg-type]
            most = max(most, *counts.values(), 0) if counts else most
            return answer

        monkeypatch.setattr(suppressions, "add", counted)
        monkeypatch.setattr(gateway.gateway.store, "write", watched)
        file = write(gateway, "address\n" + "".join(f"u{n}@example.org\n" for n in range(20_500)))
        result = await run(gateway, "suppression", "import", file)
        assert result.stdout == "20500 added, 0 on the list already\n"
        assert result.stderr == "10,000 of 20,500\n20,000 of 20,500\n"
        assert most == 500
        result = await run(gateway, "suppression", "export")
        assert result.stdout.count("\n") == 20_501
        assert result.stderr == "10,000\n20,000\n"
