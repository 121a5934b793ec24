"""`gateway localserve` as its users run it."""

from __future__ import annotations

import json
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.config.load import load
from gateway.errors import ConfigError
from tests.commands import GATEWAY, PATIENCE, Localserve, environment, gateway, localserve
from tests.ports import free_port_base
from tests.running import write_configuration


def refused(*arguments: object) -> str:
    """What a start that fails says: one line, no traceback, exit status 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.cli.serving.set_up_logging", lambda level, color: None)
        result = CliRunner().invoke(main, ["localserve", *map(str, arguments)])
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert (result.exit_code, result.stdout) == (1, "")
    return one_line(result.stderr)


def one_line(stderr: str) -> str:
    [line] = stderr.splitlines()
    assert line.startswith("gateway: ")
    return line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration as the first start writes it."""
    return write_configuration(tmp_path / "gw", "http://127.0.0.1:1/")


def wait_for(running: Localserve, text: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while text not in running.log.read_text():
        assert time.monotonic() < give_up, running.log.read_text()
        time.sleep(0.02)


def test_the_first_start_and_its_curl_line(tmp_path: Path) -> None:
    with localserve(tmp_path / "gw") as running:
        assert "\x1b" not in running.banner  # it is no terminal
        [line] = [line for line in running.banner.splitlines() if line.startswith("  curl ")]
        curl = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        answer = json.loads(curl.stdout)
        assert answer["Submissions"][0]["Address"] == "user@example.org"
        assert "mox@localhost, password moxmoxmox" in running.banner
        for command in re.findall(r"gateway queue .*", running.banner):
            shown = subprocess.run(
                ["sh", "-c", command.replace("gateway", GATEWAY[0], 1)],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=environment(),
                check=True,
            )
            assert "no messages" in shown.stdout or "user@example.org" in shown.stdout
        text = (tmp_path / "gw" / "gateway.toml").read_text()
        assert text.startswith("# ")
        assert (tmp_path / "gw" / "gateway.toml").stat().st_mode & 0o77 == 0
        for key in ("dkim/localhost.pem", "tls/localhost.key"):
            assert (tmp_path / "gw" / key).stat().st_mode & 0o77 == 0
        certificate = (tmp_path / "gw" / "tls" / "localhost.pem").read_bytes()
        assert running.stop(signal.SIGTERM) == 0
        assert "stopping" in running.log.read_text()
    # And the second.
    with localserve(tmp_path / "gw") as running:
        assert (tmp_path / "gw" / "gateway.toml").read_text() == text
        assert running.api in line
        assert (tmp_path / "gw" / "tls" / "localhost.pem").read_bytes() == certificate
        assert running.stop(signal.SIGINT) == 0
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "\x1b" not in log


def test_options(tmp_path: Path) -> None:
    base, other = free_port_base(), free_port_base()
    hooks = ("--webhook-out", "http://127.0.0.1:1/out", "--webhook-in", 'http://127.0.0.1:1/in"\\$x')
    with localserve(tmp_path / "gw", "--ip", "::1", "--port-base", base, *hooks, "--no-color") as running:
        assert (running.smtp_port, running.web_port) == (base + 25, base + 80)
        assert f"http://[::1]:{base + 80}/webapi/v0/" in running.banner
        assert 'http://127.0.0.1:1/out (sent), http://127.0.0.1:1/in"\\$x (received)' in running.banner
        assert f"[::1]:{base + 587} (STARTTLS), [::1]:{base + 465} (TLS)" in running.banner
        for port in (base + 25, base + 587):
            with socket.create_connection(("::1", port), timeout=PATIENCE) as connection:
                assert connection.recv(100).startswith(b"220 ")
        trusting = ssl.create_default_context(cafile=tmp_path / "gw" / "tls" / "localhost.pem")
        with smtplib.SMTP_SSL("::1", base + 465, timeout=PATIENCE, context=trusting) as client:
            assert client.ehlo()[0] == 250
        assert running.stop() == 0
    written = (tmp_path / "gw" / "gateway.toml").read_text()
    settings = load(tmp_path / "gw" / "gateway.toml")
    assert settings.accounts["mox"].webhook_incoming is not None
    assert settings.accounts["mox"].webhook_incoming.url == 'http://127.0.0.1:1/in"\\$x'
    # Given to a later start, they count for that start; mail still finds its way to this server.
    options = ("--ip", "127.0.0.2", "--port-base", other, "--webhook-out", "http://127.0.0.1:2/")
    with localserve(tmp_path / "gw", *options) as running:
        assert (running.smtp_port, running.web_port) == (other + 25, other + 80)
        assert f"http://127.0.0.2:{other + 80}/" in running.banner
        assert f"127.0.0.2:{other + 587} (STARTTLS), 127.0.0.2:{other + 465} (TLS)" in running.banner
        assert "http://127.0.0.1:2/ (sent)" in running.banner
        [line] = [line for line in running.banner.splitlines() if line.startswith("  curl ")]
        subprocess.run(["sh", "-c", line], capture_output=True, timeout=PATIENCE, check=True)
        wait_for(running, "delivered submission=")
        assert running.stop() == 0
    assert (tmp_path / "gw" / "gateway.toml").read_text() == written


def test_all_addresses(tmp_path: Path) -> None:
    with localserve(tmp_path / "gw", "--ip", "0.0.0.0") as running:
        assert f"http://localhost:{running.web_port}/" in running.banner
        assert "gateway account password mox --dir" in running.banner
        assert (
            f'host = "127.0.0.1"\nport = {running.smtp_port}'
            in (tmp_path / "gw" / "gateway.toml").read_text()
        )
        assert running.stop() == 0


def test_a_start_that_fails_in_a_process_of_its_own(config: Path) -> None:
    config.write_text(config.read_text().replace("[smtp]", "[smtp"))
    result = gateway("localserve", "--dir", config.parent)
    assert (result.returncode, result.stdout) == (1, "")
    assert "is not valid TOML" in one_line(result.stderr)


def test_a_second_signal_stops_at_once(tmp_path: Path, config: Path) -> None:
    config.write_text(f"grace = {10 * PATIENCE}\n" + config.read_text())
    with localserve(config.parent) as running, in_a_message(running):
        running.process.send_signal(signal.SIGTERM)
        wait_for(running, "stopping")
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.3)
        assert running.stop(signal.SIGTERM) == 1
    with localserve(config.parent) as running:
        assert running.stop() == 0


