"""docs/plugins/ says of every hook and of all data what the code says, and its examples do what it says."""

from __future__ import annotations

import ast
import dataclasses
import hmac
import inspect
import logging
import re
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import httpx
import pytest
import tomli
import trio
from click.testing import CliRunner
from pydantic import BaseModel, ConfigDict

import gateway
from gateway import (
    Accept,
    EventName,
    GiveUp,
    Limits,
    NextHop,
    Reject,
    Result,
    RetryAt,
    Route,
    Suppress,
    TransportType,
    WebhookBody,
    hookspecs,
)
from gateway.config.settings import Settings
from gateway.errors import RejectedByPlugin
from gateway.hooks.stages import Hooks, Stages
from gateway.hookspecs import SPECS, HookSpecs
from gateway.hookspecs.marks import OnError, Verb
from gateway.mail.structure import Summary
from gateway.plugins.loading import load_plugins
from gateway.store.content_reading import BytesContent
from tests.hooks.helpers import (
    NOW,
    Rest,
    a_delivery,
    a_failure,
    a_message,
    a_reception,
    a_report,
    a_source,
    a_submission,
    a_suppression,
    a_webhook_call,
    an_event,
    configured,
)
from tests.networks import a_network
from tests.running import PATIENCE
from tests.thirdparty import page

ADDRESS = gateway.Address.parse

# --- The hooks -----------------------------------------------------------------------------------


def test_every_hook_has_its_section() -> None:
    assert sorted(page.HOOKS) == sorted(SPECS)


def test_the_first_page_names_every_hook_and_page() -> None:
    for name, text in page.PAGES.items():
        if name.startswith("hooks-"):
            [about] = re.findall(rf"(?m)^- \[.*\]\({re.escape(name)}\)(.*(?:\n  .*)*)$", page.FIRST)
            assert re.findall(r"\w+", about) == list(page.sections(text, 2))
        elif name != "README.md":
            assert f"]({name})" in page.FIRST


@pytest.mark.parametrize("hook", SPECS)
def test_the_section_of_a_hook(hook: str) -> None:
    spec, section = SPECS[hook], page.HOOKS[hook]
    facts, *arguments = page.tables(section)
    assert facts == [
        {
            "verb": spec.verb.name,
            "scope": spec.scope.value,
            "time limit": f"{spec.limit:g} s",
            "on error": spec.on_error.name,
            "necessary": "yes" if spec.necessary else "no",
        }
    ]
    documented = [row["argument"] for table in arguments for row in table]
    assert documented == list(spec.arguments)
    for needed in ("**When**: ", "**Answer**: ", "**A failure**"):
        assert section.count(needed) == 1, needed
    signature, *examples = page.code("python", section)
    assert _signature(signature) == _signature(inspect.getsource(getattr(HookSpecs, hook)))
    assert any(f"def {hook}(" in example and "@hookimpl" in example for example in examples)


def _signature(source: str) -> str:
    """A function's name, arguments and answer, however they are written; without `self`."""
    [function] = [n for n in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(n, ast.FunctionDef)]
    function.args.args = [a for a in function.args.args if a.arg != "self"]
    assert function.returns is not None
    return f"{function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"


def test_verbs_and_policies_are_explained() -> None:
    parts = page.sections(page.FIRST, 2)
    [verbs] = page.tables(parts["How a stage asks its plugins: verbs"])
    assert [row["verb"] for row in verbs] == [verb.name for verb in Verb]
    [policies] = page.tables(parts["When a plugin fails"])
    assert [row["policy"] for row in policies] == [policy.name for policy in OnError]
    said = _words(hookspecs.__doc__ or "")
    for row in verbs:
        assert _words(f"{row['verb']} {row['how']}") in said
    [options] = page.tables(parts["What a plugin is, and how it is found"])
    names = [row["option"].partition("=")[0] for row in options]
    overload = inspect.signature(gateway.hookimpl).parameters
    assert set(names) - {"optionalhook"} == set(overload) - {"function", "options"}


def _words(text: str) -> str:
    return " ".join(text.split())


# --- The data ------------------------------------------------------------------------------------


def test_every_public_name_is_on_a_page() -> None:
    everything = "\n".join(page.PAGES.values())
    for name in gateway.__all__:
        assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", everything), name


