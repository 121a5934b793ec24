"""Calling a method: who may, what the body may be, and what every failure looks like."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, unquote_to_bytes

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PluginError, RejectedByPlugin, StoreBusy, StoreUnavailable, SubmissionRefused
from gateway.model import SCOPES
from gateway.web.api.body import BodyBudget
from gateway.web.api.errors import BadRequest, HttpError
from gateway.web.api.forms import MultipartReader, UrlencodedReader, percent_decode
from gateway.web.api.methods import METHODS, Method

GOOD = b'{"To":[{"Address":"bob@example.com"}],"Text":"x"}'


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# --- Who calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        basic("ann@example.org", "wrong"),
        basic("nobody@example.org", "secret"),
        basic("ŉ" * 64 + "@example.org", "secret"),  # case folded, it is too long for an address
    ],
)
async def test_bad_credentials(api: Any, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await api.asgi("POST", "/webapi/v0/Send", headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Basic realm=webapi"
    assert not api.submitter.submitted


async def test_a_bearer_token(api: Any) -> None:
    headers = {"Authorization": "Bearer key:send"}
    assert (await api.raw("Send", "application/json", GOOD, headers=headers)).status == 200
    assert str(api.last.login) == "ann@example.org"
    assert api.accounts.asked == [("", "key:send", "192.0.2.1")]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
async def test_a_key_does_what_its_scopes_are_for(api: Any, method: Method) -> None:
    others = ",".join(scope for scope in SCOPES if scope != method.scope)
    answer = await api.call(method.name, {}, headers={"Authorization": f"Bearer key:{others}"})
    assert answer.status == 403
    assert answer.json["Message"].startswith(f"{method.name} needs the scope {method.scope}; ")
    assert "the API key 'shop' has: " in answer.json["Message"]
    answer = await api.call(method.name, {}, headers={"Authorization": f"Bearer key:{method.scope}"})
    assert answer.status in (200, 400)


async def test_a_large_body_is_not_read_before_the_login(api: Any) -> None:
    pieces = iter([b"x"])
    answer = await api.asgi("POST", "/webapi/v0/Send", {"Content-Length": "10000000"}, pieces)
    assert (answer.status, answer.events_read) == (401, 0)
    assert answer.headers["connection"] == "close"


async def test_a_short_body_is_discarded_to_keep_the_connection(api: Any) -> None:
    answer = await api.asgi("POST", "/webapi/v0/Send", {"Content-Length": "6"}, [b"abc", b"def"])
    assert (answer.status, answer.events_read) == (401, 2)
    assert "connection" not in answer.headers


async def test_too_many_failures(api: Any) -> None:
    api.accounts.too_many = True
    answer = await api.call("Send", {})
    assert answer.status == 429
    assert answer.headers["retry-after"] == "17"


async def test_the_peer_address_reaches_the_authenticator(api: Any) -> None:
    await api.send()
    assert api.accounts.asked == [("ann@example.org", "secret", "192.0.2.1")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:81"},
        {"Origin": "http://[::1"},
        {"Origin": "http://localhost.evil.example"},
    ],
)
async def test_cross_site(api: Any, headers: dict[str, str]) -> None:
    answer = await api.call("Send", {}, headers=headers)
    assert answer.status == 403
    assert not api.accounts.asked


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:80"},
        {"Origin": "http://LOCALHOST"},
        {"Origin": "http://[::1]:8080", "Host": "[::1]:8080"},
    ],
)
async def test_same_site(api: Any, headers: dict[str, str]) -> None:
    assert (await api.raw("Send", "application/json", GOOD, headers=headers)).status == 200


@pytest.mark.parametrize("name", ["send", "Nope", "", "Send/", "a/b", "__class__", "Send\r\nX: y"])
async def test_no_such_method(api: Any, name: str) -> None:
    answer = await api.call(name, {})
    assert answer.status == 404


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_neither_get_nor_post(api: Any, verb: str) -> None:
    answer = await api.asgi(verb, "/webapi/v0/Send", {})
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, POST"


# --- Bodies --------------------------------------------------------------------------------------


async def test_content_length_of_100_mb(api: Any, form: str) -> None:
    types = {"json": "application/json", "urlencoded": "application/x-www-form-urlencoded"}
    headers = {
        **api.authorization(),
        "Content-Type": types.get(form, "multipart/form-data; boundary=x"),
        "Content-Length": "100000000",
    }
    answer = await api.asgi("POST", "/webapi/v0/Send", headers, iter([b"x"]))
    assert answer.error[0] == "messageTooLarge"
    assert answer.headers["connection"] == "close"
    assert answer.events_read == 0


async def test_chunked_body_is_counted(make_api: Callable[..., Any]) -> None:
    api = make_api(queue={"max_message_size": 100_000})
    headers = {**api.authorization(), "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    pieces = (b" " * 65536 for _ in range(10_000))
    answer = await api.asgi("POST", "/webapi/v0/Send", headers, pieces)
    assert answer.error[0] == "messageTooLarge"
    assert answer.headers["connection"] == "close"
    assert answer.events_read < 25


async def test_chunked_body(api: Any) -> None:
    headers = {**api.authorization(), "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    answer = await api.asgi(
        "POST", "/webapi/v0/Send", headers, [GOOD[i : i + 7] for i in range(0, len(GOOD), 7)]
    )
    assert answer.status == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "9" * 30, "\xb2"])
async def test_content_length_that_is_none(api: Any, length: str) -> None:
    answer = await api.raw("Send", "application/json", GOOD, headers={"Content-Length": length})
    assert answer.error[0] == "protocol"


async def test_client_that_goes_away_gets_no_answer(api: Any) -> None:
    headers = {**api.authorization(), "Content-Type": "application/json", "Content-Length": "100"}
    with pytest.raises(AssertionError, match="no answer"):
        await api.asgi("POST", "/webapi/v0/Send", headers, [], gone=True)
    assert not api.submitter.submitted


async def test_memory_for_bodies_is_shared(make_api: Callable[..., Any]) -> None:
    api = make_api(web={"memory_for_bodies": 5_000_000})
    body = b'{"To":[{"Address":"bob@example.com"}],"Text":"' + b"x" * 3_000_000 + b'"}'
    reading, go_on = trio.Event(), trio.Event()
    answers = []

    async def first() -> None:
        submit = api.submitter.submit_together

        async def slow(new: Any, keep: Any) -> Any:
            reading.set()
            await go_on.wait()
            return await submit(new, keep)

        api.submitter.submit_together = slow
        answers.append(await api.raw("Send", "application/json", body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await reading.wait()
        refused = await api.raw("Send", "application/json", body)
        small = api.raw("Send", "application/json", b'{"nope":1}')
        assert (await small).status == 400  # small ones always pass
        go_on.set()
    assert refused.status == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json["Code"] == "server" or refused.json["Code"] == "error"
    assert answers[0].status == 200
    assert (await api.raw("Send", "application/json", body)).status == 200  # all was given back


def test_a_body_larger_than_the_whole_budget_is_taken_alone() -> None:
    budget = BodyBudget(2_000_000)
    with budget.reservation() as one:
        for size in (1_500_000, 2_500_000, 9_000_000):
            one.grow(size)
        with budget.reservation() as other:
            other.grow(1_000_000)
            with pytest.raises(HttpError):
                other.grow(1_100_000)
    assert budget.reserved == 0


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "multipart/mixed; boundary=x", ";;", "\xff/\xff"]
)
async def test_other_content_types(api: Any, content_type: str) -> None:
    code, message = (await api.raw("Send", content_type, GOOD)).error
    assert code == "protocol"
    assert message.startswith("Content-Type: ")


async def test_content_encoding_is_refused(api: Any) -> None:
    answer = await api.raw("Send", "application/json", GOOD, headers={"Content-Encoding": "gzip"})
    assert answer.error[0] == "protocol"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "missing"),
        (b"request", "unknown field"),
        (b"other=1", "unknown field"),
        (b"a" * 5000, "unknown field"),
        (b"request=%zz", "escape"),
        (b"request={}%", "escape"),
        (b"request={}%4", "escape"),
        (b"request={}&request={}", "only the one field"),
        (b"request=", "JSON"),
        (b"request=%ff", "JSON"),
    ],
)
async def test_malformed_urlencoded(api: Any, body: bytes, says: str) -> None:
    code, message = (await api.raw("Send", "application/x-www-form-urlencoded", body)).error
    assert code == "protocol"
    assert says in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--",
        b"--b\r\n",
        b"--b\r\n\r\n{}\r\n--b--",
        b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}',
        b'--b\r\nContent-Disposition: form-data; name="request"',
        b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n{}\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n{}\r\n--b--\r\n',
        b"--b\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--b--\r\n",
        b"--b\r\nX: " + b"y" * 300_000,
        b"preamble" * 50_000,
        b"--b" + b" " * 50_000 + b"x",
        b"\r\n--bx" * 50_000,
        b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}\r\n' * 2 + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="attachedfile"\r\n\r\nx\r\n' * 1001 + b"--b--\r\n",
        b'--b\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name="request"\r\n\r\n',
    ],
)
async def test_malformed_multipart(api: Any, body: bytes) -> None:
    code, message = (await api.raw("Send", "multipart/form-data; boundary=b", body)).error
    assert code == "protocol"
    assert message.startswith("form: ")


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * 71, '; boundary="\xe9"'])
async def test_multipart_boundary(api: Any, boundary: str) -> None:
    answer = await api.raw("Send", "multipart/form-data" + boundary, b"")
    assert answer.error[0] == "protocol"


async def test_files_for_a_method_that_takes_none(api: Any) -> None:
    files = [('Content-Disposition: form-data; name="attachedfile"; filename="a"', b"x")]
    code, message = (await api.call("MessageGet", {"MsgID": 1}, "multipart", files=files)).error
    assert (code, message) == ("protocol", "form: MessageGet takes no files")


@given(st.binary(max_size=300), st.integers(1, 40))
def test_urlencoded_in_any_pieces(value: bytes, size: int) -> None:
    body = b"request=" + quote_plus(value).encode()
    reader = UrlencodedReader()
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    assert reader.finish().request == value


@given(st.binary(max_size=100))
def test_percent_decoding(data: bytes) -> None:
    try:
        decoded = percent_decode(data)
    except BadRequest:
        return
    assert decoded == unquote_to_bytes(data.replace(b"+", b" "))


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(1, 60))
def test_multipart_in_any_pieces(request: bytes, data: bytes, size: int) -> None:
    if b"--bOUnd" in request + data:
        return
    head = b'--bOUnd\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    body = head % b"request" + request + b"\r\n" + head % b"inlinefile" + data + b"\r\n--bOUnd--\r\n"
    reader = MultipartReader("bOUnd")
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    form = reader.finish()
    assert (form.request, form.files[0].data) == (request, data)


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SubmissionRefused("messageLimitReached", "1000 a day"), "messageLimitReached", "1000 a day"),
        (SubmissionRefused("recipientLimitReached", "200 a day"), "recipientLimitReached", "200 a day"),
        (SubmissionRefused("domainDisabled", "From: off"), "domainDisabled", "From: off"),
        (
            RejectedByPlugin("acme.filter", 550, "5.7.1", "no pills"),
            "rejected",
            "plugin acme.filter: no pills",
        ),
    ],
)
async def test_refusals(api: Any, form: str, error: Exception, code: str, message: str) -> None:
    api.submitter.error = error
    assert (await api.send(form)).error == (code, message)


async def test_plugin_failure_names_the_plugin_only(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    api.submitter.error = PluginError("acme.sign", "sign", "/etc/keys/secret.pem: no such file")
    code, message = (await api.send()).error
    assert code == "server"
    assert "acme.sign" in message
    assert "try again later" in message
    assert "pem" not in message
    assert not caplog.text  # the engine has logged it


@pytest.mark.parametrize("error", [StoreBusy("64 writes wait"), StoreUnavailable("disk full: /var/x")])
async def test_store_away(api: Any, error: Exception) -> None:
    api.submitter.error = error
    answer = await api.send()
    assert answer.status == 503
    assert answer.json["Code"] == "server"
    assert int(answer.headers["retry-after"]) > 0
    assert "/var/x" not in answer.json["Message"]


async def test_internal_errors_carry_no_internals(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    api.submitter.error = KeyError("/etc/internal")
    answer = await api.send()
    assert answer.status == 500
    assert answer.json["Code"] == "server"
    assert b"internal" in answer.body
    assert b"/etc" not in answer.body
    assert b"KeyError" not in answer.body
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info is not None


async def test_cancellation_passes(api: Any) -> None:
    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    api.submitter.submit_together = hang
    with trio.move_on_after(0.01) as scope:
        await api.send()
    assert scope.cancelled_caught


async def test_every_answer_is_private_and_unsniffable(api: Any) -> None:
    for answer in (await api.send(), await api.send(nope=1), await api.call("Nope", {})):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        json.loads(answer.body)