@contextmanager
def in_a_message(running: Localserve) -> Iterator[None]:
    """An SMTP client has begun to send its message: worth waiting for."""
    with socket.create_connection(("127.0.0.1", running.smtp_port), timeout=PATIENCE) as smtp:
        smtp.sendall(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<mox@localhost>\r\nDATA\r\n")
        replies = b""
        while b"354 " not in replies:
            replies += smtp.recv(1000)
        smtp.sendall(b"Subject: x\r\n")
        yield


def test_the_grace_period_ends(config: Path) -> None:
    config.write_text("grace = 0.5\n" + config.read_text())
    with localserve(config.parent) as running, in_a_message(running):
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_port_in_use(tmp_path: Path) -> None:
    base = free_port_base()
    for port, setting in ((base + 25, "smtp.listen"), (base + 80, "web.listen")):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            line = refused("--dir", tmp_path / "gw", "--port-base", base)
        assert line == (
            f"gateway: cannot listen on 127.0.0.1:{port} for {setting}: the port is in use; stop the program "
            "that has it (see: ss -ltnp) or choose other ports"
        )


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    line = refused("--dir", tmp_path / "gw", "--ip", "192.0.2.1")
    assert "this machine does not have that address; choose one that it has" in line


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file / "below", Path("/proc/nothing"), Path("/proc/1/nothing/at/all")):
        line = refused("--dir", directory)
        assert line.startswith(f"gateway: {directory}: cannot be written (")
        assert line.endswith("give one that you may write to with --dir")
    result = gateway("localserve", "--dir", file)
    assert result.returncode == 2
    assert "is a file" in result.stderr