@pytest.mark.parametrize(
    "name",
    [n for n in gateway.__all__ if dataclasses.is_dataclass(getattr(gateway, n))],
)
def test_the_fields_of_a_class(name: str) -> None:
    kind = getattr(gateway, name)
    rows = [row for table in page.tables(page.DATA[name]) for row in table]
    fields = [
        (field.name, re.sub(r'"(\w+)"', r"'\1'", str(field.type)))
        for field in dataclasses.fields(kind)
        if not field.name.startswith("_")
    ]
    assert [(row["field"], row["type"]) for row in rows] == fields


def test_the_summary_of_a_message() -> None:
    named = re.findall(r"`(\w+)`", page.DATA["ParsedMessage"].rpartition("|\n")[2])
    fields = [field.name for field in dataclasses.fields(Summary)]
    assert sorted(set(named) - {"name", "address"}) == sorted(fields)


def test_names_of_events_and_results() -> None:
    assert re.findall(r'"(\w+)"', page.DATA["Event"].partition("|")[0]) == list(get_args(EventName))
    assert re.findall(r"Result\.(\w+)", page.DATA["Outcome"]) == [result.name for result in Result]


# --- The configuration ----------------------------------------------------------------------------


TOML = [block for text in page.PAGES.values() for block in page.code("toml", text)]


@pytest.mark.parametrize("number", range(len(TOML)))
def test_configuration(number: int) -> None:
    raw = tomli.loads(TOML[number])
    if "project" in raw:
        assert list(raw["project"]["entry-points"]) == ["mail_gateway"]
        return
    if "tool" in raw:
        assert list(raw["tool"]) == ["pytest"]
        return
    sets = [tomli.loads(block).get("plugin_sets", {}) for block in TOML]
    raw.setdefault("plugin_sets", {name: body for found in sets for name, body in found.items()})
    raw.setdefault("domains", {}).setdefault("example.org", {})
    for account in raw.get("accounts", {}).values():
        account.setdefault("addresses", ["shop@example.org"])
    settings = Settings.model_validate({"hostname": "gateway.example", **raw})
    # Every name of a plugin in use is one that comes with the gateway, or an example's.
    examples = {name: Everything() for name in re.findall(r"acme\.\w+", "\n".join(TOML))}
    load_plugins(settings, Path("/etc/gateway"), extra=examples)


