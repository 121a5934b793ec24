"""`gateway plugins`, asked of a gateway that runs, and of a configuration alone."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
import time
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from gateway import (
    Address,
    Event,
    IncomingEvent,
    Outcome,
    QueuedMessage,
    Reception,
    Reject,
    Result,
    Submission,
    Suppress,
    hookimpl,
)
from gateway.cli.main import main
from gateway.cli.new_plugin import make
from gateway.hookspecs import SPECS
from gateway.hookspecs.marks import Verb
from gateway.plugins import tracing
from tests.cli.asking import ok, refused
from tests.running import receiving, running, with_plugins, write_configuration


class Talker:
    """Answers at some stages, breaks at others, and counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    @hookimpl
    def submission(self, submission: Submission) -> Submission | Reject | None:
        return Reject(550, "5.7.1", "no lotteries") if "lottery" in submission.subject else None

    @hookimpl(limit=0.05)
    async def hold(self) -> None:
        await trio.sleep_forever()

    @hookimpl(thread=True)
    def base_address(self, address: Address) -> Address:
        time.sleep(0.01)
        return Address("base", address.domain)

    @hookimpl
    def suppressed(self, message: QueuedMessage) -> bool:
        raise RuntimeError("broke down")

    @hookimpl
    def classify_outcome(self, outcome: Outcome) -> Outcome | None:
        return replace(outcome, result=Result.TEMPORARY) if outcome.code == 550 else None

    @hookimpl
    def suppress(self) -> Suppress:
        return Suppress("a failure of it")

    @hookimpl
    def event(self, event: Event | IncomingEvent) -> None:
        self.told += 1

    @hookimpl
    def receive_policy(self, reception: Reception) -> Reject | None:
        refused = reception.step == "rcpt" and str(reception.recipients[-1]) == "nobody@localhost"
        return Reject(550, "5.1.1", "nobody there") if refused else None


