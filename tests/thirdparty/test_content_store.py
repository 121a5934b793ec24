"""Large messages are where a third party keeps them; if that fails, nothing is lost, and the log says who."""

from __future__ import annotations

import importlib
import os
import smtplib
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import ContentStore
from gateway.clock import ManualClock
from gateway.errors import ConfigError
from gateway.testing.conformance import ContentStoreSuite
from tests.running import Receiver, running
from tests.thirdparty.gateways import Change, usual, with_sets

TEXT = "a bottle of red\r\n" * 20_000
LARGE = {"To": [{"Address": "user@example.org"}], "Subject": "hi", "Text": TEXT}
MAIL = b"From: <x@example.org>\r\nSubject: from elsewhere\r\n\r\n" + TEXT.encode()
SAID = {
    "raise": "raised RuntimeError: acme broke down",
    "hang": "no answer in 0.2 s",
    "nonsense": "answered int",
}
every_way = pytest.mark.parametrize("way", SAID)


def kept(store: str = "cellar", plugin: str = "acme.faults.store", **fails: str) -> Change:
    """The gateway keeps large messages in a store, which fails at these steps."""
    settings: dict[str, Any] = {plugin: {"directory": "cellar"} | ({"fails": fails} if fails else {})}
    content = {"store": store, "timeout": 0.2 if "hang" in fails.values() else 30.0}

    def change(raw: dict[str, Any]) -> None:
        with_sets([plugin, *usual()] if plugin else usual(), settings if plugin else {})(raw)
        raw["content"] = content

    return change


def bottles(directory: Path) -> list[Path]:
    cellar = directory / "cellar"
    return sorted(cellar.iterdir()) if cellar.exists() else []


def failures(log: pytest.LogCaptureFixture, step: str, way: str) -> list[str]:
    said = f"content store 'cellar' of plugin 'acme.faults.store': {step}"
    lines = [r.getMessage() for r in log.records if r.getMessage().startswith(said)]
    assert all(SAID[way] in line for line in lines), lines
    return lines


async def test_what_comes_and_goes_is_kept_there(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks, change=kept(plugin="acme.cellar")) as gateway:
        await gateway.mail(MAIL)
        [arrived] = await webhooks.incoming()
        assert len(bottles(tmp_path)) == 1
        assert MAIL in await gateway.raw(arrived["Meta"]["MsgID"])
        await gateway.send(Text=TEXT)
        await webhooks.event("delivered")
        await webhooks.incoming(2)
        assert not list(gateway.gateway.store.content.directory.iterdir())
        await gateway.mail(b"Subject: small\r\n\r\nhi\r\n")
        await webhooks.incoming(3)
        assert len(bottles(tmp_path)) == 2  # what arrived by SMTP, and what localserve delivered
        await gateway.call("MessageDelete", {"MsgID": arrived["Meta"]["MsgID"]})
        assert len(bottles(tmp_path)) == 1


class TestCellar(ContentStoreSuite):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def store(self) -> AbstractAsyncContextManager[ContentStore]:
        return nullcontext(self._made(self.directory / "cellar"))

    def failing(self) -> AbstractAsyncContextManager[ContentStore]:
        return nullcontext(self._made(self.directory / "missing" / "cellar"))

    def _made(self, directory: Path) -> ContentStore:
        made: ContentStore = importlib.import_module("acme_mail.cellar").Cellar(directory)
        return made


@every_way
async def test_nothing_is_taken_that_cannot_be_kept(
    way: str, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=kept(put=way)) as gateway:
        response = await gateway.api.post("Send", json=LARGE)
        assert (response.status_code, response.json()["Code"]) == (503, "server"), response.text
        assert "acme broke down" not in response.text
        with pytest.raises(smtplib.SMTPDataError) as refused:
            await gateway.mail(MAIL)
        assert refused.value.smtp_code == 451
        assert await gateway.messages() == ()
        assert bottles(tmp_path) == []
        assert not list(gateway.gateway.store.content.directory.iterdir())
        assert len(failures(caplog, "put", way)) == 2
        await gateway.send()  # a small one, which is not its affair
        await webhooks.event("delivered")

    async with running(tmp_path, webhooks, change=kept()) as gateway:
        await gateway.call("Send", LARGE)
        await webhooks.incoming(2)


