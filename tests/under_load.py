"""A gateway in its own process under load: who sends, who receives its webhooks, and how all of it ends."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from tests.commands import PATIENCE, Localserve
from tests.running import write_configuration

SENDERS = 4
WORKERS = 2
LARGE = "line of a large message\n" * 8000  # its content is in a file


class Webhooks(ThreadingHTTPServer):
    """Receives webhooks; what it answered 200 it has."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The gateway was killed in the middle of a call."""

    def events(self, name: str) -> Counter[int]:
        return Counter(p["QueueMsgID"] for p in list(self.got) if p.get("Event") == name)

    def subjects_received(self) -> set[str]:
        return {p["Subject"] for p in list(self.got) if "Event" not in p}


class _Handler(BaseHTTPRequestHandler):
    server: Webhooks
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append(payload)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def configured(directory: Path, url: str, workers: int = WORKERS, more: str = "") -> Path:
    """The configuration of localserve, with workers."""
    config = write_configuration(directory, url)
    config.write_text(f"workers = {workers}\n{config.read_text()}\n{more}")
    return directory


class Load:
    """Sends until it is told to stop, and remembers what was acknowledged."""

    def __init__(self, api: str) -> None:
        self.acknowledged: dict[int, str] = {}  # QueueMsgID -> subject
        self._api, self._stop, self._count = api, False, 0
        self._large = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send_all, daemon=True) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self) -> None:
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before, lambda: "nothing is acknowledged")

    def wait_for_large(self) -> None:
        """Until a large message is acknowledged: on a slow machine few get through between two kills."""
        wait_for(lambda: self._large, lambda: "no large message is acknowledged")

    def stop(self) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def _send_all(self) -> None:
        while not self._stop:
            with self._lock:
                self._count += 1
                number = self._count
            try:
                self._send(number)
            except OSError:  # it is being killed, or not there yet
                time.sleep(0.05)

    def _send(self, number: int) -> None:
        message: dict[str, Any] = {
            "To": [{"Address": f"user{number}x@domain{number % 7}.example"}],
            "CC": [{"Address": f"copy{number}x@domain{number % 5}.example"}] if number % 3 == 0 else [],
            "Subject": f"message {number}",
            "Text": LARGE if number % 10 == 0 else "hello",
        }
        answer = send(self._api, message)
        with self._lock:
            for submission in answer["Submissions"]:
                assert submission["QueueMsgID"] not in self.acknowledged, "an ID came back"
                self.acknowledged[submission["QueueMsgID"]] = message["Subject"]
            self._large = self._large or message["Text"] == LARGE


def send(api: str, message: dict[str, Any]) -> Any:
    """What Send answers. Raises OSError."""
    credentials = base64.b64encode(b"mox@localhost:moxmoxmox").decode()
    request = urllib.request.Request(
        api + "Send",
        json.dumps(message).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)


def wait_for(done: Callable[[], bool], what: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < give_up, what()
        time.sleep(0.05)


def drain(gateway: Localserve) -> None:
    """Deliver everything: interrupted attempts would wait for 30 s."""

    def empty() -> bool:
        scheduled = gateway.command("queue", "schedule", "--all")
        assert scheduled.returncode == 0, scheduled.stderr
        return scheduled.stdout == "0 messages\n" and "no messages" in gateway.command("queue", "list").stdout

    wait_for(empty, lambda: gateway.command("queue", "list").stdout)


def retired(gateway: Localserve) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = gateway.command("queue", "list", "--retired", "--json", "--max", 1000, "--cursor", cursor)
        answer = json.loads(page.stdout)
        found += answer["Messages"]
        cursor = answer["NextCursor"]
        if not cursor:
            return found


# --- Several workers -------------------------------------------------------------------------------


def processes(running: Localserve) -> list[psutil.Process]:
    """The workers; their own children are no matter of ours."""
    return psutil.Process(running.process.pid).children()


def wait_for_workers(running: Localserve, number: int = WORKERS) -> None:
    """Until so many serve."""
    wait_for(lambda: len(serving(running)) == number, lambda: running.log.read_text()[-3000:])


def serving(running: Localserve) -> set[str]:
    """The worker processes that said that they serve, and still run."""
    said = re.findall(r"worker \d+ serves, process (\d+)", running.log.read_text())
    return {pid for pid in said if psutil.pid_exists(int(pid))} & {str(p.pid) for p in processes(running)}


def send_and_be_told(running: Localserve, webhooks: Webhooks) -> int:
    """Some load, until all of it is delivered; how many messages those were."""
    load = Load(running.api)
    wait_for(lambda: len(load.acknowledged) > 30, lambda: len(load.acknowledged))
    load.stop()
    wait_for(
        lambda: load.acknowledged.keys() <= webhooks.events("delivered").keys(),
        lambda: load.acknowledged.keys() - webhooks.events("delivered").keys(),
    )
    return len(load.acknowledged)
