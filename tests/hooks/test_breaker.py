"""A plugin that fails again and again is suspended, and asked again."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import pytest
import trio
import trio.lowlevel
import trio.testing

from gateway import Address, Authenticated, Credentials, QueuedMessage, Route, Submission, hookimpl
from gateway.errors import PluginError
from gateway.hooks.breaker import FAILURES, FIRST_WAIT, LONGEST_WAIT
from gateway.hooks.stages import Hooks
from tests.hooks.helpers import a_delivery, a_message, a_reception, a_report, a_source, a_submission, load


class Moody:
    """Fails as long as it is told to."""

    def __init__(self) -> None:
        self.asked, self.works = 0, False

    def _answer(self, answer: Any) -> Any:
        self.asked += 1
        if not self.works:
            raise RuntimeError("moody")
        return answer

    @hookimpl
    def route(self, message: QueuedMessage) -> Route:
        return self._answer(Route("moody"))  # type: ignore[no-any-return]

    @hookimpl
    async def sign(self, data: bytes) -> bytes:
        return self._answer(data + b"moody")  # type: ignore[no-any-return]


def moody(on_error: str) -> tuple[Moody, Hooks]:
    plugin = Moody()
    policies = {"route": on_error, "sign": on_error}
    return plugin, load({"moody": plugin}, {"plugin": {"moody": {"on_error": policies}}})


async def route(hooks: Hooks) -> str:
    found = await hooks.for_account("").route(message=a_message(), routes=())
    assert found is not None
    return found.transport


async def test_where_it_may_be_skipped_the_stage_goes_on_without_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    plugin, hooks = moody("skip")
    for _ in range(FAILURES + 3):
        assert await route(hooks) == "rest"
    assert plugin.asked == FAILURES
    tally = hooks.calls["moody", "route"]
    assert (tally.suspended, tally.skipped, tally.failures) == (True, 3, FAILURES)
    assert caplog.text.count("suspended") == 1
    # Asked once, when its time has come; then half as often.
    await trio.sleep(FIRST_WAIT)
    for _ in range(3):
        assert await route(hooks) == "rest"
    assert plugin.asked == FAILURES + 1
    plugin.works = True
    await trio.sleep(FIRST_WAIT)
    assert await route(hooks) == "rest"
    await trio.sleep(FIRST_WAIT)
    assert await route(hooks) == "moody"
    assert not tally.suspended
    assert "plugin 'moody', hook 'route': answers again" in caplog.text


async def test_where_nothing_may_go_on_it_fails_at_once(autojump_clock: trio.testing.MockClock) -> None:
    plugin, hooks = moody("defer")
    stages, submission = hooks.for_account(""), a_submission()
    for _ in range(FAILURES + 3):
        with pytest.raises(PluginError, match="moody"):
            await stages.sign(data=b"x", submission=submission)
    assert plugin.asked == FAILURES
    plugin.works = True
    await trio.sleep(FIRST_WAIT)
    assert await stages.sign(data=b"x", submission=submission) == b"xmoody"
    assert await stages.sign(data=b"x", submission=submission) == b"xmoody"


async def test_it_is_never_left_alone_for_long(autojump_clock: trio.testing.MockClock) -> None:
    plugin, hooks = moody("skip")
    waits = []
    for _ in range(20):
        asked, began = plugin.asked, trio.current_time()
        while plugin.asked == asked:
            await route(hooks)
            await trio.sleep(0.5)
        waits.append(trio.current_time() - began)
    assert max(waits) <= LONGEST_WAIT + 1


async def test_one_failure_among_answers_suspends_nobody(autojump_clock: trio.testing.MockClock) -> None:
    plugin, hooks = moody("skip")
    for number in range(10 * FAILURES):
        plugin.works = number % FAILURES == 0
        await route(hooks)
    assert plugin.asked == 10 * FAILURES


async def test_base_addresses_of_all_stay_when_it_raises_for_some(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a few odd addresses of one account would undo the suppression lists of all."""

    class Picky:
        @hookimpl
        def base_address(self, address: Address) -> Address | None:
            if address.localpart == "nonsense":
                return "nonsense"  # type: ignore[return-value]
            if address.localpart.startswith("odd"):
                raise ValueError("odd")
            return Address(address.localpart.lower(), address.domain)

    hooks = load({"picky": Picky()})
    stages = hooks.for_account("")
    for localpart in (*(f"odd{number}" for number in range(2 * FAILURES)), *["nonsense"] * 2 * FAILURES):
        assert await stages.base_address(address=Address(localpart, "example.org")) is None
    found = await stages.base_address(address=Address("Ada", "example.org"))
    assert found == Address("ada", "example.org")
    tally = hooks.calls["picky", "base_address"]
    assert (tally.failures, tally.skipped, tally.suspended) == (4 * FAILURES, 0, False)
    assert "suspended" not in caplog.text


