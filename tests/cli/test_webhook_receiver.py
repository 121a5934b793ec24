from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.webhook_receiver import Received, webhook_receiver
from tests.commands import PATIENCE

START = [
    sys.executable,
    "-c",
    "from gateway.cli.webhook_receiver import webhook_receiver; webhook_receiver()",
]
OUTGOING = {
    "Version": 0,
    "Event": "failed",
    "Suppressing": True,
    "DSN": True,
    "QueueMsgID": 7,
    "FromID": "fid",
    "MessageID": "<m@example.com>",
    "Subject": "Hello \x1b[31mred",
    "SMTPCode": 550,
    "SMTPEnhancedCode": "5.1.1",
    "Error": "no such\r\nuser",
    "Extra": {"Order": "17"},
    "Recipient": "you@example.org",
    "Attempt": 2,
    "RemoteMTA": "mx.example.org",
}
INCOMING = {
    "Version": 0,
    "From": [{"Name": "You", "Address": "you@example.org"}],
    "To": [{"Name": "", "Address": "me@example.com"}],
    "Subject": "Re: Hello",
    "MessageID": "<in@example.org>",
    "InReplyTo": "<m@example.com>",
    "Text": "line 1\n\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\n",
    "Meta": {
        "MsgID": 9,
        "RcptTo": "me@example.com",
        "MailFromValidated": True,
        "DKIMVerifiedDomains": ["example.org"],
        "MailboxName": "Inbox",
        "Automated": True,
    },
}


def received(payload: Any, **headers: str) -> Received:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Received(datetime(2030, 1, 1, tzinfo=UTC), "/hook", headers, body)


def plain(shown: str) -> list[str]:
    """Without colours and without the time, which depends on the time zone."""
    return [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", shown)[10:].split("\n")]


def test_an_outgoing_event_reads_well_and_cannot_reach_the_terminal() -> None:
    shown = received(OUTGOING, **{"x-mox-webhook-attempt": "3", "x-mox-webhook-id": "12"}).as_text()
    assert plain(shown) == [
        r'failed        you@example.org  550 5.1.1  "Hello \x1b[31mred"',
        r"    error     no such\x0d\x0auser",
        "    message   7 <m@example.com>",
        "    FromID    fid",
        "    attempt   2",
        "    host      mx.example.org",
        "    note      by a DSN, address suppressed",
        "    extra     Order=17",
        "    webhook   attempt 3 of call 12",
    ]


def test_an_incoming_message_reads_well() -> None:
    assert plain(received(INCOMING, **{"x-mox-webhook-attempt": "1"}).as_text()) == [
        'incoming      you@example.org → me@example.com  "Re: Hello"',
        "    message   9 <in@example.org>",
        "    to        me@example.com",
        "    reply to  <m@example.com>",
        "    mailbox   Inbox",
        "    verified  SPF, DKIM example.org",
        "    note      automated",
        "    text      line 1",
        "    text      line 2",
        "    text      line 3",
        "    text      line 4",
        "    text      line 5",
        "    text      (2 more lines)",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\x00",
        b"not json",
        b"[1]",
        b'"text"',
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"Event": {"a": [1]}, "Extra": 5, "Recipient": ["x"], "SMTPCode": "x"}',
        b'{"Meta": {}, "From": 5, "To": [1, null], "Text": {}, "Subject": "\\ud800"}',
        b'{"Meta": {"DKIMVerifiedDomains": [[]]}, "From": [{}], "Text": "' + b"x" * 100_000 + b'"}',
    ],
)
def test_whatever_comes_is_shown_and_short(body: bytes) -> None:
    shown = received(body).as_text()
    assert len(shown) < 3000
    shown.encode()
    assert json.loads(received(body).as_json())["Path"] == "/hook"
    assert "\n" not in received(body).as_json()


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [*START, "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            yield process, line.split("from ")[1].split(" ")[0]
        finally:
            process.kill()


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(
        url, body, {"X-Mox-Webhook-ID": "12", "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def finish(process: subprocess.Popen[str]) -> tuple[int, Sequence[str], str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.splitlines(), err


def test_json_for_scripts_and_a_clean_end() -> None:
    with running("--json", "--status", "503") as (process, url):
        assert post(url + "a/b", json.dumps(OUTGOING).encode()) == 503
        assert post(url, b"{nonsense") == 503
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            assert b"POST" in response.read()
        code, lines, err = finish(process)
    assert (code, err) == (0, "")
    first, second = map(json.loads, lines)
    assert first["Payload"] == OUTGOING
    assert first["Path"] == "/a/b"
    assert first["Headers"]["x-mox-webhook-id"] == "12"
    datetime.fromisoformat(first["Time"])
    assert second["Body"] == "{nonsense"


def test_text_has_no_colours_in_a_pipe_and_ctrl_c_does_not_wait_for_the_delay() -> None:
    body = json.dumps(OUTGOING).encode()
    with running("--delay", "3000") as (process, url), socket.socket() as client:
        client.connect(("127.0.0.1", int(url.split(":")[2].strip("/"))))
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert process.stdout is not None
        line = process.stdout.readline()
        code, _, err = finish(process)
    assert "failed" in line
    assert "\x1b" not in line
    assert (code, err) == (0, "")


def test_it_ends_when_nobody_reads_any_more() -> None:
    with running("--json") as (process, url):
        assert process.stdout is not None
        process.stdout.close()
        post(url, b"{}")
        assert process.wait(PATIENCE) == 0


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(webhook_receiver, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "cannot listen on 127.0.0.1:" in result.output
    assert "in use" in result.output


@pytest.mark.parametrize(
    "options", [["--ip", "here"], ["--port", "70000"], ["--status", "99"], ["--delay", "-1"]]
)
def test_wrong_options_are_explained(options: list[str]) -> None:
    result = CliRunner().invoke(webhook_receiver, options)
    assert result.exit_code == 2
    assert options[0] in result.output


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(webhook_receiver, ["--help"])
    assert "gateway webhook-receiver --json" in result.output