@every_way
@pytest.mark.parametrize("step", ["open", "read"])
async def test_a_message_waits_until_it_can_be_read(
    step: str, way: str, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    async with running(tmp_path, webhooks, change=kept(**{step: way}), clock=clock) as gateway:
        await gateway.call("Send", LARGE)
        delayed = await webhooks.event("delayed")
        assert "content store 'cellar' of plugin 'acme.faults.store'" in delayed["Error"]
        assert failures(caplog, step, way)
    clock.advance(timedelta(minutes=8))
    async with running(tmp_path, webhooks, change=kept(), clock=clock) as gateway:
        await webhooks.event("delivered", Attempt=2)
        await webhooks.incoming()


@every_way
async def test_what_cannot_be_removed_is_swept_later(
    way: str, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=kept(delete=way)) as gateway:
        await gateway.mail(MAIL)
        [arrived] = await webhooks.incoming()
        await gateway.call("MessageDelete", {"MsgID": arrived["Meta"]["MsgID"]})
        assert len(failures(caplog, "delete", way)) == 1
        assert (await gateway.call("MessageList", {}))["Messages"] == []
    [left] = bottles(tmp_path)
    (left.with_name("a letter to the cellarman")).write_text("not of the gateway")
    async with running(tmp_path, webhooks, change=kept()) as gateway:
        assert await gateway.gateway.store.content.sweep() == 0  # it is young
    for path in bottles(tmp_path):
        os.utime(path, (0, 0))
    async with running(tmp_path, webhooks, change=kept(names=way)) as gateway:
        assert await gateway.gateway.store.content.sweep() == 0
        assert failures(caplog, "names", way)
        assert left.exists()
    async with running(tmp_path, webhooks, change=kept()) as gateway:
        assert await gateway.gateway.store.content.sweep() in (0, 1)  # it does so at the start, too

        async def names() -> list[str]:
            return [path.name for path in bottles(tmp_path)]

        await gateway.until(names, ["a letter to the cellarman"])


async def test_another_store_may_be_chosen_and_the_old_one_is_read(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=kept()) as gateway:
        await gateway.mail(MAIL)
        [arrived] = await webhooks.incoming()
        msg_id = arrived["Meta"]["MsgID"]
    async with running(tmp_path, webhooks, change=kept("files")) as gateway:
        assert MAIL in await gateway.raw(msg_id)
        await gateway.mail(MAIL)
        await webhooks.incoming(2)
        assert len(list(gateway.gateway.store.content.directory.iterdir())) == 1
        assert len(bottles(tmp_path)) == 1
    async with running(tmp_path, webhooks, change=kept("files", plugin="")) as gateway:
        response = await gateway.api.post("MessageGet", json={"MsgID": msg_id})
        assert (response.status_code, response.json()["Code"]) == (503, "server"), response.text
        assert "content store 'cellar': open" in caplog.text
        assert "no plugin of the plugin sets registers it" in caplog.text
        await gateway.call("MessageDelete", {"MsgID": msg_id})
    assert len(bottles(tmp_path)) == 1  # nobody could remove it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            kept("celler"),
            "content.store: there is no content store 'celler'; did you mean 'cellar'? there are: ",
        ),
        (kept("cellar", plugin=""), "content.store: there is no content store 'cellar'; there are: files"),
    ],
)
async def test_a_store_that_is_not_there(
    change: Change, said: str, tmp_path: Path, webhooks: Receiver
) -> None:
    with pytest.raises(ConfigError) as refused:
        async with running(tmp_path, webhooks, change=change):
            pass
    assert str(refused.value).startswith(said)