async def test_logins_go_on_when_it_raises_for_some(autojump_clock: trio.testing.MockClock) -> None:
    """Else a stranger who finds a name that it cannot bear would keep everybody out."""

    class Picky:
        @hookimpl
        def authenticate(self, credentials: Credentials) -> Authenticated:
            return Authenticated(account=credentials.login.encode("ascii").decode())

    hooks = load({"picky": Picky()})
    for _ in range(2 * FAILURES):
        with pytest.raises(PluginError):
            await hooks.gateway.authenticate(credentials=Credentials(login="ä", password="", remote_ip=""))
    ada = Credentials(login="ada", password="", remote_ip="")
    assert await hooks.gateway.authenticate(credentials=ada) == Authenticated(account="ada")


async def test_what_strangers_send_leaves_nobody_out(autojump_clock: trio.testing.MockClock) -> None:
    class Picky:
        @hookimpl
        def receive_policy(self) -> None:
            raise ValueError("odd")

        mailbox = read_report = match_report = receive_policy

    hooks = load({"picky": Picky()})
    stages, reception, account = hooks.for_account(""), a_reception(), Address("ada", "example.org")
    for _ in range(2 * FAILURES):
        with pytest.raises(PluginError, match="ValueError"):
            await hooks.gateway.receive_policy(reception=reception)
        with pytest.raises(PluginError, match="ValueError"):
            await stages.mailbox(reception=reception, account="", recipient=account, chosen="Inbox")
        await hooks.gateway.read_report(source=a_source())
        await stages.match_report(report=a_report(), sent=Mock())
    tallies = {hook: tally for _, hook, tally in hooks.calls if tally.failures}
    assert tallies.keys() == {"receive_policy", "mailbox", "read_report", "match_report"}
    assert all((tally.failures, tally.skipped) == (2 * FAILURES, 0) for tally in tallies.values())


async def test_base_addresses_do_not_wait_for_who_hangs(autojump_clock: trio.testing.MockClock) -> None:
    class Hanging:
        @hookimpl
        async def base_address(self) -> Address | None:
            await trio.sleep(1000)
            return None

    hooks = load({"hanging": Hanging()})
    for _ in range(FAILURES + 3):
        assert await hooks.for_account("").base_address(address=Address("ada", "example.org")) is None
    tally = hooks.calls["hanging", "base_address"]
    assert (tally.timeouts, tally.skipped, tally.suspended) == (FAILURES, 3, True)


async def test_who_hung_and_raises_in_time_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """An odd address that is asked about to see how it does must not leave it out for the others."""

    class Recovering:
        works = False

        @hookimpl
        async def base_address(self, address: Address) -> Address | None:
            if not self.works:
                await trio.sleep(1000)
            if address.localpart == "odd":
                raise ValueError("odd")
            return Address("base", address.domain)

    plugin = Recovering()
    hooks = load({"recovering": plugin})
    stages = hooks.for_account("")
    ada, odd = Address("ada", "example.org"), Address("odd", "example.org")
    for _ in range(FAILURES):
        assert await stages.base_address(address=ada) is None
    plugin.works = True
    assert await stages.base_address(address=ada) is None
    await trio.sleep(FIRST_WAIT)
    assert await stages.base_address(address=odd) is None
    assert await stages.base_address(address=ada) == Address("base", "example.org")


async def test_while_one_asks_a_suspended_plugin_the_others_do_without(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Slow:
        asked = 0

        @hookimpl
        async def hold(self) -> bool:
            self.asked += 1
            await trio.sleep(1000)
            return True

    slow = Slow()
    hooks = load({"slow": slow}, {"plugin": {"slow": {"on_error": {"hold": "skip"}}}})

    async def hold() -> None:
        submission = a_submission()
        await hooks.for_account("").hold(submission=submission, recipient=submission.recipients[0], rules=())

    for _ in range(FAILURES):
        await hold()
    await trio.sleep(FIRST_WAIT)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hold)
    assert (slow.asked, trio.current_time() - began) == (FAILURES + 1, 5.0)  # its time limit, once


async def test_a_reload_gives_it_another_chance(autojump_clock: trio.testing.MockClock) -> None:
    plugin, hooks = moody("skip")
    for _ in range(FAILURES):
        await route(hooks)
    plugin.works = True
    assert await route(load({"moody": plugin}, previous=hooks)) == "moody"


async def test_managers_that_cannot_be_entered_are_suspended_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Broken:
        entered = 0

        @hookimpl
        def around_attempt(self) -> Any:
            return self

        async def __aenter__(self) -> None:
            Broken.entered += 1
            raise RuntimeError("no")

        async def __aexit__(self, *_: object) -> None: ...

    from contextlib import AbstractAsyncContextManager

    AbstractAsyncContextManager.register(Broken)
    hooks = load({"broken": Broken()})
    for _ in range(FAILURES + 3):
        async with hooks.for_account("").around_attempt(delivery=a_delivery()):
            pass
    assert Broken.entered == FAILURES


async def test_an_async_function_that_stops_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Stops:
        @hookimpl
        async def submission(self, submission: Submission) -> None:
            await trio.lowlevel.checkpoint()
            time.sleep(0.12)  # noqa: ASYNC251 - the fault
            await trio.sleep(0.12)  # that is no fault

    hooks = load({"stops": Stops()})
    await hooks.for_account("").submission(submission=a_submission())
    assert hooks.calls["stops", "submission"].slow == 1
    assert "plugin 'stops', hook 'submission': stopped the event loop for 0.1" in caplog.text
