"""What is refused when plugins are loaded: one line each, with what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import pluggy
import pytest
from prometheus_client import Counter, Metric
from pydantic import BaseModel

from gateway import Collector, Route, Transport, TransportType, WebhookBody, hookimpl
from gateway.errors import ConfigError
from tests.hooks.helpers import load

NAMED = "name the arguments that it needs, of message, routes, settings"
HOOKS = (
    "template_engines, submission, sign, hold, base_address, suppressed, route, transports, around_attempt,"
    " shape, classify_outcome, retry, suppress, read_report, match_report, event, format_webhook,"
    " sign_webhook, around_webhook, receive_policy, mailbox, authenticate, api_methods, pages, commands,"
    " metrics, services, content_store, start, stop"
)


class UnknownHook:
    @hookimpl
    def rout(self) -> None: ...


class FarHook:
    @hookimpl
    def on_monday(self) -> None: ...


class UnknownArgument:
    @hookimpl
    def route(self, mesage: object) -> None: ...


class FarArgument:
    @hookimpl
    def hold(self, zzz: object = None) -> None: ...


class Starred:
    @hookimpl
    def route(self, *args: object) -> None: ...


class DoublyStarred:
    @hookimpl
    def route(self, message: object, **rest: object) -> None: ...


class KeywordOnly:
    @hookimpl
    def route(self, *, message: object) -> None: ...


class Wrapper:
    @hookimpl(wrapper=True)
    def route(self) -> Iterator[None]:
        yield


class HookWrapper:
    @hookimpl(hookwrapper=True)
    def route(self) -> Iterator[None]:
        yield


class First:
    @hookimpl(tryfirst=True)
    def route(self) -> None: ...


class Last:
    @pluggy.HookimplMarker("gateway")(trylast=True)
    def route(self) -> None: ...


class Generator:
    @hookimpl
    def route(self) -> Iterator[None]:
        yield


class Undecorated:
    @hookimpl
    async def around_attempt(self) -> AsyncIterator[None]:
        yield


class AsyncTransports:
    @hookimpl
    async def transports(self) -> None: ...


class AsyncInThread:
    @hookimpl(thread=True)
    async def route(self) -> None: ...


class AroundInThread:
    @hookimpl(thread=True)
    def around_attempt(self) -> None: ...


class NoLimit:
    @hookimpl(limit=0)
    async def route(self) -> None: ...


class WithoutModel:
    @hookimpl
    def route(self, settings: object) -> None: ...


class NotAModel:
    class Settings:
        pass

    @hookimpl
    def route(self) -> None: ...


class TakenName:
    class Settings(BaseModel):
        limits: int = 0

    @hookimpl
    def route(self) -> None: ...


class NoHooks:
    def route(self) -> None: ...


class NeedsArguments:
    def __init__(self, x: int) -> None: ...

    @hookimpl
    def route(self) -> None: ...


class RefusesToRegister:
    @hookimpl
    def transports(self) -> None:
        raise OSError("no such directory")


REFUSES_AT = f"{__file__}, line {RefusesToRegister.transports.__code__.co_firstlineno + 2}"


class StrangeSettings:
    @hookimpl
    def transports(self) -> Any:
        return {"drop": TransportType(dict, lambda *_: None)}  # type: ignore[arg-type]


class StrangeMaker:
    @hookimpl
    def transports(self) -> Any:
        return {"drop": TransportType(BaseModel, "make")}  # type: ignore[arg-type]


class StrangeTransports:
    @hookimpl
    def transports(self) -> Any:
        return {"x": 1}


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (UnknownHook, f": there is no hook 'rout'; did you mean 'route'? (the hooks are: {HOOKS})"),
        (FarHook, f": there is no hook 'on_monday'; the hooks are: {HOOKS}"),
        (
            UnknownArgument,
            (
                ", hook 'route': there is no argument 'mesage';"
                " did you mean 'message'? (it can take: message, routes, settings)"
            ),
        ),
        (
            FarArgument,
            ", hook 'hold': there is no argument 'zzz'; it can take: submission, recipient, rules, settings",
        ),
        (
            Starred,
            f", hook 'route': takes *args; {NAMED}",
        ),
        (
            DoublyStarred,
            f", hook 'route': takes **rest; {NAMED}",
        ),
        (KeywordOnly, ", hook 'route': argument 'message' is keyword-only; make it an ordinary one"),
        (
            Wrapper,
            ", hook 'route': pluggy's wrappers are not supported; make it an ordinary function",
        ),
        (
            HookWrapper,
            ", hook 'route': pluggy's wrappers are not supported; make it an ordinary function",
        ),
        (First, ", hook 'route': tryfirst and trylast are not supported; the order is the plugin set's"),
        (Last, ", hook 'route': tryfirst and trylast are not supported; the order is the plugin set's"),
        (Generator, ", hook 'route': is a generator function; use return, not yield"),
        (
            Undecorated,
            (
                ", hook 'around_attempt': is a generator function;"
                " decorate it with contextlib.asynccontextmanager"
            ),
        ),
        (
            AsyncTransports,
            ", hook 'transports': must not be async, because it is called while loading; make it a plain def",
        ),
        (AsyncInThread, ", hook 'route': thread=True is not for an async function; remove it"),
        (AroundInThread, ", hook 'around_attempt': thread=True is not for this hook; remove it"),
        (NoLimit, ", hook 'route': limit must be a number of seconds above 0, not 0"),
        (
            WithoutModel,
            ", hook 'route': takes settings, but the plugin has no model for them; add a class Settings",
        ),
        (NotAModel, ": Settings must be a subclass of pydantic.BaseModel"),
        (TakenName, ": Settings has a field 'limits', which is the gateway's; rename it"),
        (NoHooks, ": has no hooks; mark its functions with @gateway.hookimpl"),
        (None, ": has no hooks; mark its functions with @gateway.hookimpl"),
        (
            NeedsArguments,
            (
                ": cannot be made: TypeError: NeedsArguments.__init__()"
                " missing 1 required positional argument: 'x'; repair it"
            ),
        ),
        (
            RefusesToRegister,
            (
                f", hook 'transports': raised OSError: no such directory ({REFUSES_AT});"
                " repair it, or take it out of the plugin sets"
            ),
        ),
        (
            StrangeSettings,
            (
                ", hook 'transports': answered a TransportType 'drop' whose settings are no subclass of"
                " pydantic.BaseModel; expected Mapping or None; repair it, or take it out of the plugin sets"
            ),
        ),
        (
            StrangeMaker,
            (
                ", hook 'transports': answered a TransportType 'drop' whose make cannot be called;"
                " expected Mapping or None; repair it, or take it out of the plugin sets"
            ),
        ),
        (
            StrangeTransports,
            (
                ", hook 'transports': answered a Mapping with str: int in place of str: TransportType;"
                " expected Mapping or None; repair it, or take it out of the plugin sets"
            ),
        ),
    ],
)
def test_a_plugin_that_is_wrong(plugin: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"acme.bad": plugin})
    assert str(caught.value) == f"plugin 'acme.bad'{message}"


def test_two_plugins_with_one_transport_type() -> None:
    class Nothing(BaseModel):
        pass

    def make(name: str, settings: object, network: object) -> Transport:
        raise NotImplementedError

    class Direct:
        @hookimpl
        def transports(self) -> Mapping[str, TransportType]:
            return {"direct": TransportType(Nothing, make)}

    with pytest.raises(ConfigError) as caught:
        load({"one": Direct(), "two": Direct()})
    assert str(caught.value) == (
        "plugin 'two', hook 'transports': plugin 'one' has the transport type 'direct' too;"
        " take one of them out of the plugin sets"
    )


class Unsteady:
    def describe(self) -> Iterator[Metric]:
        raise RuntimeError("no")

    def collect(self) -> Iterator[Metric]:
        yield from ()


@pytest.mark.parametrize(
    ("collectors", "message"),
    [
        (
            [Counter("acme_jokes", "Jokes.", registry=None)] * 2,
            "plugin 'one' has the metric 'acme_jokes' too; take one of them out of the plugin sets",
        ),
        (
            [
                Counter("acme_jokes", "Jokes.", registry=None),
                Counter("gateway_jokes", "Jokes.", registry=None),
            ],
            "the metric 'gateway_jokes' begins as the gateway's own; choose another name",
        ),
        (
            [Counter("acme_jokes", "Jokes.", registry=None), Unsteady()],
            "a collector's describe raised RuntimeError: no; repair it",
        ),
    ],
)
def test_metrics_that_would_spoil_others(collectors: list[Collector], message: str) -> None:
    class Counts:
        def __init__(self, collector: Collector) -> None:
            self._collector = collector

        @hookimpl
        def metrics(self) -> Sequence[Collector]:
            return [self._collector]

    one, two = collectors
    with pytest.raises(ConfigError) as caught:
        load({"one": Counts(one), "two": Counts(two)})
    assert str(caught.value) == f"plugin 'two', hook 'metrics': {message}"


def test_a_hook_that_this_version_lacks_may_be_optional() -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def on_full_moon(self) -> None: ...

        @hookimpl
        def route(self) -> None: ...

    assert load({"newer": Newer()}).for_account("").plugins("route") == ("newer", "rest")


def test_plugins_that_compare_equal_are_two() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        @hookimpl
        def route(self) -> None: ...

    assert load({"one": Equal(), "two": Equal()}).for_account("").plugins("route") == (
        "one",
        "two",
        "rest",
    )


# --- Sets ----------------------------------------------------------------------------------------


class Routes:
    @hookimpl
    def route(self) -> Route: ...  # type: ignore[empty-body]


class Formats:
    @hookimpl
    def format_webhook(self) -> WebhookBody: ...  # type: ignore[empty-body]


NOT_INSTALLED = "no plugin 'rests' is installed; did you mean 'rest'? (installed are: "


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"plugins": {"sets": ["tset"]}},
            (
                "plugins.sets: there is no plugin set 'tset'; did you mean 'test'?"
                " (there are: default, mox, test)"
            ),
        ),
        (
            {"plugins": {"sets": [""]}},
            "plugins.sets: there is no plugin set ''; there are: default, mox, test",
        ),
        (
            {"domains": {"example.org": {"plugin_set": "zz"}}},
            "domains.\"example.org\".plugin_set: there is no plugin set 'zz'; there are: default, mox, test",
        ),
        (
            {
                "domains": {"example.org": {}},
                "accounts": {"app": {"addresses": ["app@example.org"], "plugin_set": "zz"}},
            },
            "accounts.app.plugin_set: there is no plugin set 'zz'; there are: default, mox, test",
        ),
        (
            {"plugin_sets": {"mine": {"include": ["defualt"]}}},
            (
                "plugin_sets.mine.include: there is no plugin set 'defualt';"
                " did you mean 'default'? (there are: default, mox, test, mine)"
            ),
        ),
        (
            {"plugin_sets": {"mine": {"include": ["test"], "without": ["rset"]}}},
            (
                "plugin_sets.mine.without: 'rset' is in none of the included sets;"
                " did you mean 'rest'? (these are: rest)"
            ),
        ),
        (
            {"plugin_sets": {"default": {"include": ["default"]}}},
            "plugin_sets.default.include: goes in a circle: default → default; take one out",
        ),
        (
            {"plugin_sets": {"a": {"include": ["b"]}, "b": {"include": ["c"]}, "c": {"include": ["b"]}}},
            "plugin_sets.c.include: goes in a circle: b → c → b; take one out",
        ),
        (
            {"plugins": {"sets": []}},
            (
                "plugins.sets: none of its plugins has the hook 'transports', which is necessary;"
                " add one that has"
            ),
        ),
    ],
)
def test_sets_that_are_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, config)
    assert str(caught.value) == message


@pytest.mark.parametrize("place", ["plugins.sets", "plugin_sets.mine"])
def test_a_set_that_names_what_is_not_installed(place: str) -> None:
    sets: dict[str, Any] = {"mine": {"plugins": ["rests"]}}
    config: dict[str, Any] = {"plugin_sets": sets, "domains": {"example.org": {"plugin_set": "mine"}}}
    if place == "plugins.sets":
        config = {"plugin_sets": sets, "plugins": {"sets": ["test", "mine"]}}
    with pytest.raises(ConfigError) as caught:
        load({}, config)
    assert str(caught.value).startswith(f"{place}: {NOT_INSTALLED}")


@pytest.mark.parametrize(
    ("plugins", "hook"), [([], "route"), (["routes"], "retry"), (["routes", "formats"], "retry")]
)
def test_a_set_that_leaves_a_necessary_stage_empty(plugins: list[str], hook: str) -> None:
    config = {
        "plugin_sets": {"mine": {"plugins": plugins}},
        "domains": {"example.org": {"plugin_set": "mine"}},
    }
    extra: Mapping[str, Callable[[], object]] = {"routes": Routes, "formats": Formats}
    with pytest.raises(ConfigError) as caught:
        load(extra, config, sets={"test": []})
    assert str(caught.value) == (
        f"plugin_sets.mine: none of its plugins has the hook {hook!r}, which is necessary; add one that has"
    )


def test_a_set_that_nobody_uses_may_name_anything() -> None:
    load({}, {"plugin_sets": {"later": {"plugins": ["not.yet.there"]}}})
