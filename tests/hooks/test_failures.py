"""What becomes of a plugin that raises, hangs or answers nonsense: policies, time limits, counts, logs."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from gateway import (
    Accept,
    GiveUp,
    PluginError,
    Reject,
    RetryAt,
    Route,
    Submission,
    WebhookBody,
    hookimpl,
)
from gateway.hooks.stages import Hooks
from tests.hooks.helpers import (
    NOW,
    a_delivery,
    a_failure,
    a_message,
    a_reception,
    a_submission,
    a_webhook_call,
    an_event,
    load,
    stages,
)


@pytest.fixture
def clock() -> MockClock:
    """Jumps ahead when everything waits; not at once, so that a thread can begin."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a hanging thread waits for, so that it ends with its test."""
    event = threading.Event()
    yield event
    event.set()


class Raises:
    @hookimpl
    def sign(self) -> bytes:
        raise ValueError("no\nkey")


class RaisesLater:
    @hookimpl
    async def sign(self) -> bytes:
        await trio.lowlevel.checkpoint()
        raise ValueError("no\nkey")


class RaisesInThread:
    @hookimpl(thread=True)
    def sign(self) -> bytes:
        raise ValueError("no\nkey")


class Hangs:
    @hookimpl
    async def sign(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError


class HangsInThread:
    def __init__(self, release: threading.Event) -> None:
        self.release = release

    @hookimpl(thread=True)
    def sign(self) -> bytes:
        self.release.wait()
        return b""


class Nonsense:
    @hookimpl
    def sign(self) -> str:
        return "signed"


class NonsenseLater:
    @hookimpl
    async def sign(self) -> str:
        return "signed"


class NonsenseInThread:
    @hookimpl(thread=True)
    def sign(self) -> str:
        return "signed"


class Good:
    @hookimpl
    def sign(self, data: bytes) -> bytes:
        return b"Good: yes\r\n" + data


NO_ANSWER, RAISED = "no answer in 5 s", "raised ValueError: no key"
NOT_BYTES = "answered 'signed' (str); expected bytes or None"
FAILURES = [
    (Raises, RAISED),
    (RaisesLater, RAISED),
    (RaisesInThread, RAISED),
    (Hangs, NO_ANSWER),
    (HangsInThread, NO_ANSWER),
    (Nonsense, NOT_BYTES),
    (NonsenseLater, NOT_BYTES),
    (NonsenseInThread, NOT_BYTES),
]


@pytest.mark.parametrize("policy", ["defer", "fallback", "skip"])
@pytest.mark.parametrize(("kind", "reason"), FAILURES)
async def test_failures_by_policy(
    kind: type,
    reason: str,
    policy: str,
    clock: MockClock,
    release: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = kind(release) if kind is HangsInThread else kind()
    # "defer" is the hook's own policy.
    config = {"plugin": {"bad": {"on_error": {"sign": policy}}}} if policy != "defer" else {}
    hooks = load({"bad": bad, "good": Good()}, config)
    asked = hooks.for_account("")
    if policy == "defer":
        with pytest.raises(PluginError) as caught:
            await asked.sign(data=b"data", submission=a_submission())
        error = caught.value
        assert (error.plugin, error.hook, error.reason) == ("bad", "sign", reason)
        assert isinstance(error.__cause__, ValueError) == (reason == RAISED)
    else:
        assert await asked.sign(data=b"data", submission=a_submission()) == b"Good: yes\r\ndata"

    (record,) = caplog.records
    assert record.getMessage() == f"submission sub-1: plugin 'bad', hook 'sign': {reason}"
    assert record.levelno == logging.ERROR
    assert bool(record.exc_info) == (reason == RAISED)
    tally = hooks.calls["bad", "sign"]
    assert (tally.calls, tally.failures, tally.timeouts) == (1, 1, reason == NO_ANSWER)
    assert trio.current_time() == pytest.approx(5 if reason == NO_ANSWER else 0, abs=0.01)


async def test_fallback_asks_the_next_plugin() -> None:
    class Broken:
        @hookimpl
        def retry(self) -> RetryAt:
            raise OSError("schedule lost")

    class Fine:
        @hookimpl
        def retry(self) -> RetryAt:
            return RetryAt(NOW)

    asked = stages({"broken": Broken(), "fine": Fine()})
    assert await asked.retry(message=a_message(), outcome=a_failure(), now=NOW) == RetryAt(NOW)


async def test_fallback_is_none_when_nobody_else_answers() -> None:
    class Broken:
        @hookimpl
        def format_webhook(self) -> WebhookBody:
            raise OSError("template lost")

    config = {"plugin": {"rest": {"on_error": {"format_webhook": "fallback"}}}}
    asked = stages({"broken": Broken(), "alas": Broken()}, config)
    assert await asked.format_webhook(event=an_event(), format_name="mox") == WebhookBody(b"rest")

    class BrokenSet(Broken):
        @hookimpl
        def route(self) -> None: ...
        @hookimpl
        def retry(self) -> None: ...
        @hookimpl
        def transports(self) -> None: ...

    alone = load({"alone": BrokenSet()}, {"plugin_sets": {"test": {"plugins": ["alone"]}}}, sets={})
    assert await alone.for_account("").format_webhook(event=an_event(), format_name="mox") is None


async def test_an_observer_can_be_made_to_defer_but_all_hear_it() -> None:
    heard = []

    class Deaf:
        @hookimpl
        def event(self) -> None:
            raise ValueError("no")

    class Ears:
        @hookimpl
        def event(self) -> None:
            heard.append(1)

    config = {"plugin": {"deaf": {"on_error": {"event": "defer"}}}}
    with pytest.raises(PluginError, match="plugin 'deaf', hook 'event': raised ValueError: no"):
        await stages({"deaf": Deaf(), "ears": Ears()}, config).event(event=an_event())
    assert heard == [1]


# --- Time limits ---------------------------------------------------------------------------------


class Takes:
    """Answers after 7 seconds, by its own limit of 10."""

    @hookimpl(limit=10)
    async def sign(self, data: bytes) -> bytes:
        await trio.sleep(7)
        return b"slowly " + data


async def test_a_plugin_may_ask_for_another_limit(autojump_clock: MockClock) -> None:
    assert await stages({"takes": Takes()}).sign(data=b"x", submission=a_submission()) == b"slowly x"


async def test_the_configuration_overrides_a_plugin_s_limit(autojump_clock: MockClock) -> None:
    config = {"plugin": {"takes": {"limits": {"sign": 1.5}}}}
    with pytest.raises(PluginError, match=r"no answer in 1\.5 s"):
        await stages({"takes": Takes()}, config).sign(data=b"x", submission=a_submission())
    assert trio.current_time() == 1.5


async def test_an_answer_that_a_plugin_saves_from_its_limit_counts(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn:
        @hookimpl
        async def sign(self) -> bytes:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                return b"late"
            raise AssertionError

    hooks = load({"stubborn": Stubborn()})
    assert await hooks.for_account("").sign(data=b"x", submission=a_submission()) == b"late"
    assert hooks.calls["stubborn", "sign"].timeouts == 0
    (line,) = caplog.messages
    assert line.startswith("submission sub-1: plugin 'stubborn', hook 'sign': answered after ")
    assert line.endswith("; its limit is 5 s, and it should let Cancelled pass")


async def test_nothing_behind_its_limit_is_no_answer(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Swallows:
        @hookimpl
        async def receive_policy(self) -> Reject | None:
            with contextlib.suppress(trio.Cancelled):
                await trio.sleep_forever()
            return None

    hooks = load({"swallows": Swallows()})
    with pytest.raises(PluginError, match="no answer in"):
        await hooks.gateway.receive_policy(reception=a_reception())
    assert "plugin 'swallows', hook 'receive_policy': no answer in" in caplog.text
    assert hooks.calls["swallows", "receive_policy"].timeouts == 1


async def test_a_plugin_s_own_time_out_is_not_ours(autojump_clock: MockClock) -> None:
    class Impatient:
        @hookimpl
        async def sign(self) -> bytes:
            with trio.fail_after(1):
                await trio.sleep_forever()
            raise AssertionError

    hooks = load({"impatient": Impatient()})
    with pytest.raises(PluginError, match="raised TooSlowError"):
        await hooks.for_account("").sign(data=b"x", submission=a_submission())
    assert hooks.calls["impatient", "sign"].timeouts == 0


async def test_what_a_plugin_raises_at_its_limit_is_kept_as_the_cause(autojump_clock: MockClock) -> None:
    class Untidy:
        @hookimpl
        async def sign(self) -> bytes:
            async def worse() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while tidying up")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(worse)
                nursery.start_soon(trio.sleep_forever)
            raise AssertionError

    hooks = load({"untidy": Untidy()})
    with pytest.raises(PluginError, match="no answer in 5 s") as caught:
        await hooks.for_account("").sign(data=b"x", submission=a_submission())
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert hooks.calls["untidy", "sign"].timeouts == 1


async def test_hanging_threads_keep_their_places_also_over_a_reload(
    clock: MockClock, release: threading.Event
) -> None:
    plugins = {"bad": HangsInThread(release)}
    hooks = load(plugins)
    for _ in range(4):
        with pytest.raises(PluginError, match="no answer in 5 s"):
            await hooks.for_account("").sign(data=b"x", submission=a_submission())
    hooks = load(plugins, previous=hooks)
    with pytest.raises(PluginError, match="no thread came free in 5 s"):
        await hooks.for_account("").sign(data=b"x", submission=a_submission())
    assert hooks.calls["bad", "sign"].timeouts == 5

    class Other:
        @hookimpl(thread=True)
        def sign(self, data: bytes) -> bytes:
            return b"other " + data

    other = load({"other": Other()}, previous=hooks).for_account("")
    assert await other.sign(data=b"x", submission=a_submission()) == b"other x"

    release.set()
    clock.autojump_threshold = float("inf")
    with trio.fail_after(5):
        while hooks.limiters["bad"].borrowed_tokens:
            await trio.lowlevel.checkpoint()


async def test_a_plain_function_that_blocks_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Blocks:
        @hookimpl
        def sign(self, data: bytes) -> bytes:
            time.sleep(0.11)
            return data

    hooks = load({"blocks": Blocks()})
    assert await hooks.for_account("").sign(data=b"x", submission=a_submission()) == b"x"
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "submission sub-1: plugin 'blocks', hook 'sign': stopped the event loop for 0."
    )
    tally = hooks.calls["blocks", "sign"]
    assert (tally.calls, tally.failures, tally.slow) == (1, 0, 1)
    assert 0.11 <= tally.seconds < 5


# --- Cancellation --------------------------------------------------------------------------------


async def test_cancellation_passes(autojump_clock: MockClock) -> None:
    hooks = load({"hangs": Hangs()}, {"plugin": {"hangs": {"on_error": {"sign": "skip"}}}})
    with trio.move_on_after(1) as scope:
        await hooks.for_account("").sign(data=b"x", submission=a_submission())
    assert scope.cancelled_caught
    assert hooks.calls["hangs", "sign"].failures == 0


async def test_cancellation_passes_without_what_a_plugin_adds(autojump_clock: MockClock) -> None:
    class Untidy:
        @hookimpl
        async def sign(self) -> bytes:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                raise BaseExceptionGroup("both", [exc, ValueError("debris")]) from None
            raise AssertionError

    with trio.move_on_after(1) as scope:
        await stages({"untidy": Untidy()}).sign(data=b"x", submission=a_submission())
    assert scope.cancelled_caught


async def test_a_cancelled_that_is_nobody_s_is_a_failure() -> None:
    class Keeps:
        @hookimpl
        async def sign(self) -> bytes:
            kept: trio.Cancelled | None = None
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as exc:
                    kept = exc
            assert kept is not None
            raise kept

    with pytest.raises(PluginError, match="raised Cancelled"):
        await stages({"keeps": Keeps()}).sign(data=b"x", submission=a_submission())


class Panic(BaseException):
    """As libraries written in Rust raise it."""


class Ends:
    error: BaseException

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def sign(self) -> bytes:
        raise self.error


class EndsLater(Ends):
    @hookimpl
    async def sign(self) -> bytes:  # type: ignore[override]
        raise self.error


class EndsInAThread(Ends):
    @hookimpl(thread=True)
    def sign(self) -> bytes:
        raise self.error


@pytest.mark.parametrize("kind", [Ends, EndsLater, EndsInAThread])
@pytest.mark.parametrize(
    "error", [SystemExit(1), Panic("no"), BaseExceptionGroup("both", [Panic("no"), ValueError("x")])]
)
async def test_what_is_no_exception_is_a_failure_too(kind: type[Ends], error: BaseException) -> None:
    with pytest.raises(PluginError, match=f"plugin 'ends', hook 'sign': raised {type(error).__name__}"):
        await stages({"ends": kind(error)}).sign(data=b"x", submission=a_submission())


@pytest.mark.parametrize("kind", [Ends, EndsLater, EndsInAThread])
async def test_a_keyboard_interrupt_passes(kind: type[Ends]) -> None:
    with pytest.raises(KeyboardInterrupt):
        await stages({"ends": kind(KeyboardInterrupt())}).sign(data=b"x", submission=a_submission())
    group = BaseExceptionGroup("both", [KeyboardInterrupt(), ValueError("x")])
    with pytest.raises(BaseExceptionGroup):
        await stages({"ends": kind(group)}).sign(data=b"x", submission=a_submission())


# --- Answers -------------------------------------------------------------------------------------


class Answers:
    """Answers the same to every hook."""

    answer: Any = None

    @hookimpl
    def submission(self) -> Any:
        return self.answer

    @hookimpl
    def sign(self) -> Any:
        return self.answer

    @hookimpl
    def hold(self) -> Any:
        return self.answer

    @hookimpl
    def route(self) -> Any:
        return self.answer

    @hookimpl
    def retry(self) -> Any:
        return self.answer

    @hookimpl
    def event(self) -> Any:
        return self.answer

    @hookimpl
    def format_webhook(self) -> Any:
        return self.answer

    @hookimpl
    def sign_webhook(self) -> Any:
        return self.answer

    @hookimpl
    def receive_policy(self) -> Any:
        return self.answer

    @hookimpl
    def mailbox(self) -> Any:
        return self.answer


async def _generator() -> AsyncIterator[int]:
    yield 1


async def _coroutine() -> None: ...


class Odd:
    def __getattribute__(self, name: str) -> Any:
        raise ValueError("odd")


SUBMISSION, ROUTE = "Submission, Reject or None", "Route or None"
RETRY, WEBHOOK = "RetryAt, GiveUp or None", "WebhookBody, bool or None"
HEADERS = "Mapping or None"
NOT_BYTES_BODY = "a WebhookBody whose body is not bytes"
FIXED, REFUSE = ", which no plugin may change", " (to refuse the message, answer Reject)"
NAIVE = "a RetryAt whose time is not a datetime with a time zone"
WHOSE = "a Submission whose"
NO_TIME, NO_EXTRA = "is neither a datetime with a time zone nor None", "is not a Mapping from text to text"
MAILBOX = "a mailbox that is not printable text of 1 to 200 characters"
REASON = "a GiveUp whose reason is not a str of at most 2000 characters"
BEFORE_TIME = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=10)))
PARTS = "a Submission whose recipients are not a tuple of Address"


