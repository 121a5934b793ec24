"""docs/webapi.md has every method, field, code and key as the code has them; its examples work."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from pydantic import BaseModel

from gateway import templates
from gateway.accounts.logins import FAILURE_WINDOW, FAILURES_ALLOWED
from gateway.errors import ApiCode
from gateway.mail import flags
from gateway.mail.compose import MAX_FILE_NAME, REFUSED_HEADERS
from gateway.model import SCOPES
from gateway.store import events, listing, mailbox_listing, received
from gateway.store.pages import MAX_PAGE
from gateway.web.api import messages, models, queue, send, versions
from gateway.web.api import templates as api_templates
from gateway.web.api.methods import METHODS
from gateway.web.pages import curl_command
from gateway.webhooks import event_log
from tests.docs.pages import PAGES, ROOT, all_sections, code, sections, tables, text
from tests.running import Receiver, Running, receiving, running

PAGE = text("webapi.md")
PARTS = sections(PAGE, 2)
SECTIONS = all_sections(PAGE)
LOGIN, ORIGIN = "mox@localhost:moxmoxmox", "http://localhost:1080"


def fields(section: str) -> list[dict[str, str]]:
    """The rows of the first table of fields, and so on, of a section."""
    return [row for table in tables(section) if "field" in table[0] for row in table]


# --- Methods and objects --------------------------------------------------------------------------


def type_name(schema: Mapping[str, Any], *, null: bool) -> str:
    """A type as the page has it. `null`: whether null means something else than the zero value."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    if len(options) > 1:
        return " or ".join(type_name(option, null=False) for option in options)
    [one] = options
    suffix = " or null" if null and len(schema.get("anyOf", ())) > 1 else ""
    if "$ref" in one:
        return str(one["$ref"]).rpartition("/")[2] + suffix
    if "prefixItems" in one:
        return "[" + ", ".join(type_name(item, null=False) for item in one["prefixItems"]) + "]"
    kind = one["type"]
    if kind == "array":
        return f"list of {type_name(one['items'], null=False)}"
    if kind == "object":
        values = one["additionalProperties"]
        anything = values is True or values.get("$ref") == "#/$defs/JsonValue"
        return "object" if anything else f"object of {type_name(values, null=False)}"
    return ("time" if one.get("format") == "date-time" else str(kind)) + suffix


def expected(model: type[BaseModel], mode: Any) -> list[tuple[str, str]]:
    schema = model.model_json_schema(mode=mode)
    if "properties" not in schema:  # a model that holds itself
        schema = schema["$defs"][model.__name__]
    return [
        # Of a request's fields, null is a value of those whose default it is; else it is the zero value.
        (name, type_name(found, null=mode == "serialization" or model.model_fields[name].default is None))
        for name, found in schema["properties"].items()
    ]


def said(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["field"], row["type"]) for row in rows]


def test_every_method_has_its_section_in_the_codes_order() -> None:
    assert list(sections(PARTS["Methods"], 3)) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    method, section = METHODS[name], SECTIONS[name]
    given = iter([table for table in tables(section) if "field" in table[0]])
    fields_of_request = expected(method.request, "validation")
    assert (said(next(given)) if fields_of_request else []) == fields_of_request
    examples = code("json", section)
    assert json.loads(examples[0]) == method.example_request
    if method.response is not None:
        fields_of_answer = expected(method.response, "serialization")
        assert (said(next(given)) if fields_of_answer else []) == fields_of_answer
        answer = json.loads(examples[1])
        assert list(answer) == [field for field, _ in fields_of_answer]
        method.response.model_validate(answer)
    assert next(given, None) is None
    # What the method's page shows is what stands here.
    [curl] = code("sh", section)
    assert curl == curl_command(f"{ORIGIN}/webapi/v0/{name}", LOGIN, method.example_request) + "\n"
    assert f"[{name}](#{name.lower()})" in PAGE


def test_scopes() -> None:
    [rows] = tables(PARTS["API keys"])
    found = {row["scope"].strip("`"): set(re.findall(r"\b[A-Z][A-Za-z]+\b", row["for"])) for row in rows}
    assert list(found) == list(SCOPES)
    for scope, methods in found.items():
        assert methods - {"SMTP"} == {name for name, method in METHODS.items() if method.scope == scope}


OBJECTS = {
    "NameAddress": "validation",
    "Recipient": "validation",
    "File": "validation",
    "Submission": "serialization",
    "Refused": "serialization",
    "Suppression": "serialization",
    "Template": "serialization",
    "ParsedMessage": "serialization",
    "ParsedAddress": "serialization",
    "Part": "serialization",
    "MessageMeta": "serialization",
    "ListedMessage": "serialization",
    "WebhookURL": "serialization",
    "Filter": "validation",
    "QueueMessage": "serialization",
    "Attempt": "serialization",
}


@pytest.mark.parametrize("name", OBJECTS)
def test_object(name: str) -> None:
    assert said(fields(SECTIONS[name])) == expected(getattr(models, name), OBJECTS[name])


def test_every_object_is_there() -> None:
    assert list(sections(PARTS["Objects"], 3)) == list(OBJECTS)
    used = set(re.findall(r"\| (?:list of )?(?:\w+ or )?([A-Z]\w+) \|", PARTS["Methods"] + PARTS["Objects"]))
    assert used == {*OBJECTS, "SendRequest"}


def test_codes() -> None:
    [rows] = tables(PARTS["Errors"])
    assert sorted(row["code"] for row in rows) == sorted(get_args(ApiCode))
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    source = re.sub(r"ApiCode = Literal\[[^]]*\]", "", source)
    for row in rows:
        assert f'"{row["code"]}"' in source


