"""`gateway account password`."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import trio

from tests.commands import gateway as command
from tests.running import AUTH, Running, receiving, running


async def set_password(
    gateway: Running, password: str, account: str = "mox"
) -> subprocess.CompletedProcess[str]:
    arguments = ("account", "password", account, "--password", password, "--dir", gateway.directory)
    return await trio.to_thread.run_sync(partial(command, *arguments))


async def logs_in(gateway: Running, password: str) -> bool:
    response = await gateway.api.post("MessageGet", json={"MsgID": 1}, auth=(AUTH[0], password))
    assert response.status_code in (400, 401)
    return response.status_code == 400


async def test_a_new_password(tmp_path: Path) -> None:
    async with receiving() as webhooks:
        async with running(tmp_path, webhooks) as gateway:
            assert await logs_in(gateway, AUTH[1])
            result = await set_password(gateway, "long enough: ü")
            assert (result.returncode, result.stdout) == (0, "password of account mox set\n")
            assert await logs_in(gateway, "long enough: ü")
            assert not await logs_in(gateway, AUTH[1])  # though it was right a moment ago
        # The next start does not bring the first one back.
        async with running(tmp_path, webhooks) as gateway:
            assert await logs_in(gateway, "long enough: ü")
            assert not await logs_in(gateway, AUTH[1])


async def test_what_cannot_be_set(tmp_path: Path) -> None:
    async with receiving() as webhooks, running(tmp_path, webhooks) as gateway:
        result = await set_password(gateway, "secret")
        assert (result.returncode, result.stderr) == (
            1,
            "gateway: a password must have 8 to 1000 characters; nothing was changed\n",
        )
        result = await set_password(gateway, "long enough", account="max")
        assert result.returncode == 1
        assert result.stderr == "gateway: there is no account 'max'; there are: mox\n"
        assert await logs_in(gateway, AUTH[1])
