"""Plugins are found by entry point, and only those in use are imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sets import plugin_sets
from gateway.errors import ConfigError
from gateway.hooks.stages import Hooks
from gateway.plugins.loading import installed, load_plugins
from tests.hooks.helpers import HERE, Rest, a_message, configured

MODULE = """
from gateway import Route, hookimpl
@hookimpl
def route(message):
    return Route({!r})
"""
ROUTE = MODULE.format("x")
CLASS = """
from gateway import Route, hookimpl
class Plugin:
    @hookimpl
    def route(self):
        return Route(type(self).__name__)
made = Plugin()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed distributions."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def install(site: Path, name: str, version: str, entry_points: dict[str, str], **modules: str) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{plugin} = {value}" for plugin, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mail_gateway]", *lines, ""]))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def load(*plugins: str, extra: dict[str, Any] | None = None) -> Hooks:
    return load_plugins(configured({"test": list(plugins)}), HERE, extra={"rest": Rest(), **(extra or {})})


async def routed(hooks: Hooks) -> str:
    route = await hooks.for_account("").route(message=a_message(), routes=())
    assert route is not None
    return route.transport


async def test_a_module_a_class_and_an_object(site: Path) -> None:
    entry_points = {"acme.module": "acme_m", "acme.class": "acme_c:Plugin", "acme.object": "acme_c:made"}
    install(site, "acme", "1.2", entry_points, acme_m=MODULE.format("module"), acme_c=CLASS)
    assert await routed(load("acme.module", "acme.class")) == "module"
    assert await routed(load("acme.class", "acme.module")) == "Plugin"
    assert await routed(load("acme.object")) == "Plugin"
    assert load(*entry_points).for_account("").plugins("route") == (*entry_points, "rest")

    ours = [p for p in installed() if p.name.startswith("acme.")]
    assert [(p.name, p.distribution, p.version, p.value) for p in ours] == [
        ("acme.class", "acme", "1.2", "acme_c:Plugin"),
        ("acme.module", "acme", "1.2", "acme_m"),
        ("acme.object", "acme", "1.2", "acme_c:made"),
    ]


def test_what_no_set_in_use_names_is_not_imported(site: Path) -> None:
    install(
        site, "acme", "1.2", {"acme.used": "acme_u", "acme.unused": "acme_x"}, acme_u=ROUTE, acme_x="1 / 0"
    )
    load("acme.used")
    assert "acme_u" in sys.modules
    assert "acme_x" not in sys.modules


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax (acme_m.py, line 1)"),
        (
            "from gateway import hookimpl\n@hookimpl(first=True)\ndef route(): ...",
            "TypeError: HookimplMarker.__call__() got an unexpected keyword argument 'first'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported(site: Path, source: str, problem: str) -> None:
    install(site, "acme", "1.2", {"acme.bad": "acme_m"}, acme_m=source)
    with pytest.raises(ConfigError) as caught:
        load("acme.bad")
    assert str(caught.value) == (
        f"plugin 'acme.bad' (acme 1.2): cannot be imported: {problem};"
        " repair it, or take it out of the plugin sets"
    )


def test_two_distributions_with_plugins_of_one_name(site: Path) -> None:
    install(site, "acme", "1.2", {"acme.route": "acme_m", "acme.fine": "acme_m"}, acme_m=ROUTE)
    install(site, "clone", "0.1", {"acme.route": "clone_m"}, clone_m=ROUTE)
    load("acme.fine")
    with pytest.raises(ConfigError) as caught:
        load("acme.route")
    assert str(caught.value) in [
        f"plugin 'acme.route': {both} both have a plugin of this name; remove one of them"
        for both in ("acme 1.2 and clone 0.1", "clone 0.1 and acme 1.2")
    ]


async def test_a_plugin_that_is_given_stands_in_for_an_installed_one(site: Path) -> None:
    install(site, "acme", "1.2", {"acme.route": "acme_m"}, acme_m="1 / 0")

    class StandIn(Rest):
        pass

    assert await routed(load("acme.route", extra={"acme.route": StandIn()})) == "rest"
    assert "acme_m" not in sys.modules


def test_the_built_in_sets() -> None:
    sets = plugin_sets(configured({}))
    assert sets == {
        name: (
            "jinja",
            "dkim",
            "mox.hold",
            "mox.base_address",
            "mox.suppressed",
            "mox.routing",
            retry,
            "mox.suppress",
            "reports.arf",
            "reports.rfc3464",
            "reports.amazon",
            "reports.automatic",
            "reports.sendmail",
            "reports.exchange",
            "reports.qmail",
            "reports.exim",
            "reports.forwarded",
            "reports.text",
            "mox.fromid",
            "mox.envid",
            "mox.messageid",
            "mox.receive",
            "mox.mailbox",
            "mox.webhook",
            "formats.cloudevents",
            "formats.postmark",
            "formats.mailgun",
            "signing",
            "limits",
            "direct",
            "smtp",
            "fail",
        )
        for name, retry in (("default", "retry"), ("mox", "mox.retry"))
    }
    replaced = plugin_sets(configured({"mox": ["a"]}))
    assert replaced == {**sets, "mox": ("a", "rest")}
