"""`gateway account keys`, and what can be done with a key."""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import trio

from gateway.accounts.api_keys import MAX_KEYS, PREFIX
from gateway.clock import ManualClock
from gateway.smtp import scram
from gateway.store import api_keys
from tests.cli.asking import ok, refused, run
from tests.running import AUTH, PATIENCE, Running, receiving, running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def gateway(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with receiving() as webhooks, running(tmp_path, webhooks, clock=clock) as gateway:
        yield gateway


async def add(gateway: Running, name: str, *scopes: str) -> str:
    options = [option for scope in scopes for option in ("--scope", scope)]
    return (await ok(gateway, "account", "keys", "add", "mox", name, *options)).strip()


async def call(gateway: Running, method: str, **how: object) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.api.base_url, timeout=PATIENCE) as client:
        return await client.post(method, json={}, **how)  # type: ignore[arg-type]


async def by_password(gateway: Running, key: str, login: str = AUTH[0]) -> int:
    return (await call(gateway, "SuppressionList", auth=(login, key))).status_code


async def by_bearer(gateway: Running, key: str) -> int:
    return (await call(gateway, "SuppressionList", headers={"Authorization": f"Bearer {key}"})).status_code


async def test_from_made_to_revoked(gateway: Running) -> None:
    key = await add(gateway, "shop", "suppressions")
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43
    assert (await by_password(gateway, key), await by_bearer(gateway, key)) == (200, 200)
    assert await by_password(gateway, key, "mox+any@localhost") == 200
    assert await by_password(gateway, key, "nobody@localhost") == 401
    for wrong in (key[:-1], key + "A", key[:-2] + ("A" if key[-2] != "A" else "B") + key[-1]):
        assert (await by_password(gateway, wrong), await by_bearer(gateway, wrong)) == (401, 401)
    # The password is none as a Bearer token, and still does everything.
    assert await by_bearer(gateway, AUTH[1]) == 401
    await gateway.send()
    # What is kept is not the key.
    database = next(gateway.directory.rglob("*.db*")).parent
    kept = b"".join(path.read_bytes() for path in database.rglob("*") if path.is_file())
    assert key.encode() not in kept
    assert (
        await ok(gateway, "account", "keys", "revoke", "mox", "shop") == "key shop of account mox revoked\n"
    )
    assert (await by_password(gateway, key), await by_bearer(gateway, key)) == (401, 401)
    assert await ok(gateway, "account", "keys", "list", "mox") == "no keys\n"


async def test_lists(gateway: Running, clock: ManualClock) -> None:
    key = await add(gateway, "shop", "suppressions", "send", "send")
    answer = json.loads(await ok(gateway, "account", "keys", "list", "mox", "--json"))
    [listed] = answer["Keys"]
    assert (listed["Name"], listed["Scopes"]) == ("shop", ["send", "suppressions"])
    assert (listed["Expires"], listed["LastUsed"]) == (None, None)
    assert await by_password(gateway, key) == 200

    async def last_used() -> str:
        [listed] = json.loads(await ok(gateway, "account", "keys", "list", "mox", "--json"))["Keys"]
        return str(listed["LastUsed"])

    first = await last_used()
    assert first >= listed["Created"]
    clock.advance(30)  # remembered no more, and still no write
    assert await by_password(gateway, key) == 200
    assert await last_used() == first
    clock.advance(40)
    assert await by_password(gateway, key) == 200
    assert await last_used() > first
    shown = await ok(gateway, "account", "keys", "list", "mox")
    assert shown.splitlines()[0].split() == ["KEY", "SCOPES", "MADE", "EXPIRES", "LAST", "USED"]
    assert shown.splitlines()[1].split()[:2] == ["shop", "send,suppressions"]
    assert key not in shown


