"""What Send composes, read by two implementations that are not ours: Python's email package, and perl's
Email::MIME (`make system`). Both find what went in, and nothing else."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import subprocess
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest

from gateway.mail.compose import Draft, File, Mailbox, compose
from tests.mail.helpers import draft, mailbox
from tests.mail.test_compose import TEXTS

SCRIPT = Path(__file__).with_name("email_mime.pl")
HTML = "<p>Grüße, <b>Ada</b> &amp; Bob</p>\n"
LOGO = File("logo.png", "", "<logo@example.org>", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9)
ICS = File("", "text/calendar; method=REQUEST; charset=utf-8", "", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n")
PDF = File("Rechnung für März – 2026.pdf", "application/pdf", "", b"%PDF-1.7 \x00\xff" * 500)
NOTE = File('a "quoted" \\ name;=.txt', "", "", b".\r\n.dots\n--\nbare\rreturns\n")
EMPTY = File("empty.bin", "application/octet-stream", "", b"")
LONG = File("long " * 40 + "name.txt", "text/plain", "", b"x" * 5000)

Found = dict[str, Any]

DRAFTS: dict[str, Draft] = {
    **{f"text, {name}": draft(text=text) for name, text in TEXTS.items()},
    **{f"HTML, {name}": draft(html=text) for name, text in TEXTS.items()},
    "both": draft(text="Hello\n", html=HTML),
    "inline": draft(html=HTML, inline_files=[LOGO]),
    "attached": draft(text="Hello\n", attached_files=[PDF, NOTE, EMPTY, LONG]),
    "alternative": draft(text="Hello\n", alternative_files=[ICS]),
    "all together": draft(
        text="Hello\n",
        html=HTML,
        alternative_files=[ICS],
        inline_files=[LOGO, NOTE],
        attached_files=[PDF, EMPTY],
    ),
    "an empty subject": draft(subject="", text="x"),
    "a long subject": draft(subject="word " * 60 + "end", text="x"),
    "a subject without spaces": draft(subject="x" * 400, text="x"),
    "subject in Japanese": draft(subject="件名は日本語で、とても長いので折り返されます。" * 8, text="x"),
    "a subject that looks encoded": draft(subject="=?utf-8?q?no?= =?x", text="x"),
    "an emoji in the subject": draft(subject="ASCII and \U0001f600 emoji — and more of it " * 4, text="x"),
    "names": draft(
        from_=[mailbox("ada@example.org", "Ada Lovelace")],
        to=[
            mailbox("bob@example.com", "Böb, the \"Builder\" (jr.)"),
            mailbox("cid@example.com", "山田太郎" * 8),
            mailbox("dee@bücher.example", "D. E. <e>"),
            mailbox('"odd local"@example.com', ""),
        ],
        cc=[mailbox("eve@example.com", "x" * 200)],
        reply_to=[mailbox("desk@example.net", "Büro " * 20)],
        text="x",
    ),
    "500 recipients": draft(
        to=[mailbox(f"user{i}@host{i}.example.com", f"Empfänger {i}" if i % 2 else "") for i in range(500)],
        text="x",
    ),
    "SMTPUTF8": draft(to=[mailbox("jörg@bücher.example", "Jörg")], subject="Grüße", text="Grüße\n"),
    "references": draft(references=[f"<{i}.{'x' * 60}@example.org>" for i in range(30)], text="x"),
    "a header of one's own": draft(headers=[("X-Note", "Grüße " * 30 + "=?utf-8?q?end?=")], text="x"),
}  # fmt: skip


def given(made: Draft) -> Found:
    """What a reader has to find."""
    return {
        "subject": made.subject,
        "id": made.message_id,
        "refs": " ".join(made.references),
        "extra": dict(made.headers).get("X-Note", ""),
        "from": people(made.from_),
        "to": people(made.to),
        "cc": people(made.cc),
        "reply-to": people(made.reply_to),
    }


def people(mailboxes: Any) -> list[list[str]]:
    return [[one.name, str(one.address) if not one.address.is_ascii else ascii_of(one)] for one in mailboxes]


def ascii_of(one: Mailbox) -> str:
    local, _, domain = str(one.address).rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}"


def bodies(made: Draft) -> list[tuple[str, str, str, str, bytes]]:
    """Type, disposition, name, Content-ID and data of the parts that are no multipart, in their order."""
    texts = [
        (kind, "", "", "", text_of(text))
        for kind, text in (("text/plain", made.text), ("text/html", made.html))
        if text
    ]
    files = [
        (kind(file), disposition or ("inline" if file.name else ""), file.name, file.content_id, file.data)
        for disposition, group in (
            ("", made.alternative_files),
            ("inline", made.inline_files),
            ("attachment", made.attached_files),
        )
        for file in group
    ]
    return [*texts, *files]


def kind(file: File) -> str:
    detected = {"logo.png": "image/png"}.get(file.name, "text/plain")
    return file.content_type.partition(";")[0] or detected


def text_of(text: str) -> bytes:
    return (text if text.endswith("\n") else text + "\n").replace("\n", "\r\n").encode()


def by_email_package(data: bytes) -> Found:
    message = email.message_from_bytes(data, policy=email.policy.default)

    # The package's own `addresses` leave a space between two encoded words of a name (gh-92081), and do not
    # read UTF-8 (RFC 6532).
    raw = {
        name.lower(): value.replace("\r\n", "").encode("ascii", "surrogateescape").decode()
        for name, value in message.raw_items()
    }

    def addresses(name: str) -> list[list[str]]:
        found = getaddresses([raw[name.lower()]]) if name.lower() in raw else []
        return [[str(make_header(decode_header(phrase))), address] for phrase, address in found]

    def part(one: Any) -> Found:
        members = list(one.iter_parts()) if one.is_multipart() else []
        return {
            "type": one.get_content_type(),
            "disposition": one.get_content_disposition() or "",
            "name": one.get_filename() or "",
            "id": str(one["Content-ID"] or ""),
            "data": b"" if members else crlf(one),
            "parts": [part(member) for member in members],
        }

    names = {"subject": "Subject", "id": "Message-ID", "refs": "References", "extra": "X-Note"}
    return {
        **{key: str(message[name] or "") for key, name in names.items()},
        **{name.lower(): addresses(name) for name in ("From", "To", "Cc", "Reply-To")},
        "body": part(message),
    }


def crlf(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data


def by_email_mime(messages: list[bytes], directory: Path) -> list[Found]:
    paths = []
    for index, data in enumerate(messages):
        path = directory / f"{index}.eml"
        path.write_bytes(data)
        paths.append(str(path))
    done = subprocess.run(["perl", str(SCRIPT), *paths], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"", "it complains of something"
    found: list[Found] = json.loads(done.stdout)

    def decoded(part: Found) -> Found:
        return part | {"data": base64.b64decode(part["data"]), "parts": [decoded(p) for p in part["parts"]]}

    return [one | {"body": decoded(one["body"])} for one in found]


def flat(part: Found) -> list[tuple[str, str, str, str, bytes]]:
    if part["parts"]:
        return [one for member in part["parts"] for one in flat(member)]
    return [(part["type"], part["disposition"], part["name"], part["id"], part["data"])]


def multiparts(part: Found) -> list[Any]:
    return [part["type"], *(multiparts(member) for member in part["parts"])]


@pytest.fixture(scope="module")
def composed() -> dict[str, bytes]:
    return {name: compose(made).data for name, made in DRAFTS.items()}


@pytest.fixture(scope="module")
def read(composed: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    found = by_email_mime(list(composed.values()), tmp_path_factory.mktemp("messages"))
    return dict(zip(composed, found, strict=True))


@pytest.mark.parametrize("name", DRAFTS)
def test_read_back(name: str, composed: dict[str, bytes], read: dict[str, Found]) -> None:
    made, theirs, pythons = DRAFTS[name], read[name], by_email_package(composed[name])
    wanted = given(made)
    for reader in (theirs, pythons):
        assert {key: reader[key] for key in wanted} == wanted
        assert flat(reader["body"]) == bodies(made)
    assert multiparts(theirs["body"]) == multiparts(pythons["body"])


def test_fields_are_folded_at_78(composed: dict[str, bytes]) -> None:
    """But for what has no place to fold: a single word of the caller's."""
    for name, data in composed.items():
        head = data.partition(b"\r\n\r\n")[0]
        long = [line for line in head.split(b"\r\n") if len(line) > 78]
        assert all(len(line.split()) <= 2 for line in long), (name, long)