def test_a_data_directory_that_cannot_be_written(config: Path) -> None:
    original = config.read_text()
    for data_dir in ("/proc/nothing", str(config)):
        config.write_text(original.replace('"data"', f'"{data_dir}"'))
        line = refused("--dir", config.parent)
        assert line.startswith(f"gateway: {data_dir}: cannot be written (")
        assert line.endswith("give a directory that this user may write to")
    data = config.parent / "other"
    data.mkdir()
    (data / "control").write_text("")
    config.write_text(original.replace('"data"', '"other"'))
    assert "gateway.sock: cannot be made (" in refused("--dir", config.parent)


def test_a_second_gateway(tmp_path: Path) -> None:
    with localserve(tmp_path / "gw") as running:
        line = refused("--dir", tmp_path / "gw", "--port-base", free_port_base())
        assert line == (
            f"gateway: {tmp_path}/gw/data: another gateway uses it (process {running.process.pid}); "
            "stop that one, or give this one another directory"
        )
        assert running.command("queue", "list").returncode == 0
        assert running.stop() == 0


@pytest.mark.parametrize("output", ["/dev/full", "&-"])
def test_without_an_output_it_serves(tmp_path: Path, output: str) -> None:
    directory, log = tmp_path / "gw", tmp_path / "log"
    command = [*GATEWAY, "localserve", "--dir", str(directory), "--port-base", str(free_port_base())]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" >{output}', "sh", *command], stderr=stderr, env=environment()
        )
    try:
        give_up = time.monotonic() + PATIENCE
        while gateway("queue", "list", "--dir", directory).stdout != "no messages\n":
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up
        process.terminate()
        process.wait(PATIENCE)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_command_whose_output_is_full() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*GATEWAY, "report", "read", "-"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert "the output: cannot be written (No space left on device)" in one_line(done.stderr)


