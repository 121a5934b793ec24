"""`workers = N`: several processes for one gateway, as operators run it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import psutil
import pytest

from gateway.accounts.logins import FAILURES_ALLOWED
from tests.commands import GATEWAY, PATIENCE, Localserve, environment, gateway, launch, localserve
from tests.under_load import (
    WORKERS,
    Load,
    Webhooks,
    configured,
    drain,
    processes,
    retired,
    send_and_be_told,
    wait_for,
    wait_for_workers,
)


def test_all_of_them_serve_and_end_together(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        wait_for_workers(running)
        workers = processes(running)
        send_and_be_told(running, webhooks)
        log = running.log.read_text()
        queued_by = set(re.findall(r"(worker \d) INFO gateway.outbound.submission: queued", log))
        assert len(queued_by) > 1, "the system gave all connections to one"
        assert running.stop(signal.SIGINT) == 0
        assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in running.log.read_text()


def test_killed_workers_are_started_again_and_lose_nothing(tmp_path: Path, webhooks: Webhooks) -> None:
    rng = random.Random()
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        load = Load(running.api)
        for _ in range(6):
            wait_for_workers(running)
            load.wait_for_more()
            time.sleep(rng.uniform(0.0, 0.4))
            rng.choice(processes(running)).kill()
        wait_for_workers(running)
        load.wait_for_more()
        load.stop()
        drain(running)

        def all_told() -> bool:
            # The calls that were cut off would wait for 30 s.
            running.command("webhook", "schedule", "--all")
            told = load.acknowledged.keys() <= webhooks.events("delivered").keys()
            return told and set(load.acknowledged.values()) <= webhooks.subjects_received()

        wait_for(all_told, lambda: load.acknowledged.keys() - webhooks.events("delivered").keys())
        messages = retired(running)
        assert all(m["RetiredAs"] == "delivered" for m in messages)
        recipients = Counter((m["SubmissionID"], m["Recipient"]) for m in messages)
        assert set(recipients.values()) == {1}, "something is twice in the queue"
        assert running.stop() == 0
    assert "ended with status -9; its log says more; it is started again" in running.log.read_text()


def test_workers_end_with_their_supervisor(tmp_path: Path, webhooks: Webhooks) -> None:
    directory = configured(tmp_path / "gw", webhooks.url)
    with localserve(directory) as running:
        wait_for_workers(running)
        workers = processes(running)
        running.kill()
        psutil.wait_procs(workers, timeout=PATIENCE)
        assert not any(worker.is_running() for worker in workers)
    with localserve(directory) as running:
        assert running.stop() == 0


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_a_supervisor_killed_while_workers_start(tmp_path: Path, webhooks: Webhooks, seconds: float) -> None:
    """They end without a traceback, whatever they were at."""
    directory = configured(tmp_path / "gw", webhooks.url)
    process, _, log = launch(directory)
    time.sleep(seconds)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert not alive
    assert "Traceback" not in log.read_text()


def test_a_directory_is_in_use_while_a_worker_runs(tmp_path: Path, webhooks: Webhooks) -> None:
    """Else what it still delivers would be taken for cut off, and sent twice."""
    directory = configured(tmp_path / "gw", webhooks.url)
    with localserve(directory) as running:
        wait_for_workers(running)
        workers = processes(running)
        with smtplib.SMTP("127.0.0.1", running.smtp_port) as client:
            client.ehlo()
            client.docmd("MAIL FROM:<a@example.org>")  # under way, so that it has the grace period
            running.kill()
            refused = gateway("localserve", "--dir", directory)
            assert refused.returncode == 1
            assert "another gateway uses it" in refused.stderr
        psutil.wait_procs(workers, timeout=PATIENCE)


def test_a_second_signal_ends_all_at_once(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        wait_for_workers(running)
        workers = processes(running)
        with smtplib.SMTP("127.0.0.1", running.smtp_port) as client:
            client.ehlo()
            client.docmd("MAIL FROM:<a@example.org>")  # under way, so that it has the grace period
            running.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "stopping" in running.log.read_text(), running.log.read_text)
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(PATIENCE) == 1
        psutil.wait_procs(workers, timeout=PATIENCE)
        assert not any(worker.is_running() for worker in workers)


def test_who_connects_while_a_worker_is_away_is_served_later(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url, workers=2)) as running:
        wait_for_workers(running, 2)
        for worker in processes(running):
            worker.kill()
        with smtplib.SMTP("127.0.0.1", running.smtp_port, timeout=PATIENCE) as client:
            client.sendmail("a@example.org", ["mox@localhost"], b"Subject: later\r\n\r\nhi\r\n")
        wait_for(lambda: "later" in webhooks.subjects_received(), lambda: webhooks.got)


def test_a_new_password_counts_at_every_worker(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        wait_for_workers(running)

        def answers(password: str) -> set[int]:
            return {login(running, password) for _ in range(20)}

        assert answers("moxmoxmox") == {200}
        changed = running.command("account", "password", "mox", "--password", "another-password")
        assert changed.returncode == 0, changed.stderr
        wait_for(lambda: answers("another-password") == {200}, lambda: "the new one is refused")
        wait_for(lambda: answers("moxmoxmox") <= {401, 429}, lambda: "the old one is taken")


def test_failed_logins_are_counted_by_all(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        wait_for_workers(running)
        answers = [login(running, "wrong") for _ in range(FAILURES_ALLOWED)]
        assert answers == [401] * FAILURES_ALLOWED
        # Whichever worker has the connection.
        assert {login(running, "wrong") for _ in range(10)} == {429}
        assert running.stop() == 0


def login(running: Localserve, password: str) -> int:
    """The status of a request over a connection of its own."""
    curl = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--user", f"mox@localhost:{password}",
         "--data", "request={}", running.api + "SuppressionList"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    return int(curl.stdout)


def test_a_port_in_use_is_said_so(tmp_path: Path, webhooks: Webhooks) -> None:
    """Also by another gateway with workers, with which the system would let this one share it."""
    with localserve(configured(tmp_path / "one", webhooks.url)) as running:
        other = configured(tmp_path / "two", webhooks.url)
        config = other / "gateway.toml"
        config.write_text(
            re.sub(
                r'(\[smtp\]\nlisten = \[")[^"]*', rf"\g<1>127.0.0.1:{running.smtp_port}", config.read_text()
            )
        )
        refused = gateway("localserve", "--dir", other)
        assert refused.returncode == 1
        assert (
            f"cannot listen on 127.0.0.1:{running.smtp_port} for smtp.listen: the port is in use"
            in refused.stderr
        )


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_serve_says_in_one_line_why_it_does_not_start(
    tmp_path: Path, webhooks: Webhooks, workers: int
) -> None:
    config = configured(tmp_path / "gw", webhooks.url, workers) / "gateway.toml"
    text = config.read_text()
    smtp = re.search(r'\[smtp\]\nlisten = \["127.0.0.1:(\d+)"', text)
    assert smtp is not None

    def refused() -> str:
        done = gateway("serve", "--dir", config.parent)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        return line

    with socket.create_server(("127.0.0.1", int(smtp[1]))):
        assert f"cannot listen on 127.0.0.1:{smtp[1]} for smtp.listen: the port is in use; " in refused()
    config.write_text(text.replace("[smtp]", "[smtp"))
    assert "is not valid TOML" in refused()
    config.write_text(text.replace('data_dir = "data"', 'data_dir = "/proc/nothing"'))
    assert "/proc/nothing: cannot be written" in refused()
    config.write_text(text)
    with localserve(config.parent) as running:
        wait_for_listening(running)
        assert f"another gateway uses it (process {running.process.pid})" in refused()
        assert running.stop() == 0


def wait_for_listening(running: Localserve) -> None:
    wait_for(lambda: running.command("queue", "list").returncode == 0, running.log.read_text)


def test_what_a_worker_finds_wrong_is_said_in_one_line(tmp_path: Path, webhooks: Webhooks) -> None:
    directory = configured(tmp_path / "gw", webhooks.url)
    (directory / "dkim" / "localhost.pem").write_text("no key")
    refused = gateway("localserve", "--dir", directory)
    assert refused.returncode == 1
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("gateway: ")]
    assert "localhost.pem" in line
    assert "Traceback" not in refused.stderr


def test_metrics_and_plugins_of_all(tmp_path: Path, webhooks: Webhooks) -> None:
    with localserve(configured(tmp_path / "gw", webhooks.url)) as running:
        wait_for_workers(running)
        sent = send_and_be_told(running, webhooks)
        text = metrics(running)
        delivered = re.findall(r'gateway_attempts_total\{event="delivered",worker="(\d)"\} ([\d.]+)', text)
        assert {worker for worker, _ in delivered} == {"0", "1"}
        count = sum(float(value) for _, value in delivered)
        assert count >= sent
        assert text.count("# TYPE gateway_attempts_total ") == 1
        assert 'gateway_queue_messages{state="queued"}' in text
        rows = json.loads(running.command("plugins", "hooks", "--json").stdout)["Hooks"]
        [route] = [row for row in rows if row["Hook"] == "route"]
        assert sum(plugin["Calls"] for plugin in route["Plugins"]) >= count
        assert running.stop() == 0


def metrics(running: Localserve) -> str:
    port = running.web_port + 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        return str(answer.read(), "utf-8")


def test_the_limit_of_a_destination_is_that_of_all(tmp_path: Path, webhooks: Webhooks) -> None:
    """One connection for each message, and never more than the limit, whichever worker delivers."""
    server = Counting()
    more = f"""
