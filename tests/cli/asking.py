"""Commands that ask a running gateway, run in this process."""

from __future__ import annotations

import json
from functools import partial

import trio
from click.testing import CliRunner, Result

from gateway.cli.main import main
from tests.running import Running

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\u009b31m"


async def run(gateway: Running, *arguments: object) -> Result:
    """A command in this process, with the gateway's directory."""
    words = [str(argument) for argument in arguments]
    end = words.index("--") if "--" in words else len(words)  # of its options
    words[end:end] = ["--dir", str(gateway.directory)]
    invoke = partial(CliRunner().invoke, main, words)
    result: Result = await trio.to_thread.run_sync(invoke)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


async def ok(gateway: Running, *arguments: object) -> str:
    result = await run(gateway, *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


async def refused(gateway: Running, *arguments: object) -> str:
    result = await run(gateway, *arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("gateway: ")
    return line.removeprefix("gateway: ")


async def listed(gateway: Running, *arguments: object) -> list[int]:
    answer = json.loads(await ok(gateway, "queue", "list", "--json", *arguments))
    return [message["ID"] for message in answer["Messages"]]