def test_a_path_too_long_for_the_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 25) / "gw"
    line = refused("--dir", directory, "--port-base", free_port_base())
    assert "too long for a Unix socket (107 bytes at most); use a data directory with a shorter path" in line


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[smtp]", "[smtp", "is not valid TOML: "),
        ("[smtp]", "[smtp]\nlisten_on = 1", "listen_on: there is no such setting; did you mean 'listen'?"),
        (
            "hostname =",
            "hostnam =",
            "hostnam: there is no such setting; did you mean 'hostname'? (and 1 more)",
        ),
        ("hostname =", "hostnam = 1\nhostname =", "did you mean 'hostname'?"),
        ("[smtp]", "[smtp]\nmax_recipients = '5'", "smtp.max_recipients: Input should be a valid integer"),
        ("[smtp]\n", "[smtp]\nmax_recipients = 0\n", "smtp.max_recipients: Input should be greater than 0"),
        ('unknown_recipients = "mox"', 'unknown_recipients = "max"', "there is no account 'max'"),
        ('transport = "localserve"', 'transport = "nowhere"', "there is no [transports.nowhere]; add it"),
        ('type = "localserve"', 'type = "localsevre"', "did you mean 'localserve'?"),
        ('tls = "none"', 'tls = "maybe"', "transports.localserve: tls: Input should be 'starttls'"),
        ('sets = ["default", "localserve"]', 'sets = ["defualt"]', "'defualt'"),
        ('plugins = ["localserve"]', 'plugins = ["localsevre"]', "'localsevre'"),
        ("dkim/localhost.pem", "dkim/none.pem", "dkim/none.pem: cannot be read (No such file or directory)"),
        ("tls/localhost.key", "tls/none.key", "tls/none.key: there is no such file"),
        ("tls/localhost.pem", "dkim/localhost.pem", "holds no certificate that can be read"),
        ('key = "tls/localhost.key"', "", "tls: certificate and key go together: set both or neither"),
        ("[tls]", "[tls.x]", "tls.x: there is no such setting"),
        ('["mox@localhost"]', '["mox"]', "accounts.mox.addresses"),
        ('["mox@localhost"]', '["mox@example.net"]', "add [domains.'example.net']"),
        ('= ["+"]', '= [""]', "catchall_separator[0]: '' can separate nothing in an address"),
        ('= ["+"]', '= ["+", "@"]', "catchall_separator[1]: '@' can separate nothing in an address"),
        ('["mox@localhost"]', '["mox@localhost", "MOX@localhost"]', "MOX@localhost is mox's already"),
        ('"Local user"', '"Local\\r\\nX: user"', "full_name: control character U+000D at position 5"),
        (':1/"', ':1/"\nauthorization = "a\\nb"', "webhook_outgoing.authorization: must be printable"),
        (':1/"', ':1/"\nevents = ["deliverd"]', "webhook_outgoing.events[0]: Input should be"),
        (':1/"', ':99999/"', "webhook_outgoing.url: 'http://127.0.0.1:99999/' is no URL"),
        ('data_dir = "data"', 'data_dir = "da\\u0000ta"', "data_dir: no path has a NUL character"),
        ('hostname = "localhost"', "hostname = \xff", "is not UTF-8"),
        ('hostname = "localhost"', "hostname = " + "[" * 100_000, "is not valid TOML"),
        ('hostname = "localhost"', "grace = 1" + "0" * 5000, "has a number with more than 4300 digits"),
        ('hostname = "localhost"', "hostname = 1" + "0" * 4000, f"a valid string (it is 1{'0' * 99}...)"),
        ("[smtp]", "transports = 3\n[smtp]", ""),
    ],
)  # fmt: skip
def test_a_broken_configuration(config: Path, before: str, after: str, says: str) -> None:
    text = config.read_text()
    assert before in text
    config.write_bytes(text.replace(before, after, 1).encode("latin-1" if "\xff" in after else "utf-8"))
    for options in ((), ("--ip", "127.0.0.1", "--webhook-out", "http://127.0.0.1:1/")):
        line = refused("--dir", config.parent, *options)
        assert says in line
        assert str(config) in line or any(part in line for part in ("plugin", "transports.", "tls.")), line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ip", "localhost"), "Invalid value for '--ip': 'localhost' is no IP address"),
        (("--port-base", "65000"), "'--port-base'"),
        (
            ("--webhook-out", "localhost:9090"),
            "Invalid value for '--webhook-out': 'localhost:9090' is no URL",
        ),
        (("--webhook-in", "http://x/\n[smtp]"), "is no URL"),
        (("--webhook-out", "http://[::1/"), "is no URL"),
        (("--webhook-out", "http://localhost:99999/"), "is no URL"),
        (("--webhook-out", "http://:9090/"), "is no URL"),
    ],
)
def test_options_that_are_wrong_write_nothing(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    result = gateway("localserve", "--dir", tmp_path / "gw", *options)
    assert result.returncode == 2
    assert says in result.stderr
    assert not (tmp_path / "gw").exists()


def test_a_configuration_without_the_account(config: Path) -> None:
    text = config.read_text().replace('unknown_recipients = "mox"', "")
    config.write_text(text[: text.index("[accounts.mox]")])
    with localserve(config.parent) as running:
        assert "Account   none: gateway.toml has no [accounts.mox]" in running.banner
        assert running.stop() == 0


def test_a_configuration_from_before_there_was_submission(config: Path) -> None:
    text = config.read_text()
    config.write_text(text[: text.index("# Mail from accounts")] + text[text.index("[web]") :])
    with localserve(config.parent, "--ip", "127.0.0.1") as running:
        assert "Submit" not in running.banner
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("listen", "more", "says"),
    [
        ("127.0.0.1:1587", "", "submission.listen: nobody could log in without a certificate"),
        ("0.0.0.0:1587", "login_without_tls = true", "0.0.0.0:1587 is not a loopback address"),
        ("127.0.0.1:1587", "login_without_tls = true\n[submissions]\nlisten = ['127.0.0.1:1465']",
         "submissions.listen: needs a certificate"),
    ],
)  # fmt: skip
def test_logins_need_tls(tmp_path: Path, listen: str, more: str, says: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"hostname = 'localhost'\n[submission]\nlisten = ['{listen}']\n{more}\n")
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(path)


def test_options_of_a_first_start_that_failed_are_not_kept(tmp_path: Path) -> None:
    failed = gateway("localserve", "--dir", str(tmp_path), "--ip", "1.2.3.4")
    assert failed.returncode == 1
    assert "1.2.3.4" in failed.stderr
    assert not (tmp_path / "gateway.toml").exists()