async def test_a_key_ends(gateway: Running, clock: ManualClock) -> None:
    options = ("--scope", "suppressions", "--expires-in", "1h", "--json")
    answer = json.loads(await ok(gateway, "account", "keys", "add", "mox", "shop", *options))
    assert answer["Expires"] is not None
    assert await by_bearer(gateway, answer["Key"]) == 200
    clock.advance(timedelta(minutes=59))
    assert await by_bearer(gateway, answer["Key"]) == 200
    clock.advance(timedelta(seconds=58))
    assert (await by_bearer(gateway, answer["Key"]), await by_password(gateway, answer["Key"])) == (200, 200)
    clock.advance(timedelta(seconds=3))  # not remembered beyond its end
    assert (await by_bearer(gateway, answer["Key"]), await by_password(gateway, answer["Key"])) == (401, 401)


async def test_scopes(gateway: Running) -> None:
    key = await add(gateway, "shop", "read")
    answer = await call(gateway, "SuppressionList", auth=(AUTH[0], key))
    assert answer.status_code == 403
    assert answer.json()["Message"] == (
        "SuppressionList needs the scope suppressions; the API key 'shop' has: read"
    )
    # Before the body is read, and what is not there is not there.
    assert (await call(gateway, "Nothing", auth=(AUTH[0], key))).status_code == 404


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_submission(gateway: Running, mechanism: str) -> None:
    keys = await add(gateway, "shop", "send"), await add(gateway, "reader", "read")
    context = ssl.create_default_context(cafile=gateway.directory / "tls" / "localhost.pem")
    address = gateway.gateway.addresses["submissions"][0]

    def log_in(key: str) -> tuple[int, bytes]:
        with smtplib.SMTP_SSL(address.host, address.port, timeout=PATIENCE, context=context) as client:
            client.ehlo()
            client.user, client.password = AUTH[0], key
            method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
            try:
                return client.auth(mechanism, method)
            except smtplib.SMTPAuthenticationError as exc:
                return exc.smtp_code, exc.smtp_error if isinstance(exc.smtp_error, bytes) else b""

    code, text = await trio.to_thread.run_sync(log_in, keys[0])
    assert code == 235, text
    code, text = await trio.to_thread.run_sync(log_in, keys[1])
    assert (code, b'has not the scope "send"' in text) == (535, True)


async def test_a_key_is_nothing_to_scram(gateway: Running) -> None:
    key = await add(gateway, "shop", "send")
    _, secret = await gateway.gateway.authenticator.scram_secret(AUTH[0])
    assert scram.derive(AUTH[1], secret.salt, secret.iterations).stored_key == secret.stored_key
    assert scram.derive(key, secret.salt, secret.iterations).stored_key != secret.stored_key


async def test_what_cannot_be_done(gateway: Running) -> None:
    await add(gateway, "shop", "send")
    keys = ("account", "keys")
    assert await refused(gateway, *keys, "add", "mox", "shop", "--scope", "send") == (
        "account mox has a key 'shop' already; revoke it, or take another name"
    )
    assert "there is no account 'max'" in await refused(
        gateway, *keys, "add", "max", "shop", "--scope", "send"
    )
    assert await refused(gateway, *keys, "revoke", "mox", "other") == (
        "account mox has no key 'other'; there are: shop"
    )
    assert "Name" in await refused(gateway, *keys, "add", "mox", "a b", "--scope", "send")
    assert (await run(gateway, *keys, "add", "mox", "other")).exit_code == 2  # no scope
    assert (await run(gateway, *keys, "add", "mox", "other", "--scope", "all")).exit_code == 2


async def test_there_are_not_too_many(gateway: Running) -> None:
    keys, store, now = gateway.gateway.authenticator.keys, gateway.gateway.store, gateway.gateway.clock.now()
    for number in range(MAX_KEYS):
        await store.write(
            lambda conn, number=number: api_keys.add(  # type: ignore[misc]
                conn,
                now,
                account="mox",
                name=str(number),
                digest=bytes([number]),
                scopes=frozenset(),
                expires=None,
                maximum=MAX_KEYS,
            )
        )
    assert len(await keys.of_account("mox")) == MAX_KEYS
    said = await refused(gateway, "account", "keys", "add", "mox", "one-more", "--scope", "send")
    assert said == f"account mox has {MAX_KEYS} keys, which is the most; revoke one"
