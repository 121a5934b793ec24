"""docs/localserve.md has every command with its options and defaults; every command line on a page parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from gateway.cli.common import call_filter_options, filter_options
from gateway.cli.main import CONTEXT, main
from gateway_localserve.simulate import failure
from tests.docs.pages import PAGES, all_sections, code, tables, text

PAGE = text("localserve.md")
SECTIONS = all_sections(PAGE)
EVERYWHERE = {"--dir"}  # explained once, before all commands


def walk(command: click.Command, path: str = "gateway") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from walk(below, f"{path} {name}")


def options(command: click.Command) -> dict[str, click.Option]:
    """By all of their names."""
    return {
        ", ".join([*param.opts, *param.secondary_opts]): param
        for param in command.params
        if isinstance(param, click.Option) and param.opts[0] not in EVERYWHERE
    }


@click.command()
@filter_options
def filters(**_: Any) -> None:
    """The options that several commands share."""


@click.command()
@call_filter_options
def call_filters(**_: Any) -> None:
    """The same for webhook calls."""


SHARED = {"Filters": filters, "Webhook filters": call_filters}  # by the section that has them


def documented(section: str) -> dict[str, str]:
    """Options and defaults."""
    return {
        row["option"].replace("`", ""): row["default"].strip("`")
        for table in tables(section)
        for row in table
    }


def check(command: click.Command, given: dict[str, click.Option], section: str) -> None:
    found = documented(section)
    assert list(found) == list(given)
    for name, default in found.items():
        option = given[name]
        in_help = re.search(r"\[default: (.*)\]", option.help or "")
        if in_help is not None:
            assert default == in_help[1], name
        elif (
            option.is_flag
            or option.multiple
            or option.default in (None, "")
            or "Sentinel" in repr(option.default)
        ):
            assert default == "", name
        else:
            assert default == str(option.default), name
        if isinstance(option.type, click.Choice):
            row = next(line for line in section.splitlines() if line.startswith(f"| `{name}`"))
            for choice in option.type.choices:
                assert f"`{choice}`" in row


COMMANDS = dict(walk(main))


@pytest.mark.parametrize("path", COMMANDS)
def test_command(path: str) -> None:
    command, section = COMMANDS[path], SECTIONS[path]
    shared = {
        name: option
        for title, several in SHARED.items()
        if f"(#{title.lower().replace(' ', '-')})" in section
        for name, option in options(several).items()
    }
    own = {name: option for name, option in options(command).items() if name not in shared}
    assert own.keys() | shared.keys() == options(command).keys()
    check(command, own, section)
    for param in command.params:
        if isinstance(param, click.Argument):
            assert param.make_metavar(click.Context(command)).strip("[]") in section
    # There is an example, of this command.
    assert any(line.startswith(path) for block in code("sh", section) for line in block.splitlines())


def test_no_command_is_of_something_that_is_not_there() -> None:
    assert {title for title in SECTIONS if title.startswith("gateway ")} == COMMANDS.keys()


@pytest.mark.parametrize("title", SHARED)
def test_filters(title: str) -> None:
    check(SHARED[title], options(SHARED[title]), SECTIONS[title])


def lines(page: str) -> list[str]:
    """The command lines of a page: in blocks of code, fenced or indented."""
    shown = [line for block in code("sh", page) for line in block.splitlines()]
    shown += re.findall(r"(?m)^    (.+)$", page)
    return [line for line in shown if re.match(r"gateway [a-z-]", line)]


LINES = [(path, line) for path in PAGES for line in lines(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("path", "line"), LINES, ids=[f"{path.name}: {line}" for path, line in LINES])
def test_a_command_line_parses(path: Path, line: str) -> None:
    parse(shlex.split(line, comments=True)[1:])


def test_examples_of_help_parse() -> None:
    for path, command in COMMANDS.items():
        [example] = re.findall(r"(?m)^ *(?:Example: )?(gateway .*)$", command.help or "")[:1]
        assert example.startswith(path)
        parse(shlex.split(example.partition(" | ")[0])[1:])


def parse(arguments: list[str]) -> None:
    """As click does before it calls the command; it raises UsageError."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name, *arguments = arguments
        below = command.get_command(click.Context(command), name)
        assert below is not None, name
        command = below
    if any(param.name == "password" for param in command.params):
        arguments = [*arguments, "--password", "would be asked for"]
    command.make_context(command.name, arguments, **CONTEXT)


def test_recipients_that_fail() -> None:
    [rows] = tables(SECTIONS["Recipients that fail"])
    for row in rows:
        localpart = row["example"].partition("@")[0]
        asked = failure(localpart)
        assert asked is not None
        code = {"temperror": "451", "permerror": "550", "timeout": "none for an hour"}.get(asked, asked)
        assert row["answer"] == ("that code" if asked.isdigit() else code)
        assert row["event"] == ("failed" if code.startswith("5") else "delayed")
        assert failure(row["the localpart ends in"]) == asked or asked.isdigit()
    for example in re.findall(r"`((?:rcptto|mailfrom)[^`@]*)@", SECTIONS["Recipients that fail"]):
        assert failure(example)
