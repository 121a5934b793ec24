"""Each of Acme's plugins at its stage, in a gateway of `gateway.testing`; tests have the hooks' names."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from gateway import Template, TemplateError
from gateway.testing import MailGateway, delivered, permanent, scripted_mx, temporary

BOUNCE = "From: appliance@example.com\r\nTo: app@example.org\r\nSubject: {subject}\r\n\r\n{text}\r\n"


async def test_template_engines(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.templating") as gateway:
        api = await gateway.api()
        order = {"Name": "order", "Engine": "braces", "Subject": "Hello {name}", "Text": "Your {what}."}
        kept = await api.post("TemplateSet", json=order)
        assert kept.status_code == 200, kept.text
        unknown = await api.post("TemplateSet", json=order | {"Engine": "brackets"})
        assert "braces" in unknown.json()["Message"]
        send = {"To": [{"Address": "ada@example.net"}], "Template": "order"}
        sent = await api.post("Send", json=send | {"Variables": {"name": "Ada", "what": "tea"}})
        assert sent.status_code == 200, sent.text
        await gateway.rest()
        [message] = gateway.transport().got
        assert b"\r\nSubject: Hello Ada\r\n" in message.data
        assert b"Your tea." in message.data
    [plugin] = entry_points(group="mail_gateway", name="acme.templating")
    template = Template(name="order", engine="braces", subject="Hello {name}", text="Your {what}.", html="")
    fill = plugin.load().braces(template)
    assert fill({"name": "Ada", "what": "tea"}).subject == "Hello Ada"
    with pytest.raises(TemplateError, match="acme knows no what"):
        fill({"name": "Ada"})


async def test_submission(mail_gateway: MailGateway) -> None:
    settings = {"acme.screening": {"refused_words": ["lottery"], "send_all_to": "staging@example.net"}}
    async with mail_gateway("acme.screening", settings=settings) as gateway:
        refused = await gateway.deliver(subject="Lottery!")
        assert refused.refused == "plugin acme.screening: the subject has the word lottery"
        happened = await gateway.deliver(to="ada@example.com")
        assert happened.recipients == ["staging@example.net"]
        assert happened.handed_over[0].data.startswith(b"X-Acme-Meant-For: ada@example.com\r\n")


async def test_sign(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.seal", settings={"acme.seal": {"key": "acme's own"}}) as gateway:
        happened = await gateway.deliver()
        seal, _, sealed = happened.handed_over[0].data.removeprefix(b"X-Acme-Seal: ").partition(b"\r\n")
        assert seal.decode() == hmac.new(b"acme's own", sealed, hashlib.sha256).hexdigest()


async def test_hold(mail_gateway: MailGateway) -> None:
    settings = {"acme.quarantine": {"domains": ["held.example"]}}
    async with mail_gateway("acme.quarantine", settings=settings) as gateway:
        happened = await gateway.deliver(to=["ada@held.example", "bob@example.com"])
        assert [fate.state for fate in happened.messages] == ["held", "delivered"]


async def test_base_address_and_suppress(mail_gateway: MailGateway) -> None:
    settings = {"acme.families": {"domains": ["example.com"]}, "acme.caution": {"codes": [550]}}
    async with mail_gateway("acme.families", "acme.caution", settings=settings) as gateway:
        gateway.transport().answer(permanent(550))
        failed = await gateway.deliver(to="ada.lovelace@example.com")
        assert failed.events[0].suppressing
        again = await gateway.deliver(to="byron.lovelace@example.com")
        assert (again["byron.lovelace@example.com"].state, again.handed_over) == ("suppressed", ())


async def test_suppressed(mail_gateway: MailGateway, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("blocked.example\n")
    settings = {"acme.blocklist": {"file": "blocked"}}
    async with mail_gateway("acme.blocklist", settings=settings) as gateway:
        happened = await gateway.deliver(to=["ada@blocked.example", "ada@example.com"])
        assert [fate.state for fate in happened.messages] == ["suppressed", "delivered"]


async def test_route_and_transports(mail_gateway: MailGateway, tmp_path: Path) -> None:
    settings = {"acme.routing": {"domains": {"files.example": "files"}}}
    transports = {"usual": {"type": "testing"}, "files": {"type": "maildrop", "directory": "drop"}}
    async with mail_gateway(
        "acme.routing", "acme.transports", settings=settings, transports=transports
    ) as gateway:
        happened = await gateway.deliver(to=["ada@files.example", "ada@example.com"])
        assert [fate.attempts[0].transport for fate in happened.messages] == ["files", "usual"]
        [file] = (tmp_path / "drop").iterdir()
        assert file.read_bytes().endswith(b"hello\r\n")


async def test_around_attempt(mail_gateway: MailGateway, tmp_path: Path) -> None:
    async with mail_gateway("acme.trace", settings={"acme.trace": {"file": "trace"}}) as gateway:
        await gateway.deliver(to="ada@example.com")
    assert (tmp_path / "trace").read_text() == "begin ada@example.com\nend ada@example.com\n"


async def test_shape(mail_gateway: MailGateway) -> None:
    settings = {"acme.pacing": {"per_minute": {"slow.example": 2}}}
    async with scripted_mx() as mx:
        relay = {"type": "smtp", "host": mx.host, "port": mx.port, "tls": "none"}
        async with mail_gateway("acme.pacing", settings=settings, transports={"relay": relay}) as gateway:
            await gateway.deliver(to="ada@slow.example")
            happened = await gateway.deliver(to="bob@slow.example")
            assert "is 2 messages a minute" in happened["bob@slow.example"].attempts[0].error
            assert len(mx.messages) == 1


async def test_retry(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.patience", settings={"acme.patience": {"intervals": [10]}}) as gateway:
        gateway.transport().answer(temporary())
        await gateway.deliver(to="ada@example.com")
        assert (await gateway.advance(9)).messages == ()
        happened = await gateway.advance(1)
        assert happened.events[0].error.endswith("(acme waits 1 times only)")


async def test_read_report(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.reading") as gateway:
        sent = await gateway.deliver(to="ada@example.com")
        message = sent["ada@example.com"].message
        returned = f"Message-ID: {message.message_id}\r\nSubject: hi"
        report = (
            "From: appliance@example.com\r\nSubject: failure notice\r\n"
            'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n'
            "ACME-BOUNCE ada@example.com 550 5.1.1 no such user\r\n"
            f"--b\r\nContent-Type: message/rfc822\r\n\r\n{returned}\r\n\r\nhello\r\n--b--\r\n"
        )
        happened = await gateway.receive(report.encode(), mail_from="")
        assert [(event.name, event.code) for event in happened.events] == [("failed", 550)]


async def test_match_report(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.bounces") as gateway:
        sent = await gateway.deliver(to="ada@example.com")
        said = "Sorry, no mailbox here by that name: <ada@example.com>\r\n\r\n"
        said += f"Message-ID: {sent['ada@example.com'].message.message_id}"
        bounce = BOUNCE.format(subject="failure notice", text=said)
        happened = await gateway.receive(bounce.encode(), mail_from="")
        assert [(event.name, event.matched_by) for event in happened.events] == [("failed", "acme")]


async def test_event(mail_gateway: MailGateway, tmp_path: Path) -> None:
    async with mail_gateway("acme.journal", settings={"acme.journal": {"file": "journal"}}) as gateway:
        gateway.transport().answer(delivered(code=250))
        await gateway.deliver()
        [line] = (tmp_path / "journal").read_text().splitlines()
        assert json.loads(line)["event"] == "delivered"


async def test_format_webhook(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.chat") as gateway:
        happened = await gateway.deliver(to="ada@example.com", subject="news")
        assert happened.webhooks[0].json == {"text": "delivered: news to ada@example.com"}


async def test_sign_webhook_and_around_webhook(mail_gateway: MailGateway, tmp_path: Path) -> None:
    settings = {"acme.stamping": {"key": "acme's own", "file": "calls"}}
    async with mail_gateway("acme.stamping", settings=settings) as gateway:
        [call] = (await gateway.deliver()).webhooks
        assert call.headers["x-acme"] == hmac.new(b"acme's own", call.body, hashlib.sha256).hexdigest()
    assert (tmp_path / "calls").read_text() == "begin delivered\nend delivered\n"


async def test_receive_policy(mail_gateway: MailGateway) -> None:
    settings = {"acme.doorman": {"refused": ["spam.example"]}}
    letter = BOUNCE.format(subject="hi", text="hi").encode()
    async with mail_gateway("acme.doorman", settings=settings) as gateway:
        happened = await gateway.receive(letter, mail_from="x@spam.example")
        assert happened.refused == "550 5.7.1 acme takes no mail from spam.example"
        assert (await gateway.receive(letter)).refused == ""


async def test_mailbox(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.sorting", settings={"acme.sorting": {"prefix": "from "}}) as gateway:
        happened = await gateway.receive(BOUNCE.format(subject="hi", text="hi").encode())
        assert happened.incoming[0].message.mailbox == "from example.com"


# --- The gateway itself ---------------------------------------------------------------------------

HOUSEHOLD = {"acme.household": {"passwords": {"ada": "lovelace"}, "account": "app"}}


async def test_authenticate_and_api_methods_and_pages(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.household", settings=HOUSEHOLD) as gateway:
        api = await gateway.api()
        assert (await api.post("SuppressionList", json={}, auth=("ada", "wrong"))).status_code == 401
        shouted = await api.post("AcmeShout", json={"Word": "hi"}, auth=("ada", "lovelace"))
        assert shouted.json()["Text"].startswith("HI, app ")
        assert (await api.get(str(api.base_url.join("/plugins/acme/hello/ada")))).text == "hello ada"


async def test_metrics(mail_gateway: MailGateway) -> None:
    with socket.socket() as kept:  # nobody else gets the port, and the gateway may still listen there
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        configuration = {"metrics": {"listen": [f"127.0.0.1:{port}"]}}
        async with mail_gateway("acme.household", settings=HOUSEHOLD, configuration=configuration) as gateway:
            api = await gateway.api()
            answer = await api.get(f"http://127.0.0.1:{port}/metrics", auth=("", ""))
            assert "\nacme_logins 7.0\n" in answer.text


async def test_services_and_start_and_stop(mail_gateway: MailGateway, tmp_path: Path) -> None:
    async with mail_gateway("acme.household", settings=HOUSEHOLD) as gateway:
        await gateway.deliver()
        log = tmp_path / "data" / "plugins" / "acme.household" / "log"
        assert log.read_text() == "start\nservice\n"
    assert log.read_text() == "start\nservice\nstop\n"


async def test_classify_outcome(mail_gateway: MailGateway) -> None:
    async with mail_gateway("acme.patient", transports=["localserve"]) as gateway:
        gateway.transport("localserve").answer(permanent(550, "slow down"))
        happened = await gateway.deliver(to="ada@example.com")
        assert happened["ada@example.com"].state == "waiting"
        assert happened["ada@example.com"].attempts[0].error == "acme waits: slow down"


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        'hostname = "mail.example.org"\nplugins.sets = ["acme", "default"]\n'
        'plugin_sets.acme.plugins = ["acme.household"]\n'
    )
    command = [sys.executable, "-m", "gateway", "acme-motto", "mail"]
    environment = {**os.environ, "GATEWAY_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "mail for all\n"


async def test_content_store(mail_gateway: MailGateway, tmp_path: Path) -> None:
    settings = {"acme.cellar": {"directory": "cellar"}}
    chosen = {"content": {"store": "cellar"}}
    async with mail_gateway("acme.cellar", settings=settings, configuration=chosen) as gateway:
        gateway.transport().answer(temporary())
        text = "a bottle of red\r\n" * 20_000
        waiting = await gateway.deliver(text=text)
        [bottle] = (tmp_path / "cellar").iterdir()
        assert bottle.stat().st_size < len(text) / 10
        assert waiting.messages[0].state == "waiting"
        gateway.transport().answer(delivered())
        assert text.encode() in (await gateway.advance(3600)).handed_over[0].data
        assert list((tmp_path / "cellar").iterdir()) == []
