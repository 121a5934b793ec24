"""The pages about the API."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.web.api.methods import METHODS
from gateway.web.app import WebApp

BASE = "/webapi/v0/"


async def get(api: Any, path: str, **headers: str) -> Any:
    return await api.asgi("GET", path, {k.replace("_", "-"): v for k, v in headers.items()})


def element(page: bytes, name: str) -> str:
    """The text of the element with this id."""
    match = re.search(rf'<(\w+)[^>]* id="{name}"[^>]*>(.*?)</\1>', page.decode(), re.DOTALL)
    assert match is not None
    return html.unescape(match[2].removeprefix("\n"))


async def test_redirect_to_the_version(api: Any) -> None:
    answer = await get(api, "/webapi/")
    assert (answer.status, answer.headers["location"]) == (303, BASE)


async def test_home_and_list_link_to_what_there_is(api: Any) -> None:
    home = await get(api, "/")
    assert home.status == 200
    assert f'href="{BASE}"' in home.body.decode()
    listed = await get(api, BASE)
    assert listed.status == 200
    for name, method in METHODS.items():
        assert f'href="{BASE}{name}"' in listed.body.decode()
        assert html.escape(method.summary) in listed.body.decode().replace("&#39;", "&#x27;")


async def test_the_page_about_webhooks_is_linked_to(api: Any) -> None:
    for linking in ("/", BASE):
        assert f'href="{BASE}webhooks"' in (await get(api, linking)).body.decode()
    page = await get(api, BASE + "webhooks")
    assert page.status == 200
    assert f'data-api="{BASE}"' in page.body.decode()


@pytest.mark.parametrize("name", list(METHODS))
async def test_method_page(api: Any, name: str) -> None:
    page = await get(api, BASE + name)
    assert page.status == 200
    method = METHODS[name]
    assert json.loads(element(page.body, "request")) == method.example_request
    assert f'action="{BASE}{name}"' in page.body.decode()
    shown = element(page.body, "example")
    if isinstance(method.example_response, str):
        assert shown == method.example_response
    else:
        assert json.loads(shown) == json.loads(method.example_response.model_dump_json())


@pytest.mark.parametrize("name", list(METHODS))
async def test_the_curl_command_works_as_pasted(api: Any, name: str) -> None:
    page = await get(api, BASE + name, Host="mail.example.org:8080")
    command = shlex.split(element(page.body, "curl").replace("\\\n", ""))
    assert command[:2] == ["curl", "--user"]
    assert command[3] == "--data-urlencode"
    field, _, request = command[4].partition("=")
    assert command[5:] == [f"http://mail.example.org:8080{BASE}{name}"]
    # What curl would send.
    answer = await api.raw(name, "application/x-www-form-urlencoded", urlencode({field: request}).encode())
    assert answer.status == 200 or answer.error[0] in ("messageNotFound", "notFound")


@pytest.mark.parametrize(
    "host", ["evil.example'; rm -rf ~ #", "a b", "$(id)", "x" * 300, "a\nb", "[::1]x", "a:b"]
)
async def test_a_host_that_is_none_is_not_shown(api: Any, host: str) -> None:
    page = await get(api, BASE + "Send", Host=host)
    assert page.status == 400
    assert host not in page.body.decode()


@pytest.mark.parametrize(
    ("host", "proto"), [("[::1]:8080", ""), ("mail.example.org", "https"), ("a.example", "x")]
)
async def test_host_and_scheme(api: Any, host: str, proto: str) -> None:
    page = await get(api, BASE + "Send", Host=host, X_Forwarded_Proto=proto)
    scheme = proto if proto == "https" else "http"
    assert f"{scheme}://{host}{BASE}Send" in element(page.body, "curl")


async def test_whose_login_is_shown(api: Any) -> None:
    async def user(**headers: str) -> str:
        page = await get(api, BASE + "Send", **headers)
        return shlex.split(element(page.body, "curl").replace("\\\n", ""))[2]

    def basic(name: str) -> str:
        return "Basic " + base64.b64encode(f"{name}:hunter2".encode()).decode()

    assert await user() == "you@example.org"
    assert await user(Authorization=basic("ann@example.org")) == "ann@example.org"
    assert await user(Authorization=basic("a'b\"<x>$(id)@example.org")) == "a'b\"<x>$(id)@example.org"
    assert await user(Authorization=basic("a\nb@example.org")) == "you@example.org"
    page = await get(api, BASE + "Send", Authorization=basic("ann@example.org"))
    assert b"hunter2" not in page.body
    api.app = WebApp(api.app._services, example_login="mox@localhost:moxmoxmox")
    assert await user() == "mox@localhost:moxmoxmox"


@pytest.mark.parametrize("path", ["/", BASE, BASE + "Send", "/nope", "/static/pages.css"])
async def test_nothing_inline_and_nothing_from_elsewhere(api: Any, path: str) -> None:
    page = await get(api, path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    text = page.body.decode()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
    for link in re.findall(r'(?:src|href|action)="([^"]*)"', text):
        assert link.startswith("/")
        assert not link.startswith("//")
        if link.startswith("/static/"):
            assert (await get(api, link)).status == 200


async def test_unknown_pages(api: Any) -> None:
    for path in ("/nope", BASE + "Nope", BASE + "Send/x", "/static/../pages.py", "/static/nope"):
        answer = await get(api, path)
        assert answer.status == 404
        assert BASE in answer.body.decode()
    assert (await get(api, BASE + "<script>alert(1)</script>")).body.count(b"<script>") == 0