[queue]
max_deliveries_per_destination = 2

[transports.counting]
type = "smtp"
host = "127.0.0.1"
port = {server.port}
tls = "none"
"""
    directory = configured(tmp_path / "gw", webhooks.url, more=more)
    config = directory / "gateway.toml"
    config.write_text(config.read_text().replace('transport = "localserve"', 'transport = "counting"'))
    with localserve(directory) as running:
        wait_for_workers(running)
        for _ in range(10):
            sent = subprocess.run(
                ["curl", "-s", "--user", "mox@localhost:moxmoxmox", "--data",
                 'request={"To": [{"Address": "u@example.org"}], "Subject": "hi", "Text": "hi"}',
                 running.api + "Send"],
                capture_output=True, text=True, timeout=PATIENCE, check=True,
            )  # fmt: skip
            assert "Submissions" in sent.stdout
        wait_for(lambda: server.taken == 10, lambda: (server.taken, running.log.read_text()[-2000:]))
        assert server.most == 2
        assert running.stop() == 0
    server.close()


class Counting:
    """An SMTP server that takes a while for each message, and counts how many it has at a time."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.taken = self.most = self._now = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, client.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 counting\r\n")
            for line in stream:
                verb = line[:4].upper()
                if verb == b"EHLO":
                    stream.write(b"250 counting\r\n")
                elif verb == b"MAIL":
                    with self._lock:
                        self._now += 1
                        self.most = max(self.most, self._now)
                    time.sleep(0.2)
                    stream.write(b"250 ok\r\n")
                elif verb == b"DATA":
                    stream.write(b"354 go on\r\n")
                    while stream.readline() not in (b".\r\n", b""):
                        pass
                    with self._lock:
                        self._now -= 1
                        self.taken += 1
                    stream.write(b"250 taken\r\n")
                else:
                    stream.write(b"250 ok\r\n")


