"""What a supervisor tells a worker that it starts, over the stream between them.

The worker answers with a line: "" when it serves, or why it can't. After that a byte now and then says that
its event loop turns; and the end of the stream is the worker's.
"""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gateway.clock import Pace
from gateway.config.settings import Settings

if TYPE_CHECKING:
    from gateway.accounts.logins import Authenticator

_LENGTH = 8  # bytes of the length before a Start
MAX_ANSWER = 64 * 1024  # bytes
LOOKS = 12  # for a sign of life, until a worker is given up
SIGN_OF_LIFE = b"."
DUMP = signal.SIGUSR2  # has a worker write to its log where it is, even if its event loop stands still


@dataclass(frozen=True, slots=True)
class Example:
    """For development: an account that gets a password, unless it has one, and is shown on pages."""

    account: str
    login: str
    password: str

    @property
    def shown(self) -> str:
        return f"{self.login}:{self.password}"

    async def prepare(self, authenticator: Authenticator) -> None:
        await authenticator.give_password(self.account, self.password)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Everything that a worker needs. Sockets are file descriptors that it inherits."""

    settings: Settings
    config_dir: Path
    color: bool
    example: Example | None
    number: int
    run: str  # of the gateway, as of Worker
    pace: Pace  # all workers have the same time: what one leases must not have run out for another
    sockets: Mapping[str, Sequence[int]]  # by section
    ear: int
    ears_of_others: Sequence[int]

    @property
    def descriptors(self) -> list[int]:
        return [self.ear, *self.ears_of_others, *(fd for fds in self.sockets.values() for fd in fds)]


def encode(start: Start) -> bytes:
    data = pickle.dumps(start)
    return len(data).to_bytes(_LENGTH, "big") + data


def read(stream: BinaryIO) -> Start:
    """Raises EOFError when there is no supervisor any more."""
    length = int.from_bytes(stream.read(_LENGTH), "big")
    data = stream.read(length)
    if not data or len(data) < length:
        raise EOFError
    start: Start = pickle.loads(data)  # noqa: S301 - our parent wrote it
    return start


def answer(failure: str) -> bytes:
    return json.dumps(failure).encode() + b"\n"


def read_answer(data: bytes) -> str | None:
    """None if it ended without an answer."""
    line, end, _ = data.partition(b"\n")  # there may be a sign of life behind it
    return str(json.loads(line)) if end else None
