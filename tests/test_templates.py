"""Templates kept and rendered, with a real store and real worker processes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Rendered, Template
from gateway.clock import ManualClock
from gateway.errors import PluginError, SubmissionRefused
from gateway.hooks.calls import Calls
from gateway.offload import Offload
from gateway.store.store import Store
from gateway.templates import MAX_RENDERED, MAX_SIZE, Templates
from gateway_jinja.engine import jinja

SHIPPED = Template(name="shipped", engine="jinja", subject="Order {{ order }}", text="Hi {{ name }}", html="")


def broken(template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
    raise RuntimeError("no engine")


CALLS = Calls()


def silly(template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
    return lambda variables: "nonsense"  # type: ignore[return-value]


def large(template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
    return lambda variables: Rendered(subject="", text="x" * (MAX_RENDERED + 1), html="")


@pytest.fixture
async def templates(tmp_path: Path) -> AsyncIterator[Templates]:
    clock = ManualClock()
    engines = {"jinja": jinja, "broken": broken, "silly": silly, "large": large}
    async with Store.open(tmp_path, clock) as store, Offload.open(limit=3.0) as offload:
        of_plugin = {name: ("a.plugin", engine) for name, engine in engines.items()}
        yield Templates(store, clock, of_plugin, offload, CALLS)


async def refused(doing: Any) -> str:
    with pytest.raises(SubmissionRefused) as caught:
        await doing
    assert caught.value.code in ("user", "missingBody")
    return str(caught.value)


async def test_kept_by_account_and_name(templates: Templates) -> None:
    await templates.put("ann", SHIPPED)
    await templates.put("ann", replace(SHIPPED, name="paid"))
    await templates.put("bea", replace(SHIPPED, text="Bea's"))
    await templates.put("ann", replace(SHIPPED, text="new"))
    page, cursor = await templates.page("ann", "", 1)
    assert ([stored.template.name for stored in page], cursor) == (["paid"], "paid")
    page, cursor = await templates.page("ann", cursor, 1)
    assert ([stored.template for stored in page], cursor) == ([replace(SHIPPED, text="new")], "")
    assert await templates.remove("ann", "shipped")
    assert not await templates.remove("ann", "shipped")
    assert "no template 'shipped'" in await refused(templates.render("ann", "shipped", [{}]))
    [rendered] = await templates.render("bea", "shipped", [{"order": 1}])
    assert rendered.text == "Bea's"


async def test_rendered_for_each(templates: Templates) -> None:
    await templates.put("ann", SHIPPED)
    rendered = await templates.render("ann", "shipped", [{"order": n, "name": f"n{n}"} for n in range(250)])
    assert [one.text for one in rendered] == [f"Hi n{n}" for n in range(250)]
    said = await refused(templates.render("ann", "shipped", [{"order": 1}]))
    assert said == "template 'shipped', Text, line 1: 'name' is undefined"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "Name: must be 1 to 100"),
        ({"name": "a b"}, "Name: must be 1 to 100"),
        ({"name": "a" * 101}, "Name: must be 1 to 100"),
        ({"text": ""}, "needs Text or HTML"),
        ({"text": "x" * MAX_SIZE}, f"more than {MAX_SIZE} characters together"),
        ({"text": "a\0b"}, "U+0000"),
        ({"text": "{{ oops"}, "template 'shipped', Text, line 1: "),
        ({"engine": "mustache"}, "Engine: there is no 'mustache'; there are: broken, jinja, large, silly"),
    ],
)
async def test_what_is_not_kept(templates: Templates, change: dict[str, str], said: str) -> None:
    assert said in await refused(templates.put("ann", replace(SHIPPED, **change)))
    assert await templates.page("ann", "", 10) == ((), "")


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ (order + 9) ** (order * 1000000000) }}",
    ],
)
async def test_what_never_ends_is_ended_and_the_loop_goes_on(templates: Templates, source: str) -> None:
    await templates.put("ann", replace(SHIPPED, text=source))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.sleep(0.01)
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        said = await refused(templates.render("ann", "shipped", [{"order": 1}]))
        nursery.cancel_scope.cancel()
    assert said.startswith("template 'shipped': takes too much time or memory")
    assert turns > 20
    await templates.put("ann", SHIPPED)  # the next worker is well


async def test_memory_is_bounded(templates: Templates) -> None:
    await templates.put("ann", replace(SHIPPED, text="{{ 'x' * 10 ** 11 }}"))
    assert "MemoryError" in await refused(templates.render("ann", "shipped", [{"order": 1}]))


async def test_a_plugins_faults_are_its_own(templates: Templates, caplog: pytest.LogCaptureFixture) -> None:
    before = CALLS["a.plugin", "template_engines"].failures
    named = r"plugin 'a\.plugin', template engine 'broken': raised RuntimeError: no engine"
    with pytest.raises(PluginError, match=named):
        await templates.put("ann", replace(SHIPPED, engine="broken"))
    assert re.search(named, caplog.text)
    await templates.put("ann", replace(SHIPPED, engine="silly"))
    with pytest.raises(PluginError, match="answered str, not Rendered"):
        await templates.render("ann", "shipped", [{}])
    await templates.put("ann", replace(SHIPPED, engine="large"))
    assert "more than" in await refused(templates.render("ann", "shipped", [{}]))
    assert CALLS["a.plugin", "template_engines"].failures == before + 2  # not the template's own
