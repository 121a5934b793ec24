"""Whose set is asked, and with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel, ConfigDict, field_validator
from trio.testing import MockClock

from gateway import Accept, ConfigPath, PluginError, Route, hookimpl
from gateway.errors import ConfigError
from gateway.hooks.stages import Hooks
from tests.hooks.helpers import HERE, a_message, a_reception, a_submission, load


class Nested(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    one: int = 1
    two: int = 2


class Choose:
    """Routes to what its settings say."""

    class Settings(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
        to: str = "by default"
        nested: Nested = Nested()
        key: ConfigPath | None = None

        @field_validator("to")
        @classmethod
        def _no_pigeons(cls, value: str) -> str:
            if value == "pigeon":
                raise ValueError("pigeons are no transport; name another")
            if value == "crash":
                raise KeyError(value)
            return value

    @hookimpl
    async def route(self, settings: Settings) -> Route:
        return Route(f"{settings.to} {settings.nested.one} {settings.nested.two}")

    @hookimpl(specname="receive_policy")
    def policy(self, settings: Settings) -> Accept:
        self.seen = settings
        return Accept()


async def routed(hooks: Hooks, account: str) -> str:
    route = await hooks.for_account(account).route(message=a_message(), routes=())
    assert route is not None
    return route.transport


def accounts(**given: dict[str, Any]) -> dict[str, Any]:
    return {
        "accounts": {
            name: {"addresses": [f"{name}@example.org"], **settings} for name, settings in given.items()
        }
    }


ORG: dict[str, Any] = {"domains": {"example.org": {}}}


# --- Sets ----------------------------------------------------------------------------------------


def fixed(transport: str) -> object:
    class Fixed:
        @hookimpl
        def route(self) -> Route:
            return Route(transport)

    return Fixed()


async def test_the_account_s_set_then_the_domain_s_then_the_gateway_s() -> None:
    hooks = load(
        {name: fixed(name) for name in ("ours", "theirs", "mine")},
        {
            "domains": {"example.org": {"plugin_set": "domain"}, "example.net": {}},
            **accounts(
                app={"plugin_set": "account"},
                plain={},
                other={"addresses": ["other@example.net", "second@example.org"]},
            ),
        },
        sets={"test": ["ours"], "domain": ["theirs"], "account": ["mine"]},
    )
    assert await routed(hooks, "app") == "mine"
    assert await routed(hooks, "plain") == "theirs"
    assert await routed(hooks, "other") == "ours"  # as its first address's domain has it
    assert await routed(hooks, "unknown") == "ours"
    assert await routed(hooks, "") == "ours"


async def test_the_gateway_runs_with_several_sets_in_order() -> None:
    hooks = load(
        {name: fixed(name) for name in ("a", "b", "c")},
        {"plugins": {"sets": ["second", "first"]}},
        sets={"first": ["a", "b"], "second": ["c", "a"]},
    )
    assert hooks.for_account("").plugins("route") == ("c", "a", "rest", "b")


async def test_sets_include_others_and_leave_some_out() -> None:
    config = {
        "plugin_sets": {
            "test": {"include": ["one", "two"], "without": ["b", "a"], "plugins": ["d", "a"]},
            "one": {"plugins": ["a", "b"]},
            "two": {"plugins": ["b", "c", "rest"]},
        }
    }
    hooks = load({name: fixed(name) for name in "abcd"}, config, sets={})
    assert hooks.for_account("").plugins("route") == ("c", "rest", "d", "a")


async def test_gateway_scope_is_never_the_account_s(caplog: pytest.LogCaptureFixture) -> None:
    hooks = load(
        {"choose": Choose()},
        {**ORG, **accounts(app={"plugin_set": "account"})},
        sets={"test": [], "account": ["choose"]},
    )
    assert await hooks.gateway.receive_policy(reception=a_reception()) is None
    assert caplog.messages == [
        "plugin 'choose': receive_policy is not called, because no set of plugins.sets has the plugin"
    ]


# --- Settings ------------------------------------------------------------------------------------


async def test_settings_are_the_account_s_over_the_plugin_s() -> None:
    config = {
        **ORG,
        "plugin": {"choose": {"to": "all", "nested": {"one": 10}}},
        **accounts(app={"plugin": {"choose": {"to": "app", "nested": {"two": 20}}}}, plain={}),
    }
    plugin = Choose()
    hooks = load({"choose": plugin}, config)
    assert await routed(hooks, "app") == "app 10 20"
    assert await routed(hooks, "plain") == "all 10 2"
    assert await hooks.gateway.receive_policy(reception=a_reception()) == Accept()
    assert plugin.seen.to == "all"


async def test_an_account_keeps_its_settings_in_every_set() -> None:
    config = {
        "domains": {"example.org": {"plugin_set": "domain"}},
        **accounts(
            app={"plugin": {"choose": {"to": "app"}}},
            own={"plugin": {"choose": {"to": "own"}}, "plugin_set": "mine"},
        ),
    }
    sets = {"test": ["choose"], "domain": ["fixed"], "mine": ["choose"]}
    hooks = load({"choose": Choose(), "fixed": fixed("fixed")}, config, sets=sets)
    assert await routed(hooks, "app") == "fixed"
    assert await routed(hooks, "own") == "own 1 2"


async def test_what_only_accounts_set_need_not_be_set_for_all() -> None:
    class Needs:
        class Settings(BaseModel):
            to: str

        @hookimpl
        def route(self, settings: Settings) -> Route:
            return Route(settings.to)

    own = {"plugin": {"needs": {"to": "app"}}, "plugin_set": "mine"}
    config = {**ORG, **accounts(app=own)}
    plugins = {"needs": Needs()}
    assert await routed(load(plugins, config, sets={"test": [], "mine": ["needs"]}), "app") == "app"
    with pytest.raises(ConfigError, match=r"^plugin\.needs\.to: is missing; add it$"):
        load(plugins, config, sets={"test": ["needs"], "mine": ["needs"]})
    config = {**ORG, **accounts(app=own, other={"plugin_set": "mine"})}
    with pytest.raises(ConfigError, match=r"^plugin\.needs\.to: is missing; add it$"):
        load(plugins, config, sets={"test": [], "mine": ["needs"]})


async def test_paths_are_relative_to_the_configuration_file() -> None:
    for given, path in [("keys/dkim.pem", HERE / "keys/dkim.pem"), ("/srv/dkim.pem", Path("/srv/dkim.pem"))]:
        plugin = Choose()
        hooks = load({"choose": plugin}, {"plugin": {"choose": {"key": given}}})
        await hooks.gateway.receive_policy(reception=a_reception())
        assert plugin.seen.key == path
    assert Choose.Settings(key=Path("keys")).key == Path("keys")


MEANT = "did you mean 'route'? (it has: receive_policy, route)"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"to": "pigeon"}, ".to: pigeons are no transport; name another"),
        ({"to": 3}, ".to: Input should be a valid string (it is 3)"),
        (
            {"nested": {"one": "x"}},
            ".nested.one: Input should be a valid integer, unable to parse string as an integer (it is 'x')",
        ),
        ({"too": "x"}, ".too: there is no such setting; did you mean 'to'?"),
        ({"to": "crash"}, ": cannot be read by plugin 'choose': KeyError: 'crash'"),
        (
            {"limits": {"rout": 1}},
            f".limits.rout: plugin 'choose' has no hook 'rout'; {MEANT}",
        ),
        ({"limits": {"route": 0}}, ".limits.route: must be a number of seconds above 0, not 0"),
        ({"limits": {"route": True}}, ".limits.route: must be a number of seconds above 0, not True"),
        ({"limits": {"route": float("inf")}}, ".limits.route: must be a number of seconds above 0, not inf"),
        ({"limits": 3}, ".limits: must be a table with a plugin's hooks as keys, not 3"),
        (
            {"on_error": {"route": "ignore"}},
            ".on_error.route: must be 'defer' or 'fallback' or 'skip', not 'ignore'",
        ),
        (
            {"on_error": {"route": ["skip"]}},
            ".on_error.route: must be 'defer' or 'fallback' or 'skip', not ['skip']",
        ),
    ],
)
def test_settings_that_are_wrong(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"choose": Choose()}, {"plugin": {"choose": table}})
    assert str(caught.value) == f"plugin.choose{message}"
    config = {**ORG, **accounts(app={"plugin": {"choose": table}})}
    with pytest.raises(ConfigError) as caught:
        load({"choose": Choose()}, config)
    assert str(caught.value) == f"accounts.app.plugin.choose{message}"


def test_the_place_of_a_plugin_with_a_dot_is_as_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r'^plugin\."acme\.choose"\.to: pigeons'):
        load({"acme.choose": Choose()}, {"plugin": {"acme.choose": {"to": "pigeon"}}})


def test_nothing_after_the_hand_over_defers() -> None:
    config = {"plugin": {"rest": {"on_error": {"retry": "defer"}}}}
    with pytest.raises(ConfigError) as caught:
        load({}, config)
    assert str(caught.value) == "plugin.rest.on_error.retry: must be 'fallback' or 'skip', not 'defer'"


def test_settings_for_a_plugin_that_has_none() -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {"plugin": {"rest": {"speed": 3}}})
    assert str(caught.value) == "plugin.rest.speed: plugin 'rest' has no settings; remove it"


def test_settings_that_nobody_reads_are_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    config = {
        **ORG,
        "plugin": {"other": {"x": 1}, "acme": {"choose": {}}},
        **accounts(app={"plugin": {"another": {}}}),
    }
    load({"acme.choose": Choose()}, config)
    assert caplog.messages == [
        "plugin.other: no plugin set in use has this plugin",
        (
            "plugin.acme: no plugin set in use has this plugin;"
            " for 'acme.choose', write [plugin.\"acme.choose\"]"
        ),
        "accounts.app.plugin.another: no plugin set in use has this plugin",
    ]


# --- Limits and policies -------------------------------------------------------------------------


class Slow:
    @hookimpl
    async def sign(self, data: bytes) -> bytes:
        await trio.sleep(3)
        return data + b"!"


async def test_limits_and_policies_can_be_an_account_s(autojump_clock: MockClock) -> None:
    config = {
        **ORG,
        "plugin": {"slow": {"limits": {"sign": 2}}},
        **accounts(
            patient={"plugin": {"slow": {"limits": {"sign": 4}}}},
            careless={"plugin": {"slow": {"on_error": {"sign": "skip"}}}},
        ),
    }
    hooks = load({"slow": Slow()}, config)
    submission = a_submission()
    with pytest.raises(PluginError, match="no answer in 2 s"):
        await hooks.for_account("").sign(data=b"x", submission=submission)
    assert await hooks.for_account("careless").sign(data=b"x", submission=submission) == b"x"
    assert trio.current_time() == 4
    assert await hooks.for_account("patient").sign(data=b"x", submission=submission) == b"x!"


def test_a_limit_without_effect_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    load({}, {"plugin": {"rest": {"limits": {"retry": 1}}}})
    assert caplog.messages == [
        "plugin.rest.limits.retry: has no effect, because the plugin's function is neither async nor threaded"
    ]
