"""A mail server on loopback, which keeps what it gets and answers as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, get_args

import trio

from gateway.net.smtp_handler import Session, Sink
from gateway.net.smtp_server import ServerSettings, serve_smtp
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from gateway.smtp.server import ServerLimits
from gateway.testing.beside import beside

Step = Literal["connect", "mail", "rcpt", "data", "end"]
HOSTNAME = "mx.test"


@dataclass(frozen=True, slots=True)
class MxMessage:
    """A message that the server took."""

    mail_from: str  # empty: the null sender
    recipients: tuple[str, ...]
    data: bytes


@dataclass(slots=True)
class _Script:
    step: Step
    pattern: str
    replies: list[Reply | None]

    def next(self) -> Reply | None:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@dataclass(slots=True)
class ScriptedMx:
    """Takes every message, unless it was told something else with `answer`.

    `messages`: what it took, in order. `connections`: how many there were.
    """

    host: str = "127.0.0.1"
    port: int = 0
    messages: list[MxMessage] = field(default_factory=list)
    connections: int = 0
    _scripts: list[_Script] = field(default_factory=list)

    def answer(self, *replies: str, to: str = "*", step: Step = "rcpt") -> None:
        """From now on reply this at a step: one reply after the other, then always the last.

        `replies`: such as "451 4.7.1 greylisted"; "" is the usual yes; a 421 ends the connection. `step`:
        "connect", "mail", "rcpt", "data" (the command) or "end" (the final dot). `to`, for "rcpt" only: an
        address, or a pattern as in "*@example.org". What was told last comes first. Raises ValueError.
        """
        if step not in get_args(Step):
            raise ValueError(f"step: {step!r} is none of {', '.join(get_args(Step))}")
        if not replies:
            raise ValueError('answer: nothing to reply; give a line such as "451 4.7.1 greylisted"')
        self._scripts.insert(0, _Script(step, to, [_reply(line) for line in replies]))

    # What `serve_smtp` asks of a handler.

    async def connected(self, session: Session) -> Reply | None:
        self.connections += 1
        return self._next("connect")

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        return self._next("mail")

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        return self._next("rcpt", _address(recipient))

    async def open_data(self, session: Session, envelope: Envelope) -> Sink | Reply:
        return self._next("data") or _Message(self, envelope)

    def take(self, message: MxMessage) -> Reply:
        """Answer the end of a message."""
        refused = self._next("end")
        if refused is not None:
            return refused
        self.messages.append(message)
        return Reply(250, "2.0.0", ("Taken",))

    def _next(self, step: Step, recipient: str = "") -> Reply | None:
        for script in self._scripts:
            if script.step == step and (step != "rcpt" or fnmatchcase(recipient, script.pattern)):
                return script.next()
        return None


class _Message:
    """One message on its way in (a Sink)."""

    def __init__(self, mx: ScriptedMx, envelope: Envelope) -> None:
        self._mx, self._envelope, self._data = mx, envelope, bytearray()

    async def write(self, data: bytes) -> Reply | None:
        self._data += data
        return None

    async def commit(self) -> Reply:
        sender = self._envelope.reverse_path
        recipients = tuple(map(_address, self._envelope.recipients))
        return self._mx.take(MxMessage(_address(sender) if sender else "", recipients, bytes(self._data)))

    async def abort(self) -> None:
        pass


def _address(mailbox: Mailbox) -> str:
    return f"{mailbox.localpart}@{mailbox.domain}"


def _reply(line: str) -> Reply | None:
    """Raises ValueError."""
    if not line:
        return None
    code, _, rest = line.partition(" ")
    enhanced, _, text = rest.partition(" ")
    if not enhanced or len(enhanced.split(".")) != 3:
        enhanced, text = "", rest
    if not (code.isdecimal() and len(code) == 3):
        raise ValueError(f'{line!r} is no reply; write one such as "451 4.7.1 greylisted"')
    return Reply(int(code), enhanced or None, (text,))


@asynccontextmanager
async def scripted_mx() -> AsyncIterator[ScriptedMx]:
    """One that listens on a free port of 127.0.0.1 while the body runs, without TLS."""
    mx = ScriptedMx()
    async with beside() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=mx.host)
        mx.port = listeners[0].socket.getsockname()[1]
        await nursery.start(partial(serve_smtp, listeners, ServerSettings(ServerLimits(HOSTNAME)), mx))
        yield mx
