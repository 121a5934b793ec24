"""A Postfix of the tests' own, on loopback: final server of one mailbox, and smarthost for one login."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from tempfile import mkdtemp

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.commands import PATIENCE
from tests.net.authority import root
from tests.peers.programs import program
from tests.ports import free_port

NAME = "mx.example.org"
MAILBOX = "user@example.org"
FULL = "full@example.org"  # is taken, and cannot be delivered
USER, PASSWORD = "gateway@example.org", "correct horse battery"
MAILBOX_LIMIT = 60_000_000  # bytes: more than its largest message

# All that a Postfix runs, without what the system's own does outside of it.
SERVICES = """
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    """One that runs. Mail for MAILBOX is kept, that for FULL is bounced, and all other is thrown away."""

    directory: Path
    smtp: int  # ports
    submission: int
    submissions: int

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    @property
    def log(self) -> str:
        return (self.directory / "data" / "log").read_text(errors="replace")

    def received(self, message_id: str) -> Message:
        """What is in the mailbox, once it is there."""
        return self._in_mailbox(f"Message-ID: <{message_id}>")

    def report(self, envelope_id: str) -> Message:
        """Its own report on a message with that ENVID (RFC 3461), likewise."""
        return self._in_mailbox(f"Original-Envelope-Id: {envelope_id}")

    def _in_mailbox(self, line: str) -> Message:
        """The message that has this line."""
        path = self.directory / "mail" / "user"
        for _ in self._patiently():
            data = path.read_bytes() if path.exists() else b""
            for one in re.split(rb"^From .*\n", data, flags=re.MULTILINE):
                if f"\n{line}\n".encode() in b"\n" + one:
                    return message_from_bytes(one.removesuffix(b"\n"))  # an mbox has an empty line there
        pytest.fail(f"{line!r} did not come; the log says:\n{self.log[-5000:]}")

    def session(self, marker: str) -> str:
        """The line of the log about the end of the session after the last line with this text."""
        for _ in self._patiently():
            _, found, rest = self.log.rpartition(marker)
            for line in rest.splitlines() if found else ():
                if "disconnect from" in line:
                    return line
        pytest.fail(f"{marker} is not in the log, or its session did not end:\n{self.log[-5000:]}")

    def _patiently(self) -> Iterator[None]:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            yield
            time.sleep(0.02)


@contextmanager
def running_postfix() -> Iterator[Postfix]:
    if os.geteuid() != 0:
        pytest.skip(
            "Postfix starts as root only; as root these tests run, and fail where it is not installed"
        )
    postfix = program("postfix")
    directory = Path(mkdtemp(prefix="gateway-postfix-"))  # where other users get, unlike into pytest's
    try:
        made = Postfix(directory, free_port(), free_port(), free_port())
        _configure(made)
        process = subprocess.Popen(
            [postfix, "-c", str(directory / "etc"), "start-fg"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in made._patiently():
                if (directory / "data" / "log").exists() and "daemon started" in made.log:
                    break
            else:
                pytest.fail("Postfix does not start")
            yield made
        finally:
            subprocess.run([postfix, "-c", str(directory / "etc"), "stop"], check=False, capture_output=True)
            process.wait(PATIENCE)
    finally:
        shutil.rmtree(directory)


def _configure(it: Postfix) -> None:
    directory = it.directory
    directory.chmod(0o755)
    for name, owner in (("etc", "root"), ("queue", "root"), ("data", "postfix"), ("mail", "nobody")):
        (directory / name).mkdir()
        shutil.chown(directory / name, owner)
    certificate = root().issue(NAME, "localhost")
    key = certificate.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "tls.pem").write_bytes(key + certificate.pem)
    (directory / "tls.pem").chmod(0o600)
    (directory / "ca.pem").write_bytes(root().pem)
    _make_login(directory)
    with (directory / "mail" / "full").open("wb") as mailbox:
        mailbox.truncate(MAILBOX_LIMIT)
    shutil.chown(directory / "mail" / "full", "nobody")
    nobody = pwd.getpwnam("nobody")
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": directory / "queue",
        "data_directory": directory / "data",
        "maillog_file": directory / "data" / "log",
        "maillog_file_prefixes": directory,
        "myhostname": NAME,
        "mydestination": "",
        "inet_protocols": "ipv4",
        "alias_maps": "",
        "alias_database": "",
        "virtual_mailbox_domains": "example.org",
        "virtual_mailbox_maps": f"inline:{{ {{ {MAILBOX} = user }}, {{ {FULL} = full }} }}",
        "virtual_mailbox_base": directory / "mail",
        "virtual_uid_maps": f"static:{nobody.pw_uid}",
        "virtual_gid_maps": f"static:{nobody.pw_gid}",
        "virtual_minimum_uid": "1",
        "virtual_mailbox_limit": MAILBOX_LIMIT,
        "default_transport": "discard",
        # What it reports of messages of ours comes to the mailbox, too.
        "virtual_alias_domains": "localhost",
        "virtual_alias_maps": f"inline:{{ {{ @localhost = {MAILBOX} }} }}",
        "smtpd_peername_lookup": "no",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": directory / "tls.pem",
        "smtpd_tls_loglevel": "1",
        "smtpd_sasl_type": "cyrus",
        "cyrus_sasl_config_path": directory / "etc" / "sasl",  # where Debian looks in any case
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
    }
    (directory / "etc" / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))
    only = "permit_sasl_authenticated,reject"
    # One session for each process: it reads mech_list once.
    with_login = f"-o max_use=1 -o smtpd_sasl_auth_enable=yes -o smtpd_recipient_restrictions={only}"
    listeners = {
        it.smtp: "",
        it.submission: f"{with_login} -o smtpd_tls_security_level=encrypt",
        it.submissions: f"{with_login} -o smtpd_tls_wrappermode=yes",
    }
    lines = [f"127.0.0.1:{port} inet n - n - - smtpd {options}\n" for port, options in listeners.items()]
    (directory / "etc" / "master.cf").write_text("".join(lines) + SERVICES.lstrip())


def _make_login(directory: Path) -> None:
    database = directory / "sasldb2"
    localpart, _, domain = USER.partition("@")
    subprocess.run(
        [program("saslpasswd2"), "-p", "-c", "-f", str(database), "-u", domain, localpart],
        input=PASSWORD.encode(),
        check=True,
    )
    shutil.chown(database, "postfix")
    (directory / "etc" / "sasl").mkdir()
    (directory / "etc" / "sasl" / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\n"
        "mech_list: SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN\n"
    )