class Everything(Rest):
    """Stands in for the page's plugins."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="allow")

    @gateway.hookimpl
    def sign(self, data: bytes) -> bytes:
        return data


# --- The examples ---------------------------------------------------------------------------------


class Example:
    """An example, loaded as a plugin; the keys of `settings` are [plugin.example]."""

    def __init__(self, source: str, directory: Path, settings: Mapping[str, Any]) -> None:
        module = ModuleType("example")
        exec(compile(source, "docs/plugins", "exec", dont_inherit=True), module.__dict__)
        self.directory, self.module = directory, module
        self.hooks: Hooks = load_plugins(
            configured({"test": ["example"]}, {"plugin": {"example": settings}}),
            directory,
            extra={"example": module, "rest": Rest()},
        )

    @property
    def stages(self) -> Stages:
        return self.hooks.for_account("")


async def fills_dollars(example: Example) -> None:
    plugin, engine = example.hooks.added.template_engines["dollar"]
    template = gateway.Template(name="t", engine="dollar", subject="$a", text="$a and $b", html="")
    assert plugin == "example"
    assert engine(template)({"a": 1, "b": "x"}) == gateway.Rendered(subject="1", text="1 and x", html="")
    with pytest.raises(gateway.TemplateError, match="Text: there is no variable 'b'"):
        engine(template)({"a": 1})


async def refuses_lotteries(example: Example) -> None:
    with pytest.raises(RejectedByPlugin) as refused:
        await example.stages.submission(submission=a_submission(subject="A Lottery"))
    assert str(refused.value) == "plugin example: no lotteries"  # as the page has it
    assert await example.stages.submission(submission=a_submission()) == a_submission()


async def names_an_organization(example: Example) -> None:
    (example.directory / "added").write_bytes(b"X-Floor: 3\r\n")
    signed = await example.stages.sign(data=b"Subject: hi\r\n\r\n", submission=a_submission())
    assert signed == b"Organization: Acme Inc.\r\nX-Floor: 3\r\nSubject: hi\r\n\r\n"


async def redirects(example: Example) -> None:
    changed = await example.stages.submission(submission=a_submission())
    assert changed.recipients == (ADDRESS("staging@example.org"),)
    assert changed.data == b"X-Meant-For: you@example.net\r\n" + a_submission().data


async def seals(example: Example) -> None:
    signed = await example.stages.sign(data=b"hi\r\n", submission=a_submission())
    assert re.fullmatch(rb"X-Seal: [0-9a-f]{64}\r\nhi\r\n", signed)


async def holds(example: Example) -> None:
    for count, held in ((100, None), (101, True)):
        submission = a_submission(recipients=(ADDRESS("you@example.net"),) * count)
        recipient = submission.recipients[0]
        assert await example.stages.hold(submission=submission, recipient=recipient, rules=()) is held


async def joins_a_company(example: Example) -> None:
    for address, base in (("ada@example.com", "anyone@example.com"), ("ada@example.org", None)):
        found = await example.stages.base_address(address=ADDRESS(address))
        assert found == (base and ADDRESS(base))


async def sends_invoices(example: Example) -> None:
    entry = a_suppression()
    invoice = dataclasses.replace(a_message(), extra={"invoice": "17"})
    for message, found, answer in (
        (invoice, entry, False),
        (invoice, dataclasses.replace(entry, manual=True), None),
        (invoice, None, None),
        (a_message(), entry, None),
    ):
        assert await example.stages.suppressed(message=message, entry=found) is answer


async def waits_for_a_mailbox(example: Example) -> None:
    full = Suppress("mailbox full", expires=NOW + timedelta(days=30))
    for enhanced, answer in (("5.2.2", full), ("5.1.1", None)):
        outcome = dataclasses.replace(a_failure(), enhanced=enhanced)
        found = await example.stages.suppress(
            message=a_message(), outcome=outcome, source="queue", history=(), now=NOW
        )
        assert found == answer


async def reads_a_field(example: Example) -> None:
    for data, codes in (
        (b"X-Not-Delivered: you@example.net 550\r\n\r\n", [550]),
        (b"X-Not-Delivered: you@example.net 999\r\n\r\n", [0]),
        (b"X-Not-Delivered: you\r\n\r\n", None),
        (b"Subject: hi\r\n\r\n", None),
    ):
        found = await example.hooks.gateway.read_report(source=a_source(data))
        if codes is None:
            assert found is None
        else:
            assert isinstance(found, gateway.DeliveryStatus)
            assert [said.code for said in found.recipients] == codes
            assert found.recipients[0].addresses == (ADDRESS("you@example.net"),)


async def knows_an_old_server(example: Example) -> None:
    class Sent:
        async def find(
            self, *, from_id: str = "", env_id: str = "", message_id: str = ""
        ) -> Sequence[gateway.QueuedMessage]:
            return [a_message()] if message_id == "<7@example.org>" else []

        async def get(self, queue_msg_id: int) -> gateway.QueuedMessage | None:
            return None

    failed = gateway.RecipientStatus(action="failed", code=550)
    for subject, answer in (
        ("Message bounced: <7@example.org>", (gateway.ReportMatch(7, "subject", failed),)),
        ("Message bounced: <8@example.org>", ()),
        ("hi", ()),
    ):
        report = dataclasses.replace(a_report(), subject=subject)
        assert await example.stages.match_report(report=report, sent=Sent()) == answer


async def routes(example: Example) -> None:
    for attempts, transport in ((3, "rest"), (4, "backup")):
        message = dataclasses.replace(a_message(), attempts=attempts)
        assert await example.stages.route(message=message, routes=()) == Route(transport)


async def files(example: Example) -> None:
    kind = example.hooks.transports["maildrop"]
    assert isinstance(kind, TransportType)
    settings = kind.settings.model_validate({"directory": "drop"}, context={"config_dir": example.directory})
    [outcome] = await kind.make("files", settings, a_network()).deliver(a_delivery())
    assert outcome.result is Result.DELIVERED
    assert [file.name for file in (example.directory / "drop").iterdir()] == ["7.eml"]


async def times(example: Example) -> None:
    lines: list[str] = []
    logger = logging.getLogger("example")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        async with example.stages.around_attempt(delivery=a_delivery()):
            assert lines == []
    finally:
        logger.removeHandler(handler)
    [line] = lines
    assert re.fullmatch(r"submission sub-7: attempt took \d\.\d\d s", line)


async def spares_a_server(example: Example) -> None:
    for host, answer in (
        ("mx.old.example", Limits(connections=2, per_minute=30)),
        ("mx.example.org", None),
    ):
        hop = NextHop("example.net", host, address="192.0.2.1", port=25, transport="direct")
        assert await example.hooks.gateway.shape(hop=hop) == answer


async def retries(example: Example) -> None:
    for attempts, answer in (
        (3, RetryAt(NOW + timedelta(minutes=10))),
        (4, GiveUp("four attempts failed")),
    ):
        message = dataclasses.replace(a_message(), attempts=attempts)
        assert await example.stages.retry(message=message, outcome=a_failure(), now=NOW) == answer


async def writes_failures(example: Example) -> None:
    await example.stages.event(event=an_event())
    failed = dataclasses.replace(an_event(), name="failed", error="no such user")
    await example.stages.event(event=failed)
    assert (example.directory / "failures").read_text() == f"{failed.time} you@example.net: no such user\n"


async def chats(example: Example) -> None:
    asked = example.stages
    body = await asked.format_webhook(event=an_event(), format_name="chat")
    assert body == WebhookBody(b'{"text": "delivered: hi to you@example.net"}')
    assert await asked.format_webhook(event=an_event(), format_name="mox") == WebhookBody(b"rest")


async def signs(example: Example) -> None:
    headers = await example.stages.sign_webhook(headers={"A": "b"}, call=a_webhook_call())
    digest = hmac.new(b"secret", b"{}", "sha256").hexdigest()
    assert headers == {"A": "b", "X-Signature": f"sha256={digest}"}


async def counts(example: Example) -> None:
    call = a_webhook_call()
    async with example.stages.around_webhook(call=call):
        assert example.module.under_way[call.url] == 1
    assert example.module.under_way[call.url] == 0


async def closes_the_door(example: Example) -> None:
    for sender, answer in (
        (None, None),
        (ADDRESS("x@example.org"), None),
        (ADDRESS("x@spam.example"), Reject(550, "5.7.1", "not from there")),
    ):
        reception = dataclasses.replace(a_reception(), reverse_path=sender)
        found: Accept | Reject | None = await example.hooks.gateway.receive_policy(reception=reception)
        assert found == answer


async def sorts_by_detail(example: Example) -> None:
    for recipient, chosen, answer in (
        ("app+orders@example.org", "Inbox", "Orders"),
        ("app+orders@example.org", "Junk", None),
        ("app@example.org", "Inbox", None),
    ):
        found = await example.stages.mailbox(
            reception=a_reception(), account="app", recipient=ADDRESS(recipient), chosen=chosen
        )
        assert found == answer


async def asks_a_company(example: Example) -> None:
    for login, password, answer in (
        ("ada", "lovelace", gateway.Authenticated(account="app")),
        ("ada", "byron", False),
        ("ada@example.org", "lovelace", None),
    ):
        given = gateway.Credentials(login=login, password=password, remote_ip="192.0.2.1")
        assert password not in repr(given)
        assert await example.hooks.gateway.authenticate(credentials=given) == answer


async def knows_ages(example: Example) -> None:
    plugin, method = example.hooks.added.api_methods["AccountAge"]
    assert plugin == "example"
    call = gateway.ApiCall(account="app", login=ADDRESS("app@example.org"))
    query = method.request(**method.example_request)
    assert await method.handler(call, query) == method.example_response
    with pytest.raises(gateway.ApiError, match="must be years"):
        await method.handler(call, method.request(Unit="days"))


async def says_hello(example: Example) -> None:
    _, app = example.hooks.added.pages["hello"]
    transport = httpx.ASGITransport(app=app, root_path="/plugins/hello")
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/plugins/hello/")).text == "hello"


async def has_a_motto(example: Example) -> None:
    _, command = example.hooks.added.commands["motto"]
    assert CliRunner().invoke(command).output == "mail for all\n"


def a_context(example: Example) -> gateway.GatewayContext:
    return gateway.GatewayContext(hostname="gateway.example", data_dir=example.directory, now=lambda: NOW)


async def counts_large_mail(example: Example) -> None:
    for size in (10, 1_000_001):
        await example.stages.submission(submission=a_submission(data=b"x" * size))
    [(plugin, collector)] = example.hooks.added.metrics
    [family] = collector.collect()
    assert plugin == "example"
    assert ("acme_large_messages_total", 1.0) in [(one.name, one.value) for one in family.samples]


async def beats(example: Example) -> None:
    _, service = example.hooks.added.services["heartbeat"]
    file = example.directory / "plugins" / "acme.heartbeat" / "alive"
    async with trio.open_nursery() as nursery:
        await nursery.start(service, a_context(example))
        with trio.fail_after(PATIENCE):
            while not file.exists() or not file.read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert file.read_text() == NOW.isoformat()


async def has_another_disk(example: Example) -> None:
    _, store = example.hooks.added.content_stores["other-disk"]
    await store.put("a" * 32, BytesContent(b"a message"))
    assert await (await store.open("a" * 32)).read(2, 100) == b"message"
    assert [name async for name in store.names(NOW.replace(year=2100))] == ["a" * 32]
    await store.delete(["a" * 32, "b" * 32])
    assert list(example.directory.iterdir()) == []


async def has_a_directory(example: Example) -> None:
    await example.hooks.gateway.start(gateway=a_context(example))
    assert (example.directory / "plugins" / "acme.archive" / "README").exists()


async def clears_up(example: Example) -> None:
    file = a_context(example).directory("acme.archive") / "README"
    file.write_text("")
    await example.hooks.gateway.stop(gateway=a_context(example))
    assert not file.exists()


async def takes_its_time(example: Example) -> None:
    for error, result in (("rate limit exceeded", Result.TEMPORARY), ("no such user", Result.PERMANENT)):
        outcome = gateway.Outcome.permanent(error, code=550)
        found = await example.stages.classify_outcome(outcome=outcome, message=a_message(), transport="mx")
        assert found.result is result


# By the section that an example stands in.
EXAMPLES: Mapping[str, tuple[Callable[[Example], Awaitable[None]], Mapping[str, Any]]] = {
    "A first plugin": (refuses_lotteries, {}),
    "Settings": (names_an_organization, {"name": "Acme Inc.", "added": "added"}),
    "template_engines": (fills_dollars, {}),
    "submission": (redirects, {}),
    "sign": (seals, {}),
    "hold": (holds, {}),
    "base_address": (joins_a_company, {}),
    "suppressed": (sends_invoices, {}),
    "route": (routes, {}),
    "transports": (files, {}),
    "around_attempt": (times, {}),
    "shape": (spares_a_server, {}),
    "classify_outcome": (takes_its_time, {}),
    "retry": (retries, {}),
    "suppress": (waits_for_a_mailbox, {}),
    "receive_policy": (closes_the_door, {}),
    "mailbox": (sorts_by_detail, {}),
    "read_report": (reads_a_field, {}),
    "match_report": (knows_an_old_server, {}),
    "event": (writes_failures, {"file": "failures"}),
    "format_webhook": (chats, {}),
    "sign_webhook": (signs, {"key": "secret"}),
    "around_webhook": (counts, {}),
    "authenticate": (asks_a_company, {}),
    "api_methods": (knows_ages, {}),
    "pages": (says_hello, {}),
    "commands": (has_a_motto, {}),
    "metrics": (counts_large_mail, {}),
    "services": (beats, {}),
    "content_store": (has_another_disk, {"directory": ""}),
    "start": (has_a_directory, {}),
    "stop": (clears_up, {}),
}
SECTIONS = page.sections(page.FIRST, 2) | page.HOOKS


def plugins_in(section: str) -> list[str]:
    return [source for source in page.code("python", SECTIONS[section]) if "@hookimpl" in source]


def test_every_example_is_run() -> None:
    assert {title for title in SECTIONS if plugins_in(title)} == set(EXAMPLES)
    # All other Python in these sections are the hooks' signatures.
    blocks = [block for text in SECTIONS.values() for block in page.code("python", text)]
    assert len(blocks) == len(EXAMPLES) + len(SPECS)


@pytest.mark.parametrize("section", EXAMPLES)
async def test_example(section: str, tmp_path: Path) -> None:
    check, settings = EXAMPLES[section]
    [source] = plugins_in(section)
    await check(Example(source, tmp_path, settings))
