"""`gateway report read`: what is understood of messages in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import main
from tests.plugins.report_formats import FORMATS
from tests.reports import dsn, recipient_block

COMPLAINT = (
    b"From: fbl@isp.example\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n"
    b"\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n"
    b"Original-Rcpt-To: ada@example.net\r\n--b--\r\n"
)


def run(*arguments: str | Path, standard_input: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["report", "read", *map(str, arguments)], input=standard_input)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A directory without a gateway."""
    return tmp_path / "nowhere"


def test_for_people(tmp_path: Path, nowhere: Path) -> None:
    bounce = tmp_path / "bounce.eml"
    bounce.write_bytes(FORMATS["qmail"].data)
    other = tmp_path / "hello.eml"
    other.write_bytes(b"Subject: hello\r\n\r\n\x1b[2Jhi\r\n")
    done = run("--dir", nowhere, bounce, other)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == f"{bounce}: a delivery status notification"
    at = lines.index("  bob@example.net")
    assert lines[at + 1 : at + 4] == [
        "    failed, full, permanent",
        "    code 500 5.2.2",
        "    User over quota. (#5.2.2)",
    ]
    assert lines[-1] == f"{other}: no report"


def test_for_scripts(nowhere: Path) -> None:
    data = dsn(recipient_block("ada@example.net"), message_id="<1@example.org>", envelope_id="E")
    done = run("--dir", nowhere, "--json", "-", standard_input=data)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "File": "-",
        "Kind": "delivery-status",
        "ReportingMTA": "mx.example.net",
        "EnvelopeID": "E",
        "MessageID": "<1@example.org>",
        "Recipients": [
            {
                "Address": "ada@example.net",
                "OriginalRecipient": "",
                "Action": "failed",
                "Class": "bad-mailbox",
                "Permanent": True,
                "Status": "5.1.1",
                "SMTPCode": 550,
                "SMTPEnhancedCode": "5.1.1",
                "RemoteMTA": "",
                "Diagnostic": "550 5.1.1 no such user",
            }
        ],
    }


def test_the_other_kinds(nowhere: Path) -> None:
    complaint = json.loads(run("--dir", nowhere, "--json", "-", standard_input=COMPLAINT).output)
    assert (complaint["Kind"], complaint["Type"], complaint["Complaint"]) == ("feedback", "abuse", True)
    assert complaint["Recipients"] == [{"Address": "ada@example.net"}]
    assert (
        "a feedback report, abuse: a complaint" in run("--dir", nowhere, "-", standard_input=COMPLAINT).output
    )
    away = b"Auto-Submitted: auto-replied\r\nSubject: away\r\n\r\n"
    assert run("--dir", nowhere, "-", standard_input=away).output == "-: an automatic reply\n"


def test_with_a_gateway_s_plugins(tmp_path: Path) -> None:
    """Here one that has no readers."""
    (tmp_path / "gateway.toml").write_text(
        'hostname = "mail.example.org"\n[plugins]\nsets = ["few"]\n[plugin_sets.few]\n'
        'plugins = ["mox.routing", "retry", "mox.webhook", "smtp"]\n'
    )
    done = run("--dir", tmp_path, "-", standard_input=FORMATS["qmail"].data)
    assert done.output == "-: no report\n"
    (tmp_path / "gateway.toml").write_text("hostname = 1\n")
    done = run("--dir", tmp_path, "-")
    assert done.exit_code == 1
    assert "hostname" in done.output


def test_a_file_that_is_not_there(tmp_path: Path, nowhere: Path) -> None:
    done = run("--dir", nowhere, tmp_path / "no.eml")
    assert done.exit_code == 1
    assert "no.eml: cannot be read: No such file" in done.output
