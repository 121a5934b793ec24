"""`[roles]`: workers that do only a part of what there is to do."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from gateway.cli.serve import NAMES, _greeting
from gateway.config.load import parse
from gateway.config.settings import ROLES, Role, RolesSettings, Settings
from gateway.config.values import Listen
from gateway.errors import ConfigError
from gateway.net.listeners import Sockets, bind
from gateway.workers.shares import share_of_settings
from tests.commands import localserve
from tests.under_load import (
    Load,
    Webhooks,
    configured,
    drain,
    processes,
    retired,
    send,
    send_and_be_told,
    wait_for,
    wait_for_workers,
)

APART = """
[roles]
web = [0]
webhooks = [0]
smtp = [1]
deliver = [1]
"""


def settings(workers: int, **roles: tuple[int, ...]) -> Settings:
    listen = {"listen": [{"host": "127.0.0.1", "port": 0}]}
    raw = {
        "hostname": "gateway.example.org",
        "workers": workers,
        "roles": {role: list(numbers) for role, numbers in roles.items()},
        "smtp": listen,
        "web": listen,
        "metrics": listen,
    }
    return Settings.model_validate(raw)


@contextmanager
def bound(of: Settings) -> Iterator[list[Sockets]]:
    with ExitStack() as opened:
        of_each = bind(of)
        for sock in (one for mine in of_each for several in mine.values() for one in several):
            opened.enter_context(sock)
        yield of_each


def test_every_worker_has_a_role_that_names_none() -> None:
    of = settings(3, web=(2, 0, 2))
    assert of.workers_with("web") == (0, 2)
    assert of.workers_with("deliver") == (0, 1, 2)


@pytest.mark.parametrize("role", ROLES)
def test_a_worker_that_is_not_there(role: Role, tmp_path: Path) -> None:
    raw = {"hostname": "gateway.example.org", "workers": 2, "roles": {role: [0, 2]}}
    with pytest.raises(ConfigError) as refused:
        parse(raw, tmp_path / "gateway.toml")
    assert f"roles.{role}: there is no worker 2; with workers = 2 the last is 1" in str(refused.value)


def test_a_worker_without_a_role(tmp_path: Path) -> None:
    roles = {role: [1, 3] for role in ROLES}
    with pytest.raises(ConfigError, match="roles: worker 2 has nothing to do; name it in a role, or lower"):
        parse({"hostname": "gateway.example.org", "workers": 4, "roles": roles}, tmp_path / "gateway.toml")
    parse({"hostname": "gateway.example.org", "workers": 4, "roles": roles | {"web": [2]}}, tmp_path)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"deliver": [-1]}, "roles.deliver"),
        ({"deliver": 1}, "roles.deliver: Input should be an array, such as [...] (it is 1)"),
        ({"post": [0]}, "roles.post"),
    ],
)
def test_roles_that_are_none(roles: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse({"hostname": "gateway.example.org", "workers": 2, "roles": roles}, tmp_path / "gateway.toml")


def test_who_listens() -> None:
    with bound(settings(3, web=(1, 2), smtp=(2,))) as of_each:
        assert [len(mine["web"]) for mine in of_each] == [0, 1, 1]
        assert [len(mine["smtp"]) for mine in of_each] == [0, 0, 1]
        assert [len(mine["metrics"]) for mine in of_each] == [1, 0, 0]
        assert of_each[1]["web"][0].getsockname() == of_each[2]["web"][0].getsockname()


def test_limits_are_divided_among_those_with_the_role() -> None:
    whole = settings(4, web=(0, 1), deliver=(3,))
    mine = share_of_settings(whole)
    assert mine.web.max_connections * 2 == whole.web.max_connections
    assert mine.queue.max_deliveries == whole.queue.max_deliveries
    assert mine.smtp.max_connections * 4 == whole.smtp.max_connections


def test_the_greeting_says_who_does_what() -> None:
    of = settings(2, web=(0, 0), deliver=(1,))
    addresses: dict[str, tuple[Listen, ...]] = dict.fromkeys(NAMES, ())
    addresses["web"] = (Listen(host="127.0.0.1", port=80),)
    assert _greeting(of, addresses).splitlines()[-1] == "Workers:               2; web: 0; deliver: 1"
    of = of.model_copy(update={"roles": RolesSettings()})
    assert _greeting(of, addresses).splitlines()[-1] == "Workers:               2"


def who(log: str, what: str) -> set[str]:
    """The workers that logged it."""
    return set(re.findall(rf"worker (\d) \w+ {what}", log))


def test_each_does_its_part(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url, 2, APART)) as running:
        wait_for_workers(running)
        send_and_be_told(running, webhooks)
        log = running.log.read_text()
        assert who(log, "gateway.outbound.submission: queued") == {"0"}
        assert who(log, "gateway.outbound.attempt: ") == {"1"}
        assert who(log, "gateway.inbound.receive: received") == {"1"}
        wait_for(lambda: bool(webhooks.subjects_received()), lambda: webhooks.got)
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_nobody_waits_for_the_next_look(tmp_path: Path, webhooks: Webhooks) -> None:
    """Two looks lie between Send and the webhook, every 5 s; hints make it milliseconds. The first worker,
    which has the commands, has no role."""
    took = []
    apart = APART.replace("1", "2").replace("0", "1")
    with localserve(configured(tmp_path / "gw", webhooks.url, 3, apart)) as running:
        wait_for_workers(running, 3)
        for number in range(9):
            message = {"To": [{"Address": f"u{number}@example.org"}], "Subject": "hi", "Text": "hello"}
            began = time.monotonic()
            [submission] = send(running.api, message)["Submissions"]
            wait_for(partial(told_of, webhooks, submission["QueueMsgID"]), lambda: webhooks.got)
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 1.0, took
        assert running.stop() == 0


def told_of(webhooks: Webhooks, queue_msg_id: int) -> bool:
    return queue_msg_id in webhooks.events("delivered")


def test_killed_workers_lose_nothing(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url, 2, APART)) as running:
        load = Load(running.api)
        for number in (1, 0, 1):
            wait_for_workers(running)
            load.wait_for_more()
            pid = re.findall(rf"worker {number} serves, process (\d+)", running.log.read_text())[-1]
            next(one for one in processes(running) if one.pid == int(pid)).kill()
        wait_for_workers(running)
        load.wait_for_more()
        load.stop()
        drain(running)

        def all_told() -> bool:
            running.command("webhook", "schedule", "--all")  # the calls that were cut off would wait for 30 s
            return load.acknowledged.keys() <= webhooks.events("delivered").keys()

        wait_for(all_told, lambda: load.acknowledged.keys() - webhooks.events("delivered").keys())
        assert {message["RetiredAs"] for message in retired(running)} == {"delivered"}
        queue = json.loads(running.command("queue", "list", "--json").stdout)["Messages"]
        assert queue == []
        assert running.stop() == 0