def test_limits_in_the_text() -> None:
    section = SECTIONS["Send"]
    assert f"at most {send.MAX_RECIPIENTS:,} recipients" in section
    assert f"at most {send.MAX_FUTURE_RELEASE.days} days ahead" in section
    assert f"Files in all: {send.MAX_FILES:,}" in section
    assert f"{send.MAX_EXTRA // 1024} Ki characters" in section
    assert f"may\n  have {versions.MAX_TOGETHER // 1024**2} MiB" in section
    assert f"at most {MAX_FILE_NAME} characters" in SECTIONS["File"]
    refused = re.search(r"must not set (.*?) or Content-\*", " ".join(section.split()))
    assert refused is not None
    assert {name.lower() for name in refused[1].split(", ")} == REFUSED_HEADERS
    assert (FAILURES_ALLOWED, FAILURE_WINDOW) == (20, 60.0)
    assert "twenty failed logins" in PAGE


def test_limits_of_a_batch() -> None:
    assert (
        f"at most {send.MAX_BATCH}, with at most {send.MAX_BATCH_RECIPIENTS:,} recipients"
        in SECTIONS["SendBatch"]
    )


def test_flags() -> None:
    _, listed, rules = PARTS["Flags"].strip().split("\n\n")
    assert set(re.findall(r"`(\S+)`", listed)) == flags.SYSTEM_FLAGS
    assert f"up to {flags.MAX_KEYWORD} ASCII characters" in rules
    assert f"at most\n{flags.MAX_FLAGS} flags" in rules
    assert flags.MAX_FLAGS == 100  # as the methods' tables have it
    mailboxes = re.search(r"`user`\): (.*) always are", SECTIONS["MessageMove"])
    assert mailboxes is not None
    assert set(re.split(r", | and ", mailboxes[1])) == received.STANDARD


def test_limits_of_the_queue() -> None:
    assert f"at most {MAX_PAGE}; 0 for {queue.DEFAULT_PAGE}" in SECTIONS["QueueList"]
    assert f"at most {MAX_PAGE}; 0 for {queue.DEFAULT_PAGE}" in SECTIONS["EventList"]
    assert f"at most {events.EXAMINED:,} events" in SECTIONS["EventList"]
    assert f"ends after {event_log.MAX_BYTES // 2**20} MiB" in SECTIONS["EventList"]
    assert f"at most {listing.MAX_IDS:,}" in SECTIONS["Filter"]
    assert f"at most {queue.MAX_WANTED} characters" in SECTIONS["Filter"]


def test_limits_of_lists() -> None:
    section = SECTIONS["MessageList"]
    assert f"first {mailbox_listing.SEARCHED:,} characters" in section
    assert f"at most {MAX_PAGE}; 0 for {messages.DEFAULT_PAGE}" in section
    assert f"at most {messages.MAX_WANTED} characters" in section
    assert f"at most {mailbox_listing.EXAMINED:,} messages" in section


def test_limits_of_templates() -> None:
    section, rules = SECTIONS["TemplateSet"], PARTS["Templates"]
    assert f"At most {templates.MAX_SIZE // 1024} Ki characters" in section
    assert f"{templates.MAX_TEMPLATES:,} templates" in section
    assert f"after {templates.LIMIT:g} seconds (for up to {templates.TOGETHER} recipients)" in rules
    assert templates.MAX_RENDERED == 1024 * 1024
    assert (
        f"at most {api_templates.MAX_TEMPLATES_PAGE}; 0 for {api_templates.DEFAULT_PAGE}"
        in SECTIONS["TemplateList"]
    )


# --- Examples that run ----------------------------------------------------------------------------


def test_every_example_of_json_parses() -> None:
    for path in PAGES:
        for block in code("json", path.read_text(encoding="utf-8")):
            json.loads(block)


def curl_lines(page: str) -> list[str]:
    """The curl commands of a page, those over several lines in one."""
    joined = page.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if re.match(r"(    )?curl ", line)]


CURL = [(path.name, line) for path in PAGES for line in curl_lines(path.read_text(encoding="utf-8"))]


@pytest.fixture
async def webhooks() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def gateway(tmp_path: Path, webhooks: Receiver) -> AsyncIterator[Running]:
    async with running(tmp_path, webhooks) as gateway:
        yield gateway


async def test_every_curl_line_works(gateway: Running) -> None:
    """As they stand, but for the port."""
    for msg_id in (1, 2):  # the second is the one to delete
        await gateway.send("mox@localhost")
        await gateway.webhooks.incoming(msg_id)
    key = await gateway.gateway.authenticator.keys.add("mox", "shop", SCOPES)
    there = f"http://localhost:{gateway.gateway.addresses['web'][0].port}"
    assert {name for name, _ in CURL} >= {"README.md", "webapi.md", "localserve.md"}
    for name, line in CURL:
        if "smtps://" in line:  # tests/whole/test_submission.py runs that page
            continue
        assert ORIGIN in line, (name, line)
        command = line.replace(ORIGIN, there).replace(
            "curl ", "curl --silent --show-error --fail-with-body ", 1
        )
        done = await trio.run_process(
            ["/bin/sh", "-c", command],
            cwd=ROOT,
            env={**os.environ, "KEY": key},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        answer = done.stdout.decode()
        method = shlex.split(line)[-1].rpartition("/")[2]
        if method == "openapi.json":
            assert json.loads(answer)["openapi"] == "3.1.0"
        elif method == "MessagePartGet":
            assert answer == "hello\r\n"
        elif method == "MessageRawGet":
            assert answer.startswith("Return-Path: ")
            assert "DKIM-Signature: " in answer
        else:
            model = METHODS[method].response
            assert model is not None
            assert list(json.loads(answer)) == list(model.model_fields)
