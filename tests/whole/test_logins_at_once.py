"""Logins that come at once: no more guesses than one after the other, and nobody else waits for them."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from ipaddress import IPv4Address

import pytest
import trio

from gateway.accounts.api_keys import PREFIX
from gateway.accounts.logins import FAILURES_ALLOWED, Authenticator, BadCredentialsError, TooManyFailuresError
from gateway.accounts.sasl import SaslLogins
from gateway.net.smtp_handler import Session
from gateway.smtp.replies import Reply
from gateway.store.api_keys import ApiKey
from tests.running import AUTH, Running

GUESSER, NEIGHBOUR, ELSEWHERE = "192.0.2.1", "192.0.2.2", "198.51.100.1"
AT_ONCE = 2 * FAILURES_ALLOWED


class Checks:
    """In place of argon2: each check waits until it is let through."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.begun: list[str] = []
        self.first = trio.Event()
        self.let_through = threading.Semaphore(0)
        self._verify = authenticator._verify
        authenticator._verify = self  # type: ignore[method-assign]

    def __call__(self, hashed: str, password: str) -> bool:
        self.begun.append(password)
        trio.from_thread.run_sync(self.first.set)
        if password != AUTH[1]:
            self.let_through.acquire()
        return self._verify(hashed, password)


class Guesses:
    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self.answers: Counter[str] = Counter()

    async def one(self, password: str, login: str = AUTH[0]) -> None:
        try:
            await self._authenticator.authenticate(login, password, GUESSER)
        except (BadCredentialsError, TooManyFailuresError) as exc:
            self.answers[type(exc).__name__] += 1
        else:
            self.answers["right"] += 1


@pytest.fixture
def authenticator(gateway: Running) -> Authenticator:
    found = gateway.gateway.authenticator
    assert isinstance(found, Authenticator)
    found.forget_all()
    return found


async def test_guesses_at_once_are_no_more_than_one_after_the_other(authenticator: Authenticator) -> None:
    checks, guesses = Checks(authenticator), Guesses(authenticator)
    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(guesses.one, f"wrong{number}")
        checks.let_through.release(AT_ONCE)
    assert len(checks.begun) == FAILURES_ALLOWED
    refused = AT_ONCE - FAILURES_ALLOWED
    assert guesses.answers == {"BadCredentialsError": FAILURES_ALLOWED, "TooManyFailuresError": refused}
    assert not authenticator._under_way
    await authenticator.authenticate(*AUTH, ELSEWHERE)


async def test_keys_at_once_too(authenticator: Authenticator) -> None:
    answers: Counter[str] = Counter()

    async def guess(number: int) -> None:
        try:
            await authenticator.authenticate_key(f"{PREFIX}{number:043}", GUESSER)
        except (BadCredentialsError, TooManyFailuresError) as exc:
            answers[type(exc).__name__] += 1

    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(guess, number)
    assert answers["BadCredentialsError"] == FAILURES_ALLOWED


async def test_other_networks_do_not_wait_for_guesses(authenticator: Authenticator) -> None:
    checks, guesses = Checks(authenticator), Guesses(authenticator)
    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE):
            nursery.start_soon(guesses.one, f"wrong{number}")
        try:
            with trio.fail_after(10):
                await checks.first.wait()
                await authenticator.authenticate(*AUTH, ELSEWHERE)  # while not one guess is answered
            assert len(checks.begun) == 2
        finally:
            checks.let_through.release(AT_ONCE)


async def test_right_ones_at_once_are_all_let_in(authenticator: Authenticator) -> None:
    """The limit is for failures: who waits behind many others of the network is not refused for that."""
    checks, guesses = Checks(authenticator), Guesses(authenticator)
    for _ in range(FAILURES_ALLOWED - 2):
        authenticator.failed(NEIGHBOUR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guesses.one, "wrong")
        for _ in range(AT_ONCE):
            nursery.start_soon(guesses.one, AUTH[1])
        checks.let_through.release()
    assert guesses.answers == {"BadCredentialsError": 1, "right": AT_ONCE}
    assert checks.begun.count(AUTH[1]) == 1


async def test_who_gives_up_leaves_nothing(authenticator: Authenticator) -> None:
    checks, guesses = Checks(authenticator), Guesses(authenticator)
    for _ in range(FAILURES_ALLOWED - 1):
        authenticator.failed(NEIGHBOUR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guesses.one, "wrong")
        try:
            with trio.fail_after(10):
                await checks.first.wait()
            with trio.move_on_after(0.05) as gone:
                await guesses.one(AUTH[1])
            assert gone.cancelled_caught
        finally:
            checks.let_through.release()
    assert guesses.answers == {"BadCredentialsError": 1}
    assert not authenticator._under_way


async def test_guesses_by_scram_are_counted_with_passwords(authenticator: Authenticator) -> None:
    """While a password is being checked, a proof may take no more than what the limit leaves."""
    checks, guesses = Checks(authenticator), Guesses(authenticator)
    proofs: Counter[int] = Counter()

    async def prove() -> None:
        exchange = SaslLogins(authenticator).begin(Session("s", IPv4Address(GUESSER)), "SCRAM-SHA-256")
        challenge = await exchange.step(f"n,,n={AUTH[0]},r=nonce".encode())
        assert isinstance(challenge, bytes)
        nonce, _, _ = challenge.partition(b",")
        answer = await exchange.step(b"c=biws,%s,p=%s" % (nonce, base64.b64encode(bytes(32))))
        assert isinstance(answer, Reply)
        proofs[answer.code] += 1

    async with trio.open_nursery() as nursery:
        for number in range(FAILURES_ALLOWED - 1):
            nursery.start_soon(guesses.one, f"wrong{number}")
        try:
            with trio.fail_after(10):
                await checks.first.wait()
            for _ in range(AT_ONCE):
                nursery.start_soon(prove)
            await trio.sleep(0.2)
        finally:
            checks.let_through.release(AT_ONCE)
    assert proofs == {535: 1, 454: AT_ONCE - 1}
    assert guesses.answers == {"BadCredentialsError": FAILURES_ALLOWED - 1}


async def test_a_key_that_comes_at_once_is_looked_up_once(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await authenticator.keys.add("mox", "app", frozenset({"send"}))
    looked_up: list[str] = []
    find = authenticator.keys.find

    async def counted(text: str) -> ApiKey | None:
        looked_up.append(text)
        return await find(text)

    monkeypatch.setattr(authenticator.keys, "find", counted)
    async with trio.open_nursery() as nursery:
        for _ in range(10 * AT_ONCE):
            nursery.start_soon(authenticator.authenticate_key, key, GUESSER)
    assert len(looked_up) <= FAILURES_ALLOWED


async def test_an_end_wakes_as_many_as_there_is_room_for(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each woke all that wait, the loop would have nothing else to do."""
    keys = [await authenticator.keys.add("mox", f"app{n}", frozenset({"send"})) for n in range(2 * AT_ONCE)]
    find, check = authenticator.keys.find, authenticator.check_network
    one = trio.Lock()
    looks: list[str] = []

    async def one_by_one(text: str) -> ApiKey | None:
        async with one:
            return await find(text)

    def counted(remote_ip: str) -> None:
        looks.append(remote_ip)
        check(remote_ip)

    monkeypatch.setattr(authenticator.keys, "find", one_by_one)
    monkeypatch.setattr(authenticator, "check_network", counted)
    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(authenticator.authenticate_key, key, GUESSER)
    assert len(looks) <= 2 * len(keys)
