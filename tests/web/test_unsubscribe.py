"""The page to unsubscribe, as browsers, mail programs and scanners meet it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import StoreBusy
from gateway.web.pages import MAX_FORM

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ONE_CLICK = b"List-Unsubscribe=One-Click"
PAGE = "/unsubscribe/news-jo@example.net"


async def post(api: Any, body: bytes = ONE_CLICK, **headers: str) -> Any:
    given = FORM | {"Content-Length": str(len(body))} | headers
    return await api.asgi("POST", PAGE, given, [body])


@pytest.mark.parametrize("verb", ["GET", "HEAD"])
async def test_looking_changes_nothing(api: Any, verb: str) -> None:
    answer = await api.asgi(verb, PAGE, {})
    assert answer.status == 200
    assert api.unsubscriber.asked == []
    if verb == "GET":
        text = answer.body.decode()
        assert '<form method="post">' in text
        assert '<input type="hidden" name="List-Unsubscribe" value="One-Click">' in text
        assert "of the list news to jo@example.net?" in text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "<script" not in text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {
            "Origin": "https://webmail.example",
            "Sec-Fetch-Site": "cross-site",
        },  # no page of ours, and right so
        {"Cookie": "a=b", "Authorization": "Basic !!!"},
    ],
)
async def test_one_click(api: Any, headers: dict[str, str]) -> None:
    answer = await post(api, ONE_CLICK, **headers)
    assert answer.status == 200
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    [link] = api.unsubscriber.asked
    assert (str(link.recipient), link.list_name) == ("jo@example.net", "news")
    assert "You are unsubscribed" in answer.body.decode()
    assert not api.accounts.asked


async def test_one_click_as_multipart(api: Any) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    answer = await post(api, body=body, **{"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status, len(api.unsubscriber.asked)) == (200, 1)


@pytest.mark.parametrize(
    "body", [b"", b"List-Unsubscribe=Yes", b"x=One-Click", b"list-unsubscribe=One-Click"]
)
async def test_another_post(api: Any, body: bytes) -> None:
    answer = await post(api, body=body)
    assert answer.status == 400
    assert b"post List-Unsubscribe=One-Click" in answer.body
    assert api.unsubscriber.asked == []


async def test_a_large_post(api: Any) -> None:
    answer = await post(api, body=ONE_CLICK + b"&x=" + b"x" * MAX_FORM)
    assert answer.status == 413
    assert api.unsubscriber.asked == []


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_a_link_that_is_not_ours(api: Any, verb: str) -> None:
    answer = await api.asgi(verb, "/unsubscribe/forged", FORM, [ONE_CLICK])
    assert answer.status == 404
    assert "Sorry, this link is not valid." in answer.body.decode()
    assert api.unsubscriber.asked == []


async def test_names_are_escaped(api: Any) -> None:
    answer = await api.asgi("GET", "/unsubscribe/<script>-jo@example.net", {})
    assert b"<script>" not in answer.body
    assert b"&lt;script&gt;" in answer.body


async def test_the_store_is_away(api: Any) -> None:
    api.unsubscriber.error = StoreBusy("busy")
    answer = await post(api)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_an_api_at_the_root_does_not_hide_it(make_api: Callable[..., Any]) -> None:
    api = make_api(web={"base_path": "/"})
    assert (await api.asgi("GET", PAGE, {})).status == 200
    assert (await post(api)).status == 200