@pytest.mark.parametrize(
    ("hook", "answer", "came", "expected"),
    [
        ("submission", a_submission(id="x"), f"a Submission with another id{FIXED}", SUBMISSION),
        ("submission", a_submission(account="x"), f"a Submission with another account{FIXED}", SUBMISSION),
        ("submission", a_submission(data="x"), "a Submission whose data is not bytes, or empty", SUBMISSION),
        ("submission", a_submission(data=b""), "a Submission whose data is not bytes, or empty", SUBMISSION),
        (
            "submission",
            a_submission(reverse_path=None),
            f"{WHOSE} reverse_path is not an Address",
            SUBMISSION,
        ),
        ("submission", a_submission(header_from="x@y"), f"{WHOSE} header_from is not an Address", SUBMISSION),
        (
            "submission",
            a_submission(message_id="<1@x>\r\nX: y"),
            f"{WHOSE} message_id is not printable text",
            SUBMISSION,
        ),
        ("submission", a_submission(subject="\ud800"), f"{WHOSE} subject is not text", SUBMISSION),
        ("submission", a_submission(subject=None), f"{WHOSE} subject is not text", SUBMISSION),
        ("submission", a_submission(smtputf8="no"), f"{WHOSE} smtputf8 is not a bool", SUBMISSION),
        ("submission", a_submission(has_8bit=1), f"{WHOSE} has_8bit is not a bool", SUBMISSION),
        (
            "submission",
            a_submission(require_tls="yes"),
            f"{WHOSE} require_tls is neither a bool nor None",
            SUBMISSION,
        ),
        (
            "submission",
            a_submission(not_before=datetime(2030, 1, 1)),
            f"{WHOSE} not_before {NO_TIME}",
            SUBMISSION,
        ),
        ("submission", a_submission(extra=None), f"{WHOSE} extra {NO_EXTRA}", SUBMISSION),
        ("submission", a_submission(extra={"a": 1}), f"{WHOSE} extra {NO_EXTRA}", SUBMISSION),
        ("submission", a_submission(extra={"a\0": "b"}), f"{WHOSE} extra {NO_EXTRA}", SUBMISSION),
        ("submission", a_submission(recipients=["x"]), PARTS, SUBMISSION),
        ("submission", a_submission(recipients=("x",)), PARTS, SUBMISSION),
        ("submission", a_submission(recipients=()), f"a Submission without recipients{REFUSE}", SUBMISSION),
        ("submission", b"data", "bytes", SUBMISSION),
        ("sign", b"", "an empty message", "bytes or None"),
        ("sign", bytearray(b"x"), "bytearray", "bytes or None"),
        ("sign", Reject(550, "5.7.1", "no"), "Reject", "bytes or None"),
        ("hold", 1, "int", "bool or None"),
        ("hold", "x" * 1000, "'xxxxxxxxxxxx...xxxxxxxxxxxxx' (str)", "bool or None"),
        ("route", "direct", "'direct' (str)", ROUTE),
        ("route", True, "True (bool)", ROUTE),
        ("route", Route(""), "a Route without a transport", ROUTE),
        ("route", Route(3), "a Route without a transport", ROUTE),  # type: ignore[arg-type]
        ("route", _coroutine, "coroutine", ROUTE),
        ("route", _generator, "async_generator", ROUTE),
        ("route", lambda: (n for n in [1]), "generator", ROUTE),
        ("retry", RetryAt(datetime(2030, 1, 1)), NAIVE, RETRY),
        ("retry", RetryAt(5), NAIVE, RETRY),  # type: ignore[arg-type]
        ("retry", RetryAt(BEFORE_TIME), NAIVE, RETRY),
        ("retry", GiveUp(5), REASON, RETRY),  # type: ignore[arg-type]
        ("retry", GiveUp("\ud800"), REASON, RETRY),
        ("retry", GiveUp("x" * 2001), REASON, RETRY),
        ("event", "heard", "'heard' (str)", "None"),
        ("format_webhook", WebhookBody("{}"), NOT_BYTES_BODY, WEBHOOK),  # type: ignore[arg-type]
        (
            "format_webhook",
            WebhookBody(b"{}", "text/plain\r\nX: y"),
            "a WebhookBody whose content_type is not printable ASCII text",
            WEBHOOK,
        ),
        ("format_webhook", True, "True (to make the call, answer a WebhookBody)", WEBHOOK),
        ("sign_webhook", {"Host": "x"}, "a Mapping with Host, which is the gateway's", HEADERS),
        ("sign_webhook", {"a:": "x"}, "a Mapping with 'a:' in place of a header's name", HEADERS),
        ("sign_webhook", {"a": "x\r\nb: y"}, "a Mapping with a a that no header can have", HEADERS),
        ("sign_webhook", {"a": "x" * 4097}, "a Mapping with a a of more than 4096 characters", HEADERS),
        (
            "sign_webhook",
            {f"a{n}": "x" for n in range(101)},
            "a Mapping of more than 100 header fields",
            HEADERS,
        ),
        ("receive_policy", True, "True (bool)", "Accept, Reject or None"),
        ("mailbox", Accept("Junk"), "Accept", "str or None"),
        ("mailbox", "", MAILBOX, "str or None"),
        ("mailbox", " Junk", MAILBOX, "str or None"),
        ("mailbox", "Junk\r\n", MAILBOX, "str or None"),
        ("mailbox", "x" * 201, MAILBOX, "str or None"),
    ],
)
async def test_nonsense_is_named(
    hook: str, answer: Any, came: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Answers()
    plugin.answer = answer() if callable(answer) else answer
    await _ask(load({"odd": plugin}), hook)
    del plugin
    gc.collect()  # a coroutine that was never awaited would be a warning, and an error here
    (record,) = caplog.records
    assert record.getMessage().endswith(f"plugin 'odd', hook '{hook}': answered {came}; expected {expected}")


async def _ask(hooks: Hooks, hook: str) -> None:
    submission, asked = a_submission(), hooks.for_account("")
    asking: dict[str, Callable[[], Awaitable[object]]] = {
        "submission": lambda: asked.submission(submission=submission),
        "sign": lambda: asked.sign(data=b"x", submission=submission),
        "hold": lambda: asked.hold(submission=submission, recipient=submission.login, rules=()),
        "route": lambda: asked.route(message=a_message(), routes=()),
        "retry": lambda: asked.retry(message=a_message(), outcome=a_failure(), now=NOW),
        "event": lambda: asked.event(event=an_event()),
        "format_webhook": lambda: asked.format_webhook(event=an_event(), format_name="mox"),
        "sign_webhook": lambda: asked.sign_webhook(headers={}, call=a_webhook_call()),
        "receive_policy": lambda: hooks.gateway.receive_policy(reception=a_reception()),
        "mailbox": lambda: asked.mailbox(
            reception=a_reception(), account="app", recipient=submission.login, chosen="Inbox"
        ),
    }
    try:
        await asking[hook]()
    except PluginError:
        assert hook in ("submission", "sign", "hold", "route", "sign_webhook", "receive_policy", "mailbox")
    else:
        assert hook in ("retry", "event", "format_webhook")


async def test_an_answer_that_cannot_be_looked_at_is_nonsense() -> None:
    class Strange:
        @hookimpl
        def route(self) -> Any:
            return Odd()

    with pytest.raises(PluginError, match="answered what cannot be read: raised ValueError: odd"):
        await stages({"strange": Strange()}).route(message=a_message(), routes=())


async def test_reasons_are_short_and_of_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Raising:
        error: Exception = ValueError()

        @hookimpl
        def route(self) -> Route:
            raise self.error

    plugin = Raising()
    asked = stages({"raising": plugin})
    for error, reason in [
        (ValueError(), "raised ValueError"),
        (ValueError("a\r\nb \x1b[31m"), "raised ValueError: a b ?[31m"),
        (ValueError("x" * 10_000), "raised ValueError: " + "x" * 500),
        (Silent(), "raised Silent"),
        (RecursionError("deep"), "raised RecursionError: deep"),
    ]:
        plugin.error = error
        with pytest.raises(PluginError) as caught:
            await asked.route(message=a_message(), routes=())
        assert caught.value.reason == reason
        assert caplog.messages[-1] == f"submission sub-7: plugin 'raising', hook 'route': {reason}"


async def test_a_failure_that_nobody_can_name_a_message_for(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        @hookimpl
        def receive_policy(self) -> None:
            raise ValueError("x")

    with pytest.raises(PluginError):
        await load({"broken": Broken()}).gateway.receive_policy(reception=a_reception())
    assert caplog.records[-1].getMessage() == "plugin 'broken', hook 'receive_policy': raised ValueError: x"


async def test_calls_are_counted() -> None:
    class Counted:
        @hookimpl
        def submission(self, submission: Submission) -> None: ...
        @hookimpl
        async def sign(self) -> None: ...

    hooks = load({"counted": Counted()})
    for _ in range(3):
        await hooks.for_account("").submission(submission=a_submission())
    await hooks.for_account("").sign(data=b"x", submission=a_submission())
    hooks = load({"counted": Counted()}, previous=hooks)
    await hooks.for_account("").sign(data=b"x", submission=a_submission())
    counted = {(plugin, hook): tally for plugin, hook, tally in hooks.calls}
    assert counted["counted", "submission"].calls == 3
    assert counted["counted", "sign"].calls == 2
    assert counted["counted", "sign"].seconds > 0
    assert counted["counted", "sign"].failures == 0


# --- What is left open ---------------------------------------------------------------------------


class LeavesOpen:
    """Opens a nursery by hand, and never leaves it."""

    def __init__(self, then: str) -> None:
        self.then = then
        self.ended = trio.Event()

    async def _open(self) -> None:
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(self._beside)
        await trio.lowlevel.checkpoint()
        if self.then == "raise":
            raise RuntimeError("out of order")
        if self.then == "hang":
            await trio.sleep_forever()

    async def _beside(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()
            if self.then == "fail beside":
                raise RuntimeError("beside")  # nobody hears it

    @hookimpl
    async def route(self) -> Route:
        await self._open()
        return Route("one")

    @hookimpl
    async def event(self) -> None:
        await self._open()

    @hookimpl
    def around_attempt(self) -> AbstractAsyncContextManager[object]:
        return self

    async def __aenter__(self) -> None:
        if self.then != "hang":
            await self._open()

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("then", ["answer", "raise", "hang", "fail beside"])
async def test_a_nursery_that_is_left_open_harms_nobody(then: str, autojump_clock: MockClock) -> None:
    plugin = LeavesOpen(then)
    hooks = load({"left": plugin})
    asked = hooks.for_account("")
    async with trio.open_nursery() as ours:  # whose task must be able to leave it
        ours.start_soon(trio.lowlevel.checkpoint)
        for _ in range(2):
            plugin.ended = trio.Event()
            with pytest.raises(PluginError, match=r"stack corrupted|no answer in"):
                await asked.route(message=a_message(), routes=())
            with trio.fail_after(1):
                await plugin.ended.wait()
            async with trio.open_nursery() as another:
                another.start_soon(trio.lowlevel.checkpoint)
        await asked.event(event=an_event())
        async with asked.around_attempt(delivery=a_delivery()):
            await trio.lowlevel.checkpoint()
    assert hooks.calls["left", "route"].failures == 2
    assert hooks.calls["left", "event"].failures == 1
    assert hooks.calls["left", "around_attempt"].failures == (then != "hang")
