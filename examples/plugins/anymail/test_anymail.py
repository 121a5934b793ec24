"""A Django application and a real gateway: what one sends comes back to it as Anymail's signals."""

from __future__ import annotations

import base64
import hmac
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
import pytest
from anymail.exceptions import AnymailRequestsAPIError, AnymailUnsupportedFeature
from anymail.message import AnymailMessage
from anymail.signals import inbound, tracking
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import Client, override_settings
from django.urls import include, path

CONFIGURATION = """\
hostname = "localhost"
plugins.sets = ["default", "localserve"]
plugin_sets.localserve.plugins = ["localserve"]
smtp.listen = ["127.0.0.1:%d"]
smtp.unknown_recipients = "mox"
web.listen = ["127.0.0.1:%d"]
webhooks.allow_networks = ["127.0.0.0/8"]
dns.simulated = true
routes = [{ transport = "localserve" }]
transports.localserve = { type = "smtp", host = "127.0.0.1", port = %d, tls = "none" }
domains.localhost.catchall_separator = ["+"]

[accounts.mox]
addresses = ["mox@localhost"]
from_id_login_addresses = ["mox@localhost"]

[accounts.mox.webhook_outgoing]
url = "http://127.0.0.1:%d/anymail/mail_gateway/tracking/"
authorization = "Basic aG9va3M6c2VjcmV0"

[accounts.mox.webhook_incoming]
url = "http://127.0.0.1:%d/anymail/mail_gateway/inbound/"
authorization = "Basic aG9va3M6c2VjcmV0"
"""
EVENT = {
    "Event": "delivered", "Extra": {}, "WebhookQueued": "2026-01-31T08:00:00Z", "Error": "", "SMTPCode": 0,
    "MessageID": "<1@localhost>",
}  # fmt: skip
LOGIN = base64.b64encode(b"hooks:secret").decode()
urlpatterns = [path("anymail/", include("anymail_mail_gateway.urls"))]


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None: ...


