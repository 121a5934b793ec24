"""Whose mail it is, and where it goes: aliases, postmaster, catchall, rules for mailboxes."""

from __future__ import annotations

import smtplib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway import Reception, Reject, hookimpl
from gateway.accounts.directory import Directory
from gateway.config.load import parse
from gateway.config.settings import Settings
from gateway.errors import ConfigError
from gateway.mail.address import Address
from gateway.store.listing import Filter
from tests.commands import PATIENCE
from tests.running import Receiver, Running, running, with_plugins

MAIL = b"From: <x@example.org>\r\nSubject: hi\r\n\r\nhi\r\n"
CONFIGURED: dict[str, Any] = {
    "hostname": "gateway.example",
    "domains": {
        "example.org": {"catchall_separator": ["+", "-"], "aliases": {"sales": ["ann", "bob", "ann"]}},
        "example.net": {"catchall_account": "bob", "aliases": {"Sales.Team": ["ann"]}},
        "example.com": {},
    },
    "accounts": {
        "ann": {"addresses": ["ann@example.org", "postmaster@example.com"]},
        "bob": {"addresses": ["bob@example.org"]},
    },
}


def directory(**smtp: Any) -> Directory:
    return Directory(Settings.model_validate({**CONFIGURED, "smtp": smtp}))


@pytest.mark.parametrize(
    ("address", "accounts"),
    [
        ("ann@example.org", ["ann"]),
        ("ANN+x@example.org", ["ann"]),
        ("ann-x+y@example.org", ["ann"]),
        ("sales@example.org", ["ann", "bob"]),
        ("Sales+spring@example.org", ["ann", "bob"]),
        ("sales@example.net", ["bob"]),
        ("sales.team@example.net", ["ann"]),
        ("sales.team+x@example.net", ["bob"]),
        ("nobody@example.org", []),
        ("ann@example.com", []),
        ("ann@elsewhere.example", []),
        ("Postmaster@example.org", ["ann"]),
        ("postmaster@example.net", ["ann"]),
        ("POSTMASTER@gateway.example", ["ann"]),
        ("postmaster@elsewhere.example", []),
        # No way around: nothing else is special here (RFC 5321, 3.6.1).
        ("ann%example.org@example.com", []),
        ("user%elsewhere.example@example.org", []),
        ("elsewhere.example!user@example.org", []),
        ('"user@elsewhere.example"@example.org', []),
    ],
)
def test_whose_an_address_is(address: str, accounts: list[str]) -> None:
    assert list(directory().recipients(Address.parse(address))) == accounts


def test_who_postmaster_is() -> None:
    chosen = directory(postmaster="bob")
    assert chosen.recipients(Address.parse("postmaster@example.org")) == ("bob",)
    assert chosen.recipients(Address.parse("postmaster@example.com")) == ("ann",)  # it has that address


def test_an_alias_is_nobodys_address() -> None:
    assert directory().owner(Address.parse("sales@example.org")) is None
    assert not directory().may_send_from("ann", Address.parse("sales@example.org"))


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ({"sales": ["carl"]}, "there is no account 'carl'; add [accounts.carl]"),
        ({"ann": ["bob"]}, "domains.'example.org'.aliases.'ann': ann@example.org is ann's already"),
        (
            {"Sales": ["ann"], "sales": ["bob"]},
            "aliases.'sales': sales@example.org is another alias's already",
        ),
        ({"": ["ann"]}, "domains.'example.org'.aliases.'': "),
        ({"sales": []}, 'domains."example.org".aliases.sales: '),
    ],
)
def test_refused_aliases(aliases: dict[str, list[str]], said: str) -> None:
    raw = {**CONFIGURED, "domains": {**CONFIGURED["domains"], "example.org": {"aliases": aliases}}}
    with pytest.raises(ConfigError) as refused:
        parse(raw, Path("gateway.toml"))
    assert said in str(refused.value)


# --- On the wire ----------------------------------------------------------------------------------