def test_serve(tmp_path: Path, webhooks: Webhooks) -> None:
    directory = configured(tmp_path / "gw", webhooks.url, workers=1)
    process = subprocess.Popen(
        [*GATEWAY, "serve", "--dir", str(directory)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "The gateway serves.\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert re.search(r"^Web API: +127\.0\.0\.1:\d+$", process.stdout.read(), re.MULTILINE)
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait()


def test_a_worker_that_is_started_again_has_the_time_of_the_others(
    tmp_path: Path, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it queues would not be due for them, and what they lease would have run out for it."""
    set_on = tmp_path / "set_on"
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, time
machine = time.time
time.time = lambda: machine() + 3600 * os.path.exists({str(set_on)!r})
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    roles = "[roles]\nweb = [0]\nsmtp = [1]\nsubmission = [1]\ndeliver = [1]\n"
    with localserve(configured(tmp_path / "gw", webhooks.url, 2, roles)) as running:
        wait_for_workers(running, 2)
        set_on.touch()
        pid = re.findall(r"worker 0 serves, process (\d+)", running.log.read_text())[-1]
        next(one for one in processes(running) if one.pid == int(pid)).kill()
        wait_for(
            lambda: len(re.findall("worker 0 serves", running.log.read_text())) == 2, running.log.read_text
        )
        send_and_be_told(running, webhooks)
        assert running.stop() == 0
