"""Each hook has its typed method, each method its hook; and the five verbs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import (
    Accept,
    Address,
    Event,
    GiveUp,
    HoldRule,
    Outcome,
    QueuedMessage,
    Reception,
    Reject,
    RetryAt,
    Route,
    RouteRule,
    Submission,
    Transport,
    TransportType,
    WebhookBody,
    WebhookCall,
    hookimpl,
)
from gateway.errors import RejectedByPlugin
from gateway.hooks.stages import GatewayStages, Stages
from gateway.hookspecs import SPECS, HookSpecs
from gateway.hookspecs.marks import Scope, Verb
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


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_each_hook_has_a_documented_method_with_its_arguments(spec: Any) -> None:
    assert inspect.getdoc(getattr(HookSpecs, spec.name))
    if spec.verb is Verb.ALL:
        return  # asked when loading
    method = getattr(Stages if spec.scope is Scope.ACCOUNT else GatewayStages, spec.name)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    assert [p.name for p in parameters] == list(spec.arguments)
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_no_method_without_a_hook() -> None:
    methods = {name for kind in (Stages, GatewayStages) for name in vars(kind) if not name.startswith("_")}
    assert methods == {spec.name for spec in SPECS.values() if spec.verb is not Verb.ALL}


def test_only_where_falling_back_is_the_rule_is_there_no_deferring() -> None:
    must_go_on = {name for name, spec in SPECS.items() if spec.on_error.value == "fallback"}
    assert must_go_on == {
        "base_address",
        "shape",
        "classify_outcome",
        "retry",
        "suppress",
        "read_report",
        "match_report",
        "format_webhook",
    }


# --- first ---------------------------------------------------------------------------------------


class Chosen:
    """Routes to a transport, or leaves it to the next."""

    def __init__(self, transport: str | None, asked: list[str | None]) -> None:
        self.transport, self.asked = transport, asked

    @hookimpl
    def route(self, message: QueuedMessage) -> Route | None:
        self.asked.append(self.transport)
        return Route(self.transport) if self.transport else None


class ChosenLater(Chosen):
    @hookimpl
    async def route(self, message: QueuedMessage) -> Route | None:  # type: ignore[override]
        return Chosen.route(self, message)


@pytest.mark.parametrize("kind", [Chosen, ChosenLater])
async def test_first_asks_in_the_order_of_the_set_until_one_answers(kind: type[Chosen]) -> None:
    asked: list[str | None] = []
    plugins = {"z": kind(None, asked), "m": kind("one", asked), "a": kind("two", asked)}
    assert await stages(plugins).route(message=a_message(), routes=()) == Route("one")
    assert asked == [None, "one"]


async def test_first_answers_none_when_nobody_does() -> None:
    class Undecided:
        @hookimpl
        def hold(self) -> bool | None:
            return None

    asked = stages({"undecided": Undecided()})
    assert (
        await asked.hold(submission=a_submission(), recipient=Address.parse("a@b.example"), rules=()) is None
    )


async def test_false_is_an_answer() -> None:
    class Never:
        @hookimpl
        def hold(self) -> bool:
            return False

    class Always:
        @hookimpl
        def hold(self) -> bool:
            return True

    asked = stages({"never": Never(), "always": Always()})
    assert (
        await asked.hold(submission=a_submission(), recipient=Address.parse("a@b.example"), rules=()) is False
    )


async def test_an_empty_stage_changes_nothing() -> None:
    asked = stages({})
    submission = a_submission()
    assert not any(asked.has(hook) for hook in ("submission", "sign", "hold", "event", "around_attempt"))
    assert await asked.submission(submission=submission) is submission
    assert await asked.sign(data=submission.data, submission=submission) is submission.data
    assert await asked.hold(submission=submission, recipient=submission.login, rules=()) is None
    await asked.event(event=an_event())
    async with asked.around_attempt(delivery=a_delivery()):
        pass
    assert await load({}).gateway.receive_policy(reception=a_reception()) is None


async def test_every_hook_gets_its_arguments() -> None:
    seen: dict[str, tuple[object, ...]] = {}

    class All:
        @hookimpl
        def submission(self, submission: Submission) -> None:
            seen["submission"] = (submission,)

        @hookimpl
        def sign(self, data: bytes, submission: Submission) -> None:
            seen["sign"] = (data, submission)

        @hookimpl
        def hold(self, submission: Submission, recipient: Address, rules: tuple[HoldRule, ...]) -> None:
            seen["hold"] = (submission, recipient, rules)

        @hookimpl
        def route(self, message: QueuedMessage, routes: tuple[RouteRule, ...]) -> None:
            seen["route"] = (message, routes)

        @hookimpl
        def retry(self, message: QueuedMessage, outcome: Outcome, now: object) -> RetryAt:
            seen["retry"] = (message, outcome, now)
            return RetryAt(NOW)

        @hookimpl
        def event(self, event: Event) -> None:
            seen["event"] = (event,)

        @hookimpl
        def format_webhook(self, event: Event, format_name: str) -> WebhookBody:
            seen["format_webhook"] = (event, format_name)
            return WebhookBody(b"{}")

        @hookimpl
        def sign_webhook(self, headers: Mapping[str, str], call: WebhookCall) -> Mapping[str, str]:
            seen["sign_webhook"] = (headers, call)
            return {**headers, "signed": "yes"}

        @hookimpl
        def receive_policy(self, reception: Reception) -> Accept:
            seen["receive_policy"] = (reception,)
            return Accept()

        @hookimpl
        def mailbox(self, reception: Reception, account: str, recipient: Address, chosen: str) -> str:
            seen["mailbox"] = (reception, account, recipient, chosen)
            return "Orders"

    hooks = load({"all": All()})
    asked = hooks.for_account("")
    submission, message, outcome, event = a_submission(), a_message(), a_failure(), an_event()
    rules, routes = (HoldRule(id=1),), (RouteRule(transport="x"),)
    assert await asked.submission(submission=submission) == submission
    assert await asked.sign(data=b"data", submission=submission) == b"data"
    await asked.hold(submission=submission, recipient=submission.login, rules=rules)
    assert await asked.route(message=message, routes=routes) == Route("rest")
    assert await asked.retry(message=message, outcome=outcome, now=NOW) == RetryAt(NOW)
    await asked.event(event=event)
    assert await asked.format_webhook(event=event, format_name="mox") == WebhookBody(b"{}")
    call = a_webhook_call()
    assert await asked.sign_webhook(headers={"a": "b"}, call=call) == {"a": "b", "signed": "yes"}
    assert await hooks.gateway.receive_policy(reception=a_reception()) == Accept()
    chosen = await asked.mailbox(
        reception=a_reception(), account="app", recipient=submission.login, chosen="Inbox"
    )
    assert chosen == "Orders"
    assert seen == {
        "submission": (submission,),
        "sign": (b"data", submission),
        "hold": (submission, submission.login, rules),
        "route": (message, routes),
        "retry": (message, outcome, NOW),
        "event": (event,),
        "format_webhook": (event, "mox"),
        "sign_webhook": ({"a": "b"}, call),
        "receive_policy": (a_reception(),),
        "mailbox": (a_reception(), "app", submission.login, "Inbox"),
    }


async def test_a_function_takes_a_subset_in_any_order() -> None:
    class Turned:
        class Settings(BaseModel):
            to: str = "here"

        @hookimpl
        async def retry(self, now: object, settings: Settings, outcome: Outcome) -> GiveUp:
            return GiveUp(f"{settings.to} {now == NOW} {outcome.code}")

    answer = await stages({"turned": Turned()}).retry(message=a_message(), outcome=a_failure(), now=NOW)
    assert answer == GiveUp("here True 451")


# --- fold ----------------------------------------------------------------------------------------


async def test_fold_hands_on_what_the_one_before_answered() -> None:
    class Header:
        def __init__(self, field: bytes) -> None:
            self.field = field

        @hookimpl(specname="sign")
        async def prepend(self, data: bytes, submission: Submission) -> bytes | None:
            return self.field + data if self.field else None

    plugins = {"one": Header(b"A: 1\r\n"), "none": Header(b""), "two": Header(b"B: 2\r\n")}
    signed = await stages(plugins).sign(data=b"Subject: hi\r\n\r\n", submission=a_submission())
    assert signed == b"B: 2\r\nA: 1\r\nSubject: hi\r\n\r\n"


async def test_a_submission_is_changed_and_refused() -> None:
    heard: list[str] = []

    class Renamed:
        @hookimpl
        def submission(self, submission: Submission) -> Submission:
            return replace(submission, extra={"by": "renamed"})

    class Refused:
        @hookimpl
        def submission(self, submission: Submission) -> Reject | None:
            heard.append(submission.extra["by"])
            return Reject(550, "5.7.1", "not today") if submission.subject == "spam" else None

    class Last:
        @hookimpl
        def submission(self) -> None:
            heard.append("last")

    asked = stages({"renamed": Renamed(), "refused": Refused(), "last": Last()})
    assert (await asked.submission(submission=a_submission())).extra == {"by": "renamed"}
    assert heard == ["renamed", "last"]
    with pytest.raises(RejectedByPlugin) as caught:
        await asked.submission(submission=a_submission(subject="spam"))
    assert heard == ["renamed", "last", "renamed"]
    rejected = caught.value
    assert (rejected.plugin, rejected.smtp_code, rejected.enhanced) == ("refused", 550, "5.7.1")
    assert str(rejected) == "plugin refused: not today"


# --- tell, all -----------------------------------------------------------------------------------


async def test_tell_reaches_everyone_whoever_fails() -> None:
    heard = []

    class Deaf:
        @hookimpl
        def event(self) -> None:
            raise ValueError("no")

    class Ears:
        @hookimpl
        async def event(self, event: Event) -> None:
            heard.append(event.name)

    plugins = {"deaf": Deaf(), "ears": Ears(), "deafer": Deaf(), "more": Ears()}
    await stages(plugins).event(event=an_event())
    assert heard == ["delivered", "delivered"]


def test_all_collects_the_types_of_transports() -> None:
    class Nothing(BaseModel):
        pass

    def make(name: str, settings: object, network: object) -> Transport:
        raise NotImplementedError

    kind = TransportType(Nothing, make)

    class Types:
        def __init__(self, *names: str) -> None:
            self.names = names

        @hookimpl
        def transports(self) -> Mapping[str, TransportType] | None:
            return dict.fromkeys(self.names, kind) if self.names else None

    hooks = load({"one": Types("direct", "smtp"), "none": Types(), "two": Types("socks")})
    assert hooks.transports == {"direct": kind, "smtp": kind, "socks": kind}
    assert hooks.gateway.has("transports")
