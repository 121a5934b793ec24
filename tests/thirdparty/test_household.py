"""The gateway's own parts, by a third party: logins, methods, pages, commands, services, start and stop."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.clock import ManualClock
from gateway.errors import ConfigError, StartError
from tests.commands import PATIENCE
from tests.running import Receiver, Running, running, write_configuration
from tests.thirdparty.failing import Way, every_way, failing, failures
from tests.thirdparty.gateways import usual, with_sets

NAME = "acme.household"


def household(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return with_sets([NAME, *usual()], {NAME: settings}, submission={"login_without_tls": True})


async def login(gateway: Running, user: str, password: str) -> httpx.Response:
    return await gateway.api.post("SuppressionList", json={}, auth=(user, password))


def smtp_login(gateway: Running, user: str, password: str) -> None:
    address = gateway.gateway.addresses["submission"][0]
    with smtplib.SMTP(address.host, address.port, timeout=PATIENCE) as client:
        client.ehlo()
        client.user, client.password = user, password
        client.auth("PLAIN", client.auth_plain)
        client.sendmail("mox@localhost", ["user@example.org"], b"From: mox@localhost\r\n\r\nhi\r\n")


async def test_users_of_another_service_log_in(tmp_path: Path, webhooks: Receiver) -> None:
    async with running(tmp_path, webhooks, change=household(passwords={"ada": "lovelace"})) as gateway:
        assert (await login(gateway, "ada", "lovelace")).status_code == 200
        assert (await login(gateway, "ada", "wrong")).status_code == 401
        assert (await login(gateway, "mox@localhost", "moxmoxmox")).status_code == 200  # the gateway's own
        assert (await login(gateway, "mox@localhost", "wrong")).status_code == 401
        await trio.to_thread.run_sync(smtp_login, gateway, "ada", "lovelace")
        await webhooks.event("delivered")
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            await trio.to_thread.run_sync(smtp_login, gateway, "ada", "wrong")
        assert refused.value.smtp_code == 535


@pytest.mark.parametrize(
    "settings",
    [
        {"account": "nobody", "passwords": {"ada": "x"}},
        {"fails": ["authenticate"]},
        {"hangs": ["authenticate"], "limits": {"authenticate": 0.2}},
    ],
    ids=["account", "raise", "hang"],
)
async def test_nobody_is_let_in_by_a_plugin_that_fails(
    settings: dict[str, Any], tmp_path: Path, webhooks: Receiver
) -> None:
    async with running(tmp_path, webhooks, change=household(**settings)) as gateway:
        answer = await login(gateway, "ada", "x")
        assert (answer.status_code, answer.json()["Code"]) == (400, "server"), answer.text
        said = "yours could not be checked, so nothing was done; try again later"
        assert said in answer.json()["Message"]
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            await trio.to_thread.run_sync(smtp_login, gateway, "ada", "x")
        assert refused.value.smtp_code == 454


@every_way
async def test_logins_wait_for_a_plugin(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "authenticate")) as gateway:
        answer = await login(gateway, "mox@localhost", "moxmoxmox")
        assert (answer.status_code, answer.json()["Code"]) == (400, "server"), answer.text
    assert len(failures(caplog, way, "authenticate")) == 1


@every_way
async def test_an_outcome_stands_when_nobody_can_say_what_it_means(
    way: Way, tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=failing(way, "classify_outcome")) as gateway:
        await gateway.send("user550@example.org")
        await webhooks.event("failed", SMTPCode=550)
    assert len(failures(caplog, way, "classify_outcome")) == 1


async def test_classify_outcome(tmp_path: Path, webhooks: Receiver) -> None:
    change = with_sets(["acme.patient", *usual()])
    async with running(tmp_path, webhooks, change=change, clock=ManualClock()) as gateway:
        await gateway.send("user550@example.org")
        delayed = await webhooks.event("delayed", SMTPCode=550)
        assert delayed["Error"].startswith("acme waits: ")
        [item] = await gateway.messages()
        assert item.state == "queued"


async def test_methods_of_the_api(
    tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=household()) as gateway:
        assert await gateway.call("AcmeShout", {"Word": "hi"}) == {"Text": "HI, mox mox@localhost"}
        for word, status, code, said in (
            ("", 400, "user", "Word: is empty; give one"),
            ("raise", 400, "server", f"plugin {NAME} failed"),
            ("hang", 400, "server", f"plugin {NAME} failed"),
            ("nonsense", 400, "server", f"plugin {NAME} failed"),
        ):
            answer = await gateway.api.post("AcmeShout", json={"Word": word})
            assert (answer.status_code, answer.json()["Code"]) == (status, code), word
            assert said in answer.json()["Message"]
            # What such a method did before it failed, nobody knows.
            known = "how far it came is not known; look what it did before you try again"
            assert (known in answer.json()["Message"]) == (code == "server")
            assert "queued" not in answer.json()["Message"]
        typo = await gateway.api.post("AcmeShout", json={"Wrod": "hi"})
        assert (typo.status_code, typo.json()["Code"]) == (400, "protocol")
        assert "Wrod" in typo.json()["Message"]
        assert (await gateway.api.post("AcmeShout", json={"Word": "hi"}, auth=("x", "y"))).status_code == 401
        assert "Say a word loudly." in (await gateway.api.get("")).text
        assert "Word" in (await gateway.api.get("AcmeShout")).text
        assert gateway.gateway.hooks.calls[NAME, "api_methods"].failures == 3


async def test_pages(tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, webhooks, change=household()) as gateway:
        root = str(gateway.api.base_url).partition("/webapi")[0]
        async with httpx.AsyncClient(base_url=root) as browser:
            assert (await browser.get("/plugins/acme/hello/ada")).text == "hello ada"
            assert (await browser.post("/plugins/acme/echo", content=b"abc")).content == b"abc"
            assert (await browser.get("/plugins/acme/nothing")).status_code == 404
            assert (await browser.get("/plugins/other/")).status_code == 404
            broken = await browser.get("/plugins/broken/")
            assert (broken.status_code, "acme broke down" in broken.text) == (500, False)
            assert (await browser.get("/plugins/acme/hello/ada")).text == "hello ada"
    assert f"plugin '{NAME}', page 'broken': raised RuntimeError: acme broke down" in caplog.text


async def test_service_start_and_stop(tmp_path: Path, webhooks: Receiver) -> None:
    log = tmp_path / "data" / "plugins" / NAME / "log"
    async with running(tmp_path, webhooks, change=household(service_fails=1)) as gateway:
        assert log.read_text() == "start\n"  # the service failed, and the gateway serves
        await gateway.send()

        async def lines() -> list[str]:
            return log.read_text().splitlines()

        await gateway.until(lines, ["start", "service"])
        assert gateway.gateway.hooks.calls[NAME, "services"].failures == 1
    assert log.read_text() == "start\nservice\nstop\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fails": ["start"]}, "raised RuntimeError: acme broke down"),
        ({"hangs": ["start"], "limits": {"start": 0.2}}, "no answer in 0.2 s"),
    ],
    ids=["raise", "hang"],
)
async def test_the_gateway_does_not_start_without_a_plugin_that_must_hear_of_it(
    settings: dict[str, Any], said: str, tmp_path: Path, webhooks: Receiver
) -> None:
    with pytest.raises(StartError, match=f"plugin '{NAME}', hook 'start': .*{said}"):
        async with running(tmp_path, webhooks, change=household(**settings)):
            pass
    settings["on_error"] = {"start": "skip"}
    async with running(tmp_path, webhooks, change=household(**settings)) as gateway:
        await gateway.send()


@pytest.mark.parametrize("settings", [{"fails": ["stop"]}, {"hangs": ["stop"], "limits": {"stop": 0.2}}])
async def test_the_gateway_stops_nevertheless(
    settings: dict[str, Any], tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, webhooks, change=household(**settings)):
        pass
    assert f"plugin '{NAME}', hook 'stop'" in caplog.text


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_configuration(tmp_path, "http://127.0.0.1:1/")
    text = config.read_text().replace('sets = ["default"', 'sets = ["acme", "default"')
    config.write_text(text + f'\n[plugin_sets.acme]\nplugins = ["{NAME}"]\n')
    monkeypatch.setenv("GATEWAY_DIR", str(tmp_path))
    assert "acme-motto" in CliRunner().invoke(main, ["--help"]).output
    assert CliRunner().invoke(main, ["acme-motto", "mail"]).output == "mail for all\n"
    config.write_text(text + '\n[plugin_sets.acme]\nplugins = ["acme.missing"]\n')
    broken = CliRunner().invoke(main, ["--help"])
    assert broken.exit_code == 0
    assert "no plugin 'acme.missing' is installed" in broken.output


async def test_a_method_of_the_gateways_own_name_is_refused(tmp_path: Path, webhooks: Receiver) -> None:
    from gateway import ApiMethod, hookimpl
    from tests.thirdparty.distribution.acme_mail import household as module

    method = module.Household().api_methods()["AcmeShout"]

    class Taken:
        @hookimpl
        def api_methods(self) -> dict[str, ApiMethod]:
            return {"Send": method}

    change = with_sets(["taken", *usual()])
    with pytest.raises(ConfigError, match="the API has a method Send already"):
        async with running(tmp_path, webhooks, change=change, plugins={"taken": Taken()}):
            pass


async def test_metrics(tmp_path: Path, webhooks: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, webhooks, change=household()) as gateway:
        await gateway.send()
        await gateway.send("user550@example.org")
        await webhooks.event("delivered")
        await webhooks.event("failed")
        await webhooks.incoming()
        [address] = gateway.gateway.addresses["metrics"]
        async with httpx.AsyncClient(base_url=f"http://{address}") as prometheus:

            async def values() -> dict[str, str]:
                answer = await prometheus.get("/metrics")
                assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
                names = [line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")]
                assert len(names) == len(set(names))
                lines = [line for line in answer.text.splitlines() if line[0] != "#"]
                return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}

            for sample, wanted in (
                ('gateway_attempts_total{event="delivered"}', "1.0"),
                ('gateway_attempts_total{event="failed"}', "1.0"),
                ('gateway_submissions_total{via="api"}', "2.0"),
                ("gateway_received_total", "1.0"),
                ('gateway_webhook_calls_total{result="success"}', "3.0"),
                ('gateway_queue_messages{state="queued"}', "0.0"),
                ('gateway_queue_messages{state="held"}', "0.0"),
                ('gateway_queue_messages{state="due"}', "0.0"),
                ('gateway_plugin_failures_total{hook="route",plugin="mox.routing"}', "0.0"),
                ('gateway_plugin_suspended{hook="route",plugin="mox.routing"}', "0.0"),
                ('gateway_plugin_calls_total{hook="route",plugin="mox.routing"}', "2.0"),
                ("acme_logins", "7.0"),
            ):
                with trio.fail_after(PATIENCE):
                    while (found := await values()).get(sample) != wanted:  # noqa: ASYNC110
                        await trio.sleep(0.05)
            assert float(found['gateway_connections{listener="web"}']) >= 1
            assert (await prometheus.get("/")).status_code == 404
    assert f"plugin '{NAME}', hook 'metrics': raised RuntimeError" in caplog.text
