"""TemplateSet, TemplateList and TemplateDelete."""

from __future__ import annotations

from typing import Any

TEMPLATE = {"Name": "shipped", "Subject": "Order", "Text": "Hi {}", "HTML": "<p>Hi {}</p>"}


async def test_set_list_delete(api: Any, form: str) -> None:
    answer = await api.call("TemplateSet", TEMPLATE, form)
    assert (answer.status, answer.json) == (200, {})
    answer = await api.call("TemplateList", {}, form)
    shown = TEMPLATE | {"Engine": "jinja", "Updated": "2026-02-01T12:00:00Z"}
    assert answer.json == {"Templates": [shown], "NextCursor": ""}
    assert (await api.call("TemplateDelete", {"Name": "shipped"}, form)).json == {}
    code, message = (await api.call("TemplateDelete", {"Name": "shipped"}, form)).error
    assert (code, message) == ("notFound", "Name: there is no template 'shipped' in your account")


async def test_pages(api: Any) -> None:
    for name in ("a", "b", "c"):
        await api.call("TemplateSet", TEMPLATE | {"Name": name, "Engine": "other"})
    first = (await api.call("TemplateList", {"Max": 2})).json
    assert [t["Name"] for t in first["Templates"]] == ["a", "b"]
    assert {t["Engine"] for t in first["Templates"]} == {"other"}
    second = (await api.call("TemplateList", {"Max": 2, "Cursor": first["NextCursor"]})).json
    assert ([t["Name"] for t in second["Templates"]], second["NextCursor"]) == (["c"], "")
    for maximum in (-1, 101):
        assert (await api.call("TemplateList", {"Max": maximum})).error[0] == "user"
    api.login = "bea@example.org"
    assert (await api.call("TemplateList", {})).json["Templates"] == []


async def test_refusals(api: Any) -> None:
    assert (await api.call("TemplateSet", {"Name": "x"})).error[0] == "missingBody"
    assert (await api.call("TemplateSet", TEMPLATE | {"Body": "x"})).error[0] == "protocol"
