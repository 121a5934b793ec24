"""Every code of the web API, answered by a whole gateway; and limits, whichever way mail is handed in."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import trio

from gateway import Reject, Submission, hookimpl
from gateway.errors import ApiCode
from tests.running import PATIENCE, Receiver, Running, receiving, running, with_plugins

PASSWORD = "correct horse battery"


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


class Censor:
    @hookimpl
    def submission(self, submission: Submission) -> Reject | None:
        if submission.subject == "broken":
            raise RuntimeError("out of order")
        return Reject(554, "5.7.1", "no lotteries here") if submission.subject == "lottery" else None


def change(raw: dict[str, Any]) -> None:
    with_plugins("censor")(raw)
    raw["domains"]["off.example"] = {"disabled": True}
    raw["accounts"]["few"] = {"addresses": ["few@localhost", "few@off.example"], "max_messages_per_day": 7}
    raw["accounts"]["first"] = {"addresses": ["first@localhost"], "max_first_time_recipients_per_day": 4}
    raw["accounts"]["full"] = {"addresses": ["full@localhost"], "quota": 10}
    raw["queue"] = raw.get("queue", {}) | {"max_message_size": 200_000}


async def log_in(gateway: Running, account: str) -> httpx.AsyncClient:
    await gateway.gateway.authenticator.set_password(account, PASSWORD)
    auth = (f"{account}@localhost", PASSWORD)
    return httpx.AsyncClient(base_url=gateway.api.base_url, auth=auth, timeout=PATIENCE)


def message(**fields: Any) -> dict[str, Any]:
    return {"To": [{"Address": "user@example.org"}], "Subject": "hi", "Text": "hello"} | fields


ANY_ACCOUNT: tuple[tuple[ApiCode, str, dict[str, Any], str], ...] = (
    ("protocol", "Send", message(Subjekt="x"), "request: unknown key 'Subjekt'"),
    ("user", "Send", message(Headers=[["Bcc", "x"]]), "Headers[0]: header Bcc"),
    ("badAddress", "Send", message(To=[{"Address": "x"}]), "To[0].Address: "),
    ("missingBody", "Send", message(Text=""), "Text: "),
    ("multipleFrom", "Send", message(From=[{"Address": "few@localhost"}] * 2), "From: 2 addresses"),
    ("badFrom", "Send", message(From=[{"Address": "x@example.org"}]), "From[0].Address: x@example.org"),
    (
        "domainDisabled",
        "Send",
        message(From=[{"Address": "few@off.example"}]),
        "From[0].Address: off.example",
    ),
    ("noRecipients", "Send", message(To=[]), "To, CC and BCC are all empty"),
    ("messageTooLarge", "Send", message(Text="line\n" * 50_000), "the message has "),
    ("malformedMessageID", "Send", message(MessageID="x@y.example"), "MessageID: "),
    ("rejected", "Send", message(Subject="lottery"), "plugin censor: no lotteries here"),
    ("server", "Send", message(Subject="broken"), "plugin censor failed: the message was not queued"),
    ("messageNotFound", "MessageGet", {"MsgID": 99}, "there is no message"),
    ("messageNotFound", "QueueGet", {"QueueMsgID": 99}, "there is no message"),
    ("notFound", "SuppressionRemove", {"EmailAddress": "a@b.example"}, "EmailAddress: "),
)


async def test_every_code(tmp_path: Path, webhooks: Receiver) -> None:
    seen: set[str] = set()

    async def refused(
        client: httpx.AsyncClient,
        code: ApiCode,
        method: str,
        request: dict[str, Any],
        begins: str,
        **more: Any,
    ) -> None:
        answer = await client.post(method, json=request, **more)
        assert set(answer.json()) == {"Code", "Message"}
        assert (answer.json()["Code"], answer.json()["Message"][: len(begins)]) == (code, begins)
        assert (answer.status_code == 400) == (code != "error")
        seen.add(code)

    async with running(tmp_path, webhooks, change=change, plugins={"censor": Censor()}) as gateway:
        async with await log_in(gateway, "few") as few:
            for code, method, request, begins in ANY_ACCOUNT:
                await refused(few, code, method, request, begins)
            await refused(few, "error", "Nope", {}, "there is no such method")
            assert (await gateway.messages(account="few")) == ()  # nothing of all this was queued

            key = {"Idempotency-Key": "k"}
            assert (await few.post("Send", json=message(), headers=key)).status_code == 200
            await refused(
                few, "badIdempotencyKey", "Send", message(Text="x"), "Idempotency-Key: ", headers=key
            )
            await refused(
                few,
                "messageLimitReached",
                "Send",
                message(To=[{"Address": "a@b.example"}] * 7),
                "account few",
            )
            address = {"EmailAddress": "a@b.example"}
            assert (await few.post("SuppressionAdd", json=address)).json() == {}
            await refused(few, "duplicate", "SuppressionAdd", address, "EmailAddress: ")
            await gateway.mail(b"Subject: in\r\n\r\nhello\r\n", "few@localhost")
            [listed] = (await few.post("MessageList", json={})).json()["Messages"]
            place = {"MsgID": listed["MsgID"], "PartPath": [0]}
            await refused(few, "partNotFound", "MessagePartGet", place, "")
        async with await log_in(gateway, "first") as first:
            strangers = [{"Address": f"u{i}@b.example"} for i in range(5)]
            await refused(first, "recipientLimitReached", "Send", message(To=strangers), "account first")
        async with await log_in(gateway, "full") as full:
            await refused(full, "sentOverQuota", "Send", message(SaveSent=True), "SaveSent: ")
    assert seen == set(get_args(ApiCode))


async def test_limits_count_every_way_of_sending(tmp_path: Path, webhooks: Receiver) -> None:
    """Seven recipients in 24 hours: by Send, by SendBatch, and over SMTP."""

    def submit(address: tuple[str, int], recipients: list[str]) -> str:
        data = b"From: few@localhost\r\nTo: x@example.org\r\nSubject: hi\r\n\r\nhello\r\n"
        context = ssl.create_default_context(cafile=tmp_path / "tls" / "localhost.pem")
        with smtplib.SMTP_SSL(*address, timeout=PATIENCE, context=context) as client:
            client.login("few@localhost", PASSWORD)
            try:
                client.sendmail("few@localhost", recipients, data)
            except smtplib.SMTPDataError as refused:
                return str(refused.smtp_code)
        return "sent"

    async with (
        running(tmp_path, webhooks, change=change, plugins={"censor": Censor()}) as gateway,
        await log_in(gateway, "few") as few,
    ):
        bound = gateway.gateway.addresses["submissions"][0]
        where = bound.host, bound.port
        two = [{"Address": "a@example.org"}, {"Address": "b@example.org"}]
        assert (await few.post("Send", json=message(To=two))).status_code == 200
        assert await trio.to_thread.run_sync(submit, where, ["c@example.org", "d@example.org"]) == "sent"
        # Two more fit, three do not, one more does: each message of a batch by itself.
        batch = {"Messages": [message(To=two), message(To=two), message(To=two[:1])]}
        results = (await few.post("SendBatch", json=batch)).json()["Results"]
        assert [result.get("Code") for result in results] == [None, "messageLimitReached", None]
        assert (await few.post("Send", json=message())).json()["Code"] == "messageLimitReached"
        assert await trio.to_thread.run_sync(submit, where, ["e@example.org"]) != "sent"
        assert len(await gateway.messages(account="few")) == 7