class Heard:
    """The signals as they came; each may be taken once."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        tracking.connect(self._hear)
        inbound.connect(self._hear)

    def _hear(self, sender: Any, event: Any, **more: Any) -> None:
        self._events.put(event)

    def wait_for(self, *types: str) -> dict[str, Any]:
        """The events up to one of each type."""
        found: dict[str, Any] = {}
        while not found.keys() >= set(types):
            event = self._events.get(timeout=20)
            found[event.event_type] = event
        return found


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    """A gateway whose webhooks go to this Django."""
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "testserver"],
        INSTALLED_APPS=["anymail"],
        ROOT_URLCONF=__name__,
        EMAIL_BACKEND="anymail_mail_gateway.backend.EmailBackend",
        DEFAULT_FROM_EMAIL="Shop <mox@localhost>",
        USE_TZ=True,
        ANYMAIL={
            "MAIL_GATEWAY_LOGIN": "mox@localhost",
            "MAIL_GATEWAY_PASSWORD": "moxmoxmox",
            "WEBHOOK_SECRET": "hooks:secret",
        },
    )
    django.setup()
    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        smtp, web = free_port(), free_port()
        settings.ANYMAIL["MAIL_GATEWAY_API_URL"] = f"http://127.0.0.1:{web}/webapi/v0"
        directory = tmp_path_factory.mktemp("gateway")
        (directory / "gateway.toml").write_text(
            CONFIGURATION % (smtp, web, smtp, server.server_port, server.server_port)
        )
        with gateway(directory, web):
            yield Heard()
        server.shutdown()


@contextmanager
def gateway(directory: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "gateway", "localserve", "--no-color", "--dir", str(directory)]
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for _ in range(1200):  # a minute: it comes up in two seconds, but not on a busy machine
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            raise AssertionError(log.read_text())
        yield
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_message_and_what_becomes_of_it(heard: Heard) -> None:
    message = AnymailMessage(
        "Your order", "It is on its way.\n", to=["Ada <ada@example.org>"], bcc=["audit@example.org"],
        reply_to=["help@localhost"], headers={"X-Shop": "1"},
    )  # fmt: skip
    message.attach_alternative("<p>It is on its way.</p>", "text/html")
    message.attach("invoice.pdf", b"%PDF-1.7", "application/pdf")
    message.metadata = {"order": 1001, "customer": "ada"}
    message.tags = ["orders"]
    assert message.send() == 1
    assert message.anymail_status.status == {"queued"}
    assert message.anymail_status.recipients.keys() == {"ada@example.org", "audit@example.org"}

    events = heard.wait_for("delivered", "inbound")
    delivered = events["delivered"]
    assert delivered.message_id == message.anymail_status.message_id
    assert delivered.recipient in ("ada@example.org", "audit@example.org")
    assert (delivered.metadata, delivered.tags) == ({"order": "1001", "customer": "ada"}, ["orders"])
    assert (delivered.reject_reason, delivered.mta_response) == (None, None)
    assert delivered.timestamp <= datetime.now(UTC)
    assert delivered.event_id

    came = events["inbound"].message
    assert (came.subject, came.text, came.html) == (
        "Your order", "It is on its way.\n", "<p>It is on its way.</p>\n"
    )  # fmt: skip
    assert came.from_email.addr_spec == "mox@localhost"
    assert [address.addr_spec for address in came.to] == ["ada@example.org"]
    assert (came["Reply-To"], came["X-Shop"], came["Bcc"]) == ("help@localhost", "1", None)
    [invoice] = came.attachments
    assert (invoice.get_filename(), invoice.get_content_bytes()) == ("invoice.pdf", b"%PDF-1.7")
    assert came.envelope_recipient in ("ada@example.org", "audit@example.org")
    assert came.envelope_sender.startswith("mox+")  # unique for each recipient


def test_a_bounce_and_what_is_suppressed_after_it(heard: Heard) -> None:
    AnymailMessage("Hi", "Hi", to=["user550@example.org"]).send()
    bounced = heard.wait_for("bounced")["bounced"]
    assert (bounced.reject_reason, bounced.recipient) == ("bounced", "user550@example.org")
    assert bounced.mta_response
    AnymailMessage("Hi", "Hi", to=["user550@example.org"]).send()
    assert heard.wait_for("rejected")["rejected"].reject_reason == "blocked"


def test_a_batch(heard: Heard) -> None:
    message = AnymailMessage("Hi", "Hi", to=["one@example.org", "two@example.org"])
    message.metadata = {"run": "7"}
    message.merge_metadata = {"two@example.org": {"customer": "two"}}
    message.send()
    statuses = message.anymail_status.recipients
    assert {status.status for status in statuses.values()} == {"queued"}
    assert statuses["one@example.org"].message_id != statuses["two@example.org"].message_id
    metadata = {}
    while len(metadata) < 2:
        event = heard.wait_for("delivered")["delivered"]
        if "run" in event.metadata:
            metadata[event.recipient] = event.metadata
    assert metadata["one@example.org"] == {"run": "7"}
    assert metadata["two@example.org"] == {"run": "7", "customer": "two"}


@pytest.mark.usefixtures("heard")
def test_what_the_gateway_refuses() -> None:
    message = AnymailMessage("Hi", "Hi", from_email="someone@else.example", to=["ada@example.org"])
    with pytest.raises(AnymailRequestsAPIError, match="badFrom"):
        message.send()
    message = AnymailMessage("Hi", "Hi", to=["ada@example.org"])
    message.send_at = datetime.now(UTC) + timedelta(days=90)
    with pytest.raises(AnymailRequestsAPIError, match="FutureRelease"):
        message.send()


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("name", "value"), [("track_opens", True), ("template_id", "welcome")])
def test_what_the_gateway_has_not(name: str, value: object) -> None:
    message = AnymailMessage("Hi", "Hi", to=["ada@example.org"])
    setattr(message, name, value)
    with pytest.raises(AnymailUnsupportedFeature):
        message.send()


@pytest.mark.usefixtures("heard")
def test_signed_webhooks() -> None:
    """The test vector of Standard Webhooks, but for its time."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", json.dumps(EVENT)
    now = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    good = base64.b64encode(hmac.digest(key, f"msg_1.{now}.{body}".encode(), "sha256")).decode()

    def status(**headers: str) -> int:
        return Client().post(
            "/anymail/mail_gateway/tracking/", body, content_type="application/json",
            headers={"authorization": f"Basic {LOGIN}", "x-mox-webhook-id": "1"} | {
                name.replace("_", "-"): value for name, value in headers.items()
            },
        ).status_code  # fmt: skip

    with override_settings(ANYMAIL=settings.ANYMAIL | {"MAIL_GATEWAY_WEBHOOK_SIGNING_SECRET": secret}):
        signed = {"webhook_id": "msg_1", "webhook_timestamp": now, "webhook_signature": f"v1,AAAA v1,{good}"}
        assert status(**signed) == 200
        assert status() == 400
        assert status(**signed | {"webhook_id": "msg_2"}) == 400
        assert status(**signed | {"webhook_timestamp": "0"}) == 400
        assert status(**signed | {"webhook_signature": "v1,AAAA"}) == 400
        assert status(**signed | {"authorization": "Basic AAAA"}) == 400
    assert status() == 200  # basic authentication alone, where no secret is set
