"""`gateway webhook`, asked of a gateway that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from gateway.cli.main import main
from tests.cli.asking import ESCAPES, ok, refused, run
from tests.running import Running, receiving, running
from tests.webhooks.receivers import listening, read_request


@pytest.fixture
async def failing(tmp_path: Path) -> Any:
    """Calls 1 and 2 wait for their second attempt: message 1 was delivered, and came in."""
    async with receiving() as webhooks, running(tmp_path, webhooks, change=_secret) as gateway:
        webhooks.status = 503
        await gateway.send()
        await webhooks.event("delivered")
        await webhooks.incoming()
        await gateway.until(lambda: recorded(gateway), [1, 1])
        yield gateway


def _secret(raw: dict[str, Any]) -> None:
    raw["accounts"]["mox"]["webhook_outgoing"]["authorization"] = "Bearer secret"


async def recorded(gateway: Running) -> list[int]:
    """How many attempts at each call were recorded."""
    counts = []
    for call_id in await listed(gateway):
        counts.append(len((await shown(gateway, call_id))["Attempts"]))
    return counts


async def listed(gateway: Running, *arguments: object) -> list[int]:
    answer = json.loads(await ok(gateway, "webhook", "list", "--json", *arguments))
    return [call["ID"] for call in answer["Calls"]]


async def shown(gateway: Running, call_id: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await ok(gateway, "webhook", "show", call_id, "--json"))
    return answer


async def test_list_and_filters(failing: Running) -> None:
    lines = (await ok(failing, "webhook", "list", "--sort", "submitted")).splitlines()
    assert lines[0].split() == [
        "ID", "SUBMITTED", "ACCOUNT", "EVENT", "MESSAGE", "ATTEMPTS", "NEXT", "URL", "ERROR",
    ]  # fmt: skip
    assert len(lines) == 3
    assert all("mox" in line and failing.webhooks.url in line and "503" in line for line in lines[1:])
    events = {call_id: (await shown(failing, call_id))["Call"]["Event"] for call_id in (1, 2)}
    [outgoing] = [call_id for call_id, event in events.items() if event == "delivered"]
    incoming = 3 - outgoing
    assert events[incoming] == "incoming"
    by_submission = await listed(failing, "--sort", "submitted")
    for filters, expected in (
        (("--id", 1), {1}),
        (("--id", 1, "--id", 2), {1, 2}),
        (("--id", 7), set()),
        (("--account", "mox"), {1, 2}),
        (("--account", "other"), set()),
        (("--url", failing.webhooks.url), {1, 2}),
        (("--url", "http://localhost:1/"), set()),
        (("--event", "delivered"), {outgoing}),
        (("--event", "incoming"), {incoming}),
        (("--event", "failed"), set()),
        (("--submitted", "<now"), {1, 2}),
        (("--submitted", "<-1h"), set()),
        (("--next-attempt", "<now"), set()),
        (("--next-attempt", ">30s"), {1, 2}),
        (("--event", "delivered", "--next-attempt", "<2m"), {outgoing}),
        (("--retired",), set()),
    ):
        assert set(await listed(failing, *filters)) == expected, filters
    assert await listed(failing, "--sort", "submitted", "--desc") == by_submission[::-1]
    assert await ok(failing, "webhook", "list", "--event", "failed") == "no calls match\n"
    assert await ok(failing, "webhook", "list", "--retired") == "no calls\n"


async def test_pages(failing: Running) -> None:
    first = json.loads(await ok(failing, "webhook", "list", "--json", "--max", 1))
    assert f"more: --cursor {first['NextCursor']}" in await ok(failing, "webhook", "list", "--max", 1)
    second = json.loads(await ok(failing, "webhook", "list", "--json", "--cursor", first["NextCursor"]))
    assert {first["Calls"][0]["ID"], second["Calls"][0]["ID"]} == {1, 2}
    assert second["NextCursor"] == ""
    assert "cursor" in await refused(failing, "webhook", "list", "--cursor", "nonsense")


async def test_show(failing: Running) -> None:
    [outgoing] = await listed(failing, "--event", "delivered")
    text = await ok(failing, "webhook", "show", outgoing)
    assert f"URL:            {failing.webhooks.url}\n" in text
    assert "Event:          delivered\n" in text
    assert "attempt 1: status 503, " in text
    assert "payload, application/json; charset=utf-8, " in text
    assert '"Event":"delivered"' in text
    answer = await shown(failing, outgoing)
    payload = answer["Payload"]
    assert json.loads(payload["Text"])["QueueMsgID"] == 1
    assert (payload["Complete"], payload["Size"]) == (True, len(payload["Text"]))
    # It is there, but nobody needs to see it.
    assert answer["Call"]["Authorization"] is True
    assert "secret" not in text + json.dumps(answer)
    assert await refused(failing, "webhook", "show", 99) == (
        "there is no webhook call 99, queued or kept; see gateway webhook list"
    )


async def test_cancel(failing: Running) -> None:
    assert await refused(failing, "webhook", "cancel") == (
        "choose calls (--id, --event, ...), or --all for every call that waits"
    )
    assert await ok(failing, "webhook", "cancel", "--event", "delivered") == "1 call\n"
    assert await ok(failing, "webhook", "cancel", "--event", "delivered") == "0 calls\n"
    [canceled] = await listed(failing, "--retired")
    assert (await shown(failing, canceled))["Call"]["Error"] == "canceled by admin"
    assert "canceled by admin" in await ok(failing, "webhook", "list", "--retired")
    assert await ok(failing, "webhook", "schedule", "--id", canceled) == "0 calls\n"
    failing.webhooks.status = 200
    failing.webhooks.got.clear()
    assert await ok(failing, "webhook", "schedule", "--all") == "1 call\n"
    await failing.webhooks.incoming()
    assert [payload for payload in failing.webhooks.got if "Event" in payload] == []


async def test_schedule(failing: Running) -> None:
    [outgoing] = await listed(failing, "--event", "delivered")
    assert await ok(failing, "webhook", "schedule", "--id", outgoing, "--in", "3h") == "1 call\n"
    assert await listed(failing, "--next-attempt", ">2h") == [outgoing]
    failing.webhooks.status = 200
    failing.webhooks.got.clear()
    assert await ok(failing, "webhook", "schedule", "--id", outgoing) == "1 call\n"
    await failing.webhooks.event("delivered")
    assert failing.webhooks.headers[-1]["x-mox-webhook-attempt"] == "2"
    await failing.until(lambda: listed(failing, "--retired"), [outgoing])
    assert "success" in await ok(failing, "webhook", "list", "--retired")


async def test_superseded(failing: Running) -> None:
    await failing.send("vtemperror@example.org")
    await failing.webhooks.event("delayed")
    assert await ok(failing, "queue", "fail", "--all") == "1 message\n"
    [delayed] = await listed(failing, "--retired", "--event", "delayed")
    [failed] = await listed(failing, "--event", "failed")
    assert f"superseded by {failed}" in await ok(failing, "webhook", "list", "--retired")
    assert (await shown(failing, delayed))["Call"]["SupersededBy"] == failed


async def test_under_way_and_before_the_first_attempt(tmp_path: Path) -> None:
    """One call at a time for each URL: while the first has no answer, the second has not been made."""
    go_on = trio.Event()
    body = f"no {ESCAPES} thanks".encode()

    async def slow(stream: trio.SocketStream) -> None:
        while await read_request(stream):
            await go_on.wait()
            head = f"HTTP/1.1 503 Busy\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)

    async with listening(slow) as url, receiving() as webhooks:

        def change(raw: dict[str, Any]) -> None:
            for kind in ("webhook_outgoing", "webhook_incoming"):
                raw["accounts"]["mox"][kind]["url"] = url

        async with running(tmp_path, webhooks, change=change) as gateway:
            await gateway.send()
            await gateway.until(lambda: listed(gateway, "--sort", "submitted"), [1, 2])
            await gateway.until(lambda: calling(gateway), [True, False])
            assert "payload: made when the call is first attempted\n" in await ok(
                gateway, "webhook", "show", 2
            )
            # What is under way is left alone by schedule, but not by cancel.
            assert await ok(gateway, "webhook", "schedule", "--id", 1) == "0 calls\n"
            assert await ok(gateway, "webhook", "cancel", "--id", 1) == "1 call\n"
            go_on.set()
            await gateway.until(lambda: listed(gateway, "--retired"), [1])
            await gateway.until(lambda: recorded(gateway), [1])
            assert [a["Code"] for a in (await shown(gateway, 1))["Attempts"]] == [503]
            for options in ((), ("--json",)):
                text = await ok(gateway, "webhook", "show", 1, *options)
                assert "thanks" in text
                assert all(c.isprintable() or c == "\n" for c in text), text


async def calling(gateway: Running) -> list[bool]:
    return [(await shown(gateway, call_id))["Call"]["Calling"] for call_id in (1, 2)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--event", "opened"], "'opened' is not one of 'delivered',"),
        (["list", "--submitted", "yesterday"], "must start with"),
        (["schedule", "--all", "--in", "-1h"], "is no duration"),
        (["show", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, ["webhook", *arguments])
    assert (result.exit_code, says in result.stderr) == (2, True), result.stderr


# --- Replay, URLs, test calls ---------------------------------------------------------------------


async def test_replay(failing: Running) -> None:
    """What a receiver lost is sent again: same IDs, same bytes, attempts from 1."""
    assert "choose calls" in await refused(failing, "webhook", "replay")
    assert await ok(failing, "webhook", "replay", "--all") == "0 calls\n"  # nothing is over yet
    failing.webhooks.status = 200
    await ok(failing, "webhook", "schedule", "--all")
    await failing.until(lambda: listed(failing, "--retired", "--sort", "submitted"), [1, 2])
    got = failing.webhooks
    first = {h["x-mox-webhook-id"]: body for h, body in zip(got.headers, got.bodies, strict=True)}
    got.clear()
    for choice, again in (
        (("--id", 1), [1]),
        (("--after", "1h", "--failed"), []),
        (("--before", "1h"), []),
        (("--after", "2020-01-31T08:00:00Z", "--before", "0s", "--url", got.url), [1, 2]),
        (("--account", "other"), []),
        (("--all", "--event", "incoming"), [int(i) for i, body in first.items() if b'"Event"' not in body]),
    ):
        assert await ok(failing, "webhook", "replay", *choice) == (
            f"{len(again)} call{'' if len(again) == 1 else 's'}\n"
        ), choice
        await got.wait_for(lambda p: True, len(again))
        replayed = {h["x-mox-webhook-id"]: body for h, body in zip(got.headers, got.bodies, strict=True)}
        assert replayed == {str(i): first[str(i)] for i in again}
        assert {h["x-mox-webhook-attempt"] for h in got.headers} <= {"1"}
        await failing.until(lambda: listed(failing, "--retired", "--sort", "submitted"), [1, 2])
        got.clear()
    assert await recorded(failing) == []
    assert len((await shown(failing, 1))["Attempts"]) >= 4


async def test_a_replay_with_what_is_configured_now(failing: Running) -> None:
    """A wrong Authorization may be why nobody took it."""
    await ok(failing, "webhook", "cancel", "--all")
    [call_id] = await listed(failing, "--retired", "--event", "delivered")
    account = failing.gateway.settings.accounts["mox"]
    assert account.webhook_outgoing is not None
    target = account.webhook_outgoing.model_copy(update={"authorization": "Bearer better"})
    object.__setattr__(account, "webhook_outgoing", target)
    failing.webhooks.status = 200
    failing.webhooks.clear()
    assert await ok(failing, "webhook", "replay", "--all", "--event", "delivered", "--failed") == "1 call\n"
    await failing.webhooks.event("delivered")
    assert failing.webhooks.headers[0]["authorization"] == "Bearer better"
    await failing.until(lambda: listed(failing, "--retired", "--event", "delivered"), [call_id])
    assert "success" in await ok(failing, "webhook", "list", "--retired", "--event", "delivered")


async def test_superseded_calls_are_replayed_only_by_id(failing: Running) -> None:
    await failing.send("vtemperror@example.org")
    await failing.webhooks.event("delayed")
    await ok(failing, "queue", "fail", "--all")
    [delayed] = await listed(failing, "--retired", "--event", "delayed")
    assert await ok(failing, "webhook", "replay", "--all") == "0 calls\n"
    assert await ok(failing, "webhook", "replay", "--id", delayed) == "1 call\n"


async def test_urls_and_enable(failing: Running) -> None:
    url = failing.webhooks.url
    lines = (await ok(failing, "webhook", "urls")).splitlines()
    assert lines[0].split() == ["ACCOUNT", "URL", "EVENTS", "FORMAT", "SIGNED", "STATE"]
    assert len(lines) == 3
    assert all("fails since" in line and url in line for line in lines[1:])
    assert "all outgoing" in lines[1]
    assert "incoming" in lines[2]
    failing.webhooks.status = 410
    await ok(failing, "webhook", "schedule", "--all")
    await failing.until(lambda: _disabled(failing), [True, True])
    assert ": its receiver wants no more (HTTP status 410)" in await ok(failing, "webhook", "urls")
    found = await failing.call("MessageList", {"MailboxName": "Inbox", "Subject": "are disabled"})
    assert len(found["Messages"]) == 1
    assert await ok(failing, "webhook", "enable", "http://x.example/") == "it was not disabled\n"
    assert await ok(failing, "webhook", "enable", "--account", "mox", url) == "enabled for mox\n"
    assert await ok(failing, "webhook", "enable", url) == "it was not disabled\n"
    assert await _disabled(failing) == [False, False]
    failing.webhooks.status = 200
    assert await ok(failing, "webhook", "replay", "--account", "mox", "--failed") == "2 calls\n"
    await failing.until(lambda: listed(failing, "--retired", "--sort", "submitted"), [1, 2])
    assert "works" in await ok(failing, "webhook", "urls", "--account", "mox")
    assert await refused(failing, "webhook", "urls", "--account", "moy") == "there is no account 'moy'"


async def _disabled(gateway: Running) -> list[bool]:
    answer = json.loads(await ok(gateway, "webhook", "urls", "--json"))
    return [url["Disabled"] is not None for url in answer["URLs"]]


async def test_test_calls(failing: Running) -> None:
    failing.webhooks.status = 200
    failing.webhooks.clear()
    text = await ok(failing, "webhook", "test", "--account", "mox")
    assert text.startswith(f"delivered to {failing.webhooks.url}: status 200, ")
    assert '"Event":"delivered"' in text
    [headers], [payload] = failing.webhooks.headers, failing.webhooks.got
    assert (headers["x-mox-webhook-id"], headers["authorization"]) == ("0", "Bearer secret")
    assert (payload["Event"], payload["QueueMsgID"]) == ("delivered", 0)
    await ok(failing, "webhook", "test", "--account", "mox", "--event", "incoming")
    assert failing.webhooks.got[-1]["Subject"] == "A test of your webhook"
    answer = json.loads(
        await ok(failing, "webhook", "test", "--account", "mox", "--event", "failed", "--json")
    )
    assert (answer["Event"], answer["Code"], answer["Success"]) == ("failed", 200, True)
    assert json.loads(answer["Payload"]["Text"])["SMTPCode"] == 550
    assert "there is no account 'moy'" in await refused(failing, "webhook", "test", "--account", "moy")
    assert "does not have the URL http://x.example/" in await refused(
        failing, "webhook", "test", "--account", "mox", "http://x.example/"
    )


async def test_a_test_call_that_fails_shows_why(failing: Running) -> None:
    answered = await run(failing, "webhook", "test", "--account", "mox")
    assert answered.exit_code == 1
    assert "status 503" in answered.stdout
    assert "HTTP status 503" in answered.stdout