def two_accounts(raw: dict[str, Any]) -> None:
    first = raw["accounts"]["mox"]
    raw["accounts"]["other"] = {
        "addresses": ["other@localhost"],
        "webhook_incoming": first["webhook_incoming"],
        "plugin": {"mox.mailbox": {"rules": [{"mailbox": "From x", "header_from": "x@*"}]}},
    }
    raw["domains"]["localhost"]["aliases"] = {"all": ["mox", "other"]}
    raw["domains"]["closed.example"] = {"disabled": True}
    raw["smtp"]["unknown_recipients"] = ""
    raw["smtp"]["postmaster"] = "other"


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "in a file"])
async def test_an_alias_of_two_accounts(tmp_path: Path, webhooks: Receiver, size: int) -> None:
    async with running(tmp_path, webhooks, change=two_accounts) as gateway:
        await gateway.mail(MAIL + (b"x" * 78 + b"\r\n") * (size // 80), to="all+x@localhost")
        arrived = await webhooks.incoming(2)
        told = sorted((p["Meta"]["RcptTo"], p["Meta"]["MailboxName"]) for p in arrived)
        assert told == [("all+x@localhost", "From x"), ("all+x@localhost", "Inbox")]  # each by its own rules
        ids = [p["Meta"]["MsgID"] for p in arrived]
        answers = [await gateway.api.post("MessageGet", json={"MsgID": n}) for n in ids]
        assert sorted(answer.status_code for answer in answers) == [200, 400]  # one of them is the other's
        rows = await gateway.gateway.store.read(
            lambda conn: conn.exec_driver_sql(
                "SELECT count(*), count(DISTINCT content_id) FROM received"
            ).one()
        )
        assert tuple(rows) == (2, 1)


async def test_postmaster_and_others(tmp_path: Path, webhooks: Receiver) -> None:
    def answers() -> list[int]:
        host, port = gateway.smtp
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("x@example.org")
            codes = [client.docmd(f"RCPT TO:<{to}>")[0] for to in asked]
            client.data(MAIL)
            return codes

    asked = {
        "Postmaster": 250,
        "postmaster@localhost": 250,
        "postmaster@closed.example": 250,
        "@relay.example,@other.example:mox@localhost": 250,  # the source route says nothing
        "user@closed.example": 450,
        "nobody@localhost": 550,
        "postmaster@elsewhere.example": 550,
        "@localhost:user@elsewhere.example": 550,
        "user%elsewhere.example@localhost": 550,
        "elsewhere.example!user@localhost": 550,
    }
    async with running(tmp_path, webhooks, change=two_accounts) as gateway:
        assert await trio.to_thread.run_sync(answers) == list(asked.values())
        arrived = await webhooks.incoming(4)
        assert {p["Meta"]["RcptTo"] for p in arrived} == {
            "Postmaster@localhost",  # no domain means ours
            "postmaster@localhost",
            "postmaster@closed.example",
            "mox@localhost",
        }


async def test_notices_of_an_account_that_is_gone_go_to_postmaster(
    tmp_path: Path, webhooks: Receiver
) -> None:
    async with running(tmp_path, webhooks, change=two_accounts) as gateway:
        await gateway.gateway.holding.add("", "", "")
        await gateway.send("user550@example.org")

    def without(raw: dict[str, Any]) -> None:
        two_accounts(raw)
        raw["accounts"] = {"other": raw["accounts"]["other"]}
        raw["domains"]["localhost"]["aliases"] = {}

    async with running(tmp_path, webhooks, change=without) as gateway:
        await gateway.gateway.authenticator.set_password("other", "pw")
        await gateway.gateway.operations.fail(Filter(), "")
        answer = await gateway.api.post("MessageList", json={}, auth=("other@localhost", "pw"))
        [notice] = answer.json()["Messages"]
        assert (notice["Subject"], notice["Meta"]["DSN"]) == ("Not delivered: hi", True)


async def test_rules_and_own_mailboxes(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        account = raw["accounts"]["mox"]
        account["mailboxes"] = ["Projects"]
        account["plugin"] = {
            "mox.mailbox": {
                "rules": [
                    {"mailbox": "Junk", "headers": {"subject": "*lottery*"}},
                    {"mailbox": "Lists", "headers": {"list-id": "*"}},
                    {"mailbox": "Local", "verified_domain": "localhost"},
                ]
            }
        }

    async with running(tmp_path, webhooks, change=change) as gateway:
        await gateway.mail(b"List-Id: <news.example>\r\n" + MAIL)
        await gateway.mail(b"List-Id: <news.example>\r\n" + MAIL.replace(b"hi\r\n", b"A Lottery\r\n", 1))
        await gateway.mail(MAIL)
        await webhooks.incoming(3)
        await gateway.send("mox@localhost")  # signed by us, so that its domain is verified
        arrived = await webhooks.incoming(4)
        assert [p["Meta"]["MailboxName"] for p in arrived] == ["Lists", "Junk", "Inbox", "Local"]
        msg_id = arrived[2]["Meta"]["MsgID"]
        for mailbox, status in (("Projects", 200), ("Lists", 200), ("projects", 400), ("Other", 400)):
            move = {"MsgID": msg_id, "DestMailboxName": mailbox}
            assert (await gateway.api.post("MessageMove", json=move)).status_code == status
        assert (await gateway.call("MessageGet", {"MsgID": msg_id}))["Meta"]["MailboxName"] == "Lists"


async def test_a_rule_that_is_wrong_is_refused_at_the_start(tmp_path: Path, webhooks: Receiver) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["accounts"]["mox"]["plugin"] = {"mox.mailbox": {"rules": [{"mailbox": "Junk"}]}}

    with pytest.raises(ConfigError, match=r"a rule needs one of mail_from, header_from") as refused:
        async with running(tmp_path, webhooks, change=change):
            pass
    assert "accounts.mox.plugin" in str(refused.value)


@pytest.mark.parametrize(
    ("tls", "options", "said"),
    [
        (False, [], b"by localhost with ESMTP id"),
        (True, [], b"by localhost with ESMTPS id"),
        (True, ["REQUIRETLS"], b"by localhost (requiretls) with ESMTPS id"),
        (True, ["SMTPUTF8", "BODY=8BITMIME"], b"by localhost with UTF8SMTPS id"),
    ],
)
async def test_how_it_came(gateway: Running, tls: bool, options: list[str], said: bytes) -> None:
    def deliver() -> None:
        host, port = gateway.smtp
        with smtplib.SMTP(host, port, timeout=PATIENCE) as client:
            client.ehlo()
            if tls:
                assert not client.has_extn("REQUIRETLS")
                client.starttls(context=ssl._create_unverified_context())
                client.ehlo()
            assert client.has_extn("REQUIRETLS") is tls
            assert client.esmtp_features["limits"] == "RCPTMAX=1000"
            client.sendmail("x@example.org", ["mox@localhost"], MAIL, mail_options=options)

    await trio.to_thread.run_sync(deliver)
    [arrived] = await gateway.webhooks.incoming()
    assert said in await gateway.raw(arrived["Meta"]["MsgID"])


class Tarpit:
    @hookimpl
    def receive_policy(self, reception: Reception) -> Reject | None:
        return Reject(550, "5.7.1", "not you", after=0.5) if reception.step == "rcpt" else None


async def test_a_refusal_that_is_kept_back(tmp_path: Path, webhooks: Receiver) -> None:
    def ask(gateway: Running) -> tuple[float, int]:
        with smtplib.SMTP(*gateway.smtp, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("x@example.org")
            started = time.monotonic()
            code, _ = client.rcpt("mox@localhost")
            return time.monotonic() - started, code

    async with running(
        tmp_path, webhooks, change=with_plugins("tarpit"), plugins={"tarpit": Tarpit()}
    ) as gateway:
        waited, code = await trio.to_thread.run_sync(ask, gateway)
    assert code == 550
    assert waited >= 0.5


@pytest.mark.parametrize("after", [-1.0, 3601.0, float("nan")])
def test_how_long_a_refusal_can_be_kept_back(after: float) -> None:
    with pytest.raises(ValueError, match="0 to 3600"):
        Reject(550, "5.7.1", "not you", after=after)