def asked(steps: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    """What the plugin under test said at a stage."""
    [step] = (step for step in steps if step["Stage"] == stage)
    found: list[dict[str, Any]] = [one for one in step["Asked"] if one["Plugin"] == "test.talker"]
    return found[0]


def test_a_trace_passes_every_stage_of_a_message() -> None:
    """Whoever adds a stage to the way of a message has to add it to the trace."""
    source = inspect.getsource(tracing)
    others = {"authenticate", "start", "stop"}  # of no message
    stages = {hook for hook, spec in SPECS.items() if spec.verb is not Verb.ALL} - others
    assert {stage for stage in stages if f'"{stage}"' not in source} == set()


async def test_a_running_gateway(tmp_path: Path) -> None:
    talker = Talker()

    def change(raw: dict[str, Any]) -> None:
        with_plugins("test.talker")(raw)
        on_error = {"hold": "skip", "suppressed": "skip"}
        raw["plugin"]["test.talker"] = {"on_error": on_error}

    async with (
        receiving() as webhooks,
        running(tmp_path, webhooks, change=change, plugins={"test.talker": talker}) as gateway,
    ):
        before = {(plugin, hook): tally.calls for plugin, hook, tally in gateway.gateway.hooks.calls}
        answer = json.loads(await ok(gateway, "plugins", "trace", "--json", "--to", "user@example.org"))
        steps = answer["Steps"]
        assert (answer["Running"], answer["From"], answer["Account"]) == (True, "mox@localhost", "mox")
        assert [step["Stage"] for step in steps if step["Asked"]] == [
            "submission", "sign", "base_address", "hold", "suppressed", "route", "shape", "classify_outcome",
            "classify_outcome", "retry", "suppress", "format_webhook", "sign_webhook",
        ]  # fmt: skip
        assert asked(steps, "hold")["Failure"] == "no answer in 0.05 s"
        assert asked(steps, "hold")["Seconds"] >= 0.05
        assert asked(steps, "base_address")["Answer"] == "base@example.org"
        assert asked(steps, "base_address")["Seconds"] >= 0.01
        assert asked(steps, "suppressed")["Failure"] == "raised RuntimeError: broke down"
        results = {step["Stage"]: step["Result"] for step in steps}
        assert results["submission"] == "as it was handed in"
        assert results["route"] == "by transport localserve"
        assert results["suppress"] == "after a failure with 550 5.1.1: suppressed, a failure of it"
        assert results["event"] == "not asked here: test.talker"

        # It knows the suppression list and the hold rules, and changes nothing.
        await ok(gateway, "suppression", "add", "user@example.net")
        await ok(gateway, "queue", "hold-rules", "add", "--to-domain", "example.net")
        said = await ok(gateway, "plugins", "trace", "--to", "user@example.net")
        assert "\nhold: held: it waits until somebody releases it\n" in said
        assert said.splitlines()[0] == (
            "mox@localhost to user@example.net, account mox, by the running gateway"
        )
        assert "suppressed: not sent: suppressed" in said
        assert "\nroute: " not in said
        said = await ok(gateway, "plugins", "trace", "--to", "user@example.org", "--subject", "a lottery")
        assert said.splitlines()[1] == "submission: refused: plugin test.talker: no lotteries"
        assert len(said.splitlines()) == 3
        said = await ok(gateway, "plugins", "trace", "--incoming", "--to", "mox@localhost")
        assert said.endswith("not asked here: signing\n")
        assert "mailbox: into the mailbox Inbox" in said
        said = await ok(gateway, "plugins", "trace", "--incoming", "--to", "nobody@localhost")
        assert "receive_policy: at rcpt: refused with 550 5.1.1 nobody there\n" in said
        assert "at data" not in said
        assert talker.told == 0
        assert await gateway.messages() == ()
        after = {(plugin, hook): tally.calls for plugin, hook, tally in gateway.gateway.hooks.calls}
        # Looking into the suppression list asks for the base address; that was no trace.
        del before["test.talker", "base_address"], after["test.talker", "base_address"]
        assert after == before

        # What is counted shows in the lists and on the page.
        await gateway.send()
        await webhooks.event("delivered")
        hooks = json.loads(await ok(gateway, "plugins", "hooks", "--json", "--account", "mox"))["Hooks"]
        assert [hook["Hook"] for hook in hooks] == list(SPECS)
        [hold] = (hook for hook in hooks if hook["Hook"] == "hold")
        assert [call["Plugin"] for call in hold["Plugins"]] == ["test.talker", "mox.hold"]
        first = hold["Plugins"][0]
        assert (first["Way"], first["Limit"], first["OnError"]) == ("async", 0.05, "skip")
        assert (first["Calls"], first["Failures"], first["Timeouts"]) == (1, 1, 1)
        listed = await ok(gateway, "plugins", "list")
        [line] = (line for line in listed.splitlines() if line.startswith("test.talker "))
        assert line.split()[1:4] == ["in", "use", "-"]
        async with httpx.AsyncClient(base_url=f"http://{gateway.gateway.addresses['web'][0]}") as client:
            page = (await client.get("/plugins")).text
            assert "<td>test.talker</td><td>hold</td><td>1</td><td>1</td><td>1</td>" in page
            assert '<a href="/plugins">' in (await client.get("/")).text

        # Five failures in a row.
        for number in range(4):
            await gateway.send(f"user{number}@example.org")
        listed = await ok(gateway, "plugins", "list")
        [line] = (line for line in listed.splitlines() if line.startswith("test.talker "))
        assert line.split()[1] == "suspended"
        shown = await ok(gateway, "plugins", "hooks")
        [line] = (line for line in shown.splitlines() if line.startswith("hold ") and "test.talker" in line)
        assert " 5 (suspended) " in line

        assert await refused(gateway, "plugins", "trace", "--to", "x") == "To: 'x': address 'x' has no @"
        assert await refused(gateway, "plugins", "hooks", "--account", "nobody") == (
            "there is no account 'nobody'; there are: mox"
        )
        assert "is no account's address" in await refused(
            gateway, "plugins", "trace", "--to", "a@example.org", "--from", "b@example.org"
        )


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["plugins", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_configuration_alone(tmp_path: Path) -> None:
    write_configuration(tmp_path, "http://127.0.0.1:9/")
    code, out, _ = run("list", "--json", "--dir", tmp_path)
    rows = {row["Plugin"]: row for row in json.loads(out)["Plugins"]}
    assert (code, json.loads(out)["Running"]) == (0, False)
    assert rows["mox.routing"]["State"] == "in use"
    assert rows["mox.routing"]["Distribution"] == "mail-gateway"
    assert (rows["mox.retry"]["State"], rows["mox.retry"]["Sets"]) == ("installed", ["mox"])
    code, out, _ = run("hooks", "--all", "--dir", tmp_path)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["HOOK", "VERB", "PLUGIN", "RUNS", "LIMIT", "ON", "ERROR"]
    assert ["submission", "fold", "-", "-", "-", "-"] in lines
    assert ["sign", "fold", "dkim", "async", "5", "s", "defer"] in lines
    code, out, _ = run("trace", "--to", "user@example.org", "--dir", tmp_path)
    assert (code, out.splitlines()[0]) == (
        0, "mox@localhost to user@example.org, account mox, by the configuration alone"
    )  # fmt: skip

    # A plugin that is missing is what is to be seen.
    config = tmp_path / "gateway.toml"
    config.write_text(config.read_text().replace('plugins = ["localserve"]', 'plugins = ["acme.gone"]'))
    code, out, _ = run("list", "--dir", tmp_path)
    [line] = (line for line in out.splitlines() if line.startswith("acme.gone"))
    assert line.split() == ["acme.gone", "missing", "-", "localserve"]
    code, _, error = run("hooks", "--dir", tmp_path)
    assert (code, error.startswith("gateway: plugins.sets: no plugin 'acme.gone' is installed")) == (1, True)
    assert run("hooks", "--dir", tmp_path / "nowhere")[0] == 1


async def test_no_page_unless_it_is_wanted(tmp_path: Path) -> None:
    async with (
        receiving() as webhooks,
        running(tmp_path, webhooks, change=lambda raw: raw["web"].pop("operator_pages")) as gateway,
        httpx.AsyncClient(base_url=f"http://{gateway.gateway.addresses['web'][0]}") as client,
    ):
        assert (await client.get("/plugins")).status_code == 404
        assert "/plugins" not in (await client.get("/")).text


# --- A new package --------------------------------------------------------------------------------


def test_a_new_package_s_tests_pass(tmp_path: Path) -> None:
    code, out, _ = run("new", "acme.greeter", "--hooks", "route, hold", "--in", tmp_path)
    made = tmp_path / "acme-greeter"
    assert (code, out.splitlines()[0]) == (0, f"made {made}; try it:")
    assert {file.name for file in made.iterdir()} == {
        "pyproject.toml",
        "acme_greeter.py",
        "test_acme_greeter.py",
        "README.md",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=made,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    before = {file: file.read_bytes() for file in made.iterdir()}
    code, _, error = run("new", "acme.greeter", "--hooks", "sign", "--in", tmp_path)
    assert (code, error) == (
        1, f"gateway: {made} is there already, and nothing is overwritten; choose another name\n"
    )  # fmt: skip
    assert {file: file.read_bytes() for file in made.iterdir() if file.is_file()} == before


def test_every_hook_can_be_in_a_new_package(tmp_path: Path) -> None:
    made = make(tmp_path, "everything", tuple(SPECS))
    spec = importlib.util.spec_from_file_location("everything", made / "everything.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["everything"] = module
    try:
        spec.loader.exec_module(module)
        for hook in SPECS:
            hints = typing.get_type_hints(getattr(module, hook))  # every name in it is imported
            assert {*hints} == {*SPECS[hook].arguments, "settings", "return"}
    finally:
        del sys.modules["everything"]
    for command in (
        ["ruff", "check", "--isolated"],
        ["ruff", "format", "--isolated", "--check"],
        ["mypy", "--strict", "--config-file="],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, made], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "hooks", "said"),
    [
        ("Acme", ["route"], "'Acme' is no name for a plugin"),
        ("../x", ["route"], "'../x' is no name for a plugin"),
        ("gateway", ["route"], "no module can be called 'gateway'"),
        ("json", ["route"], "no module can be called 'json'"),
        ("class", ["route"], "no module can be called 'class'"),
        ("acme.x", ["rout"], "there is no hook 'rout'; did you mean 'route'?"),
        ("acme.x", [], "name one at least"),
    ],
)
def test_what_cannot_be_made(tmp_path: Path, name: str, hooks: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?").replace("..", r"\.\.")):
        make(tmp_path, name, hooks)
    assert list(tmp_path.iterdir()) == []
