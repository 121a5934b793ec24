"""Talks to a filter about one message, over one connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from gateway import Reject, Submission
from gateway_milter import protocol
from gateway_milter.edits import Draft
from gateway_milter.protocol import (
    CHUNK,
    NEEDED,
    Accept,
    Action,
    Agreed,
    Continue,
    MilterError,
    Progress,
    Skip,
    Step,
    frame,
    texts,
)

# Whoever logs in to the gateway is as trustworthy as who sends on the filter's own machine.
HOST, ADDRESS = "localhost", "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Told:
    """Something a filter is told. The flags by which it does not want it, or does not want to answer."""

    frames: bytes
    unwanted: Step
    silent: Step


@dataclass(slots=True)
class Filter:
    """A connection to a filter."""

    stream: trio.abc.Stream
    _received: bytearray = field(default_factory=bytearray)

    async def look(self, draft: Draft, submission: Submission, actions: Action) -> Reject | None:
        """Has the filter look at a message, and changes it as the filter wants.

        Returns the refusal, or None for a message that is to be taken. Raises MilterError for what is not the
        protocol, and OSError or trio.BrokenResourceError when the connection breaks.
        """
        await self.stream.send_all(protocol.offer(actions))
        terms = protocol.agreed(await self._frame(), actions)
        verdict = await self._tell(draft, submission, terms)
        if isinstance(verdict, Continue):
            verdict = await self._end(draft, terms)
        if isinstance(verdict, Reject):
            return verdict
        await self.stream.send_all(frame(b"Q"))
        return None

    async def _tell(self, draft: Draft, submission: Submission, terms: Agreed) -> Continue | Accept | Reject:
        """All but the end of the message. `Continue`: the filter has changes to make."""
        for told in _script(draft, submission, terms):
            if told.unwanted in terms.steps:
                continue
            await self.stream.send_all(told.frames)
            if told.silent in terms.steps:
                continue
            answer = await self._answer()
            if isinstance(answer, Skip) and told.unwanted is Step.NO_BODY and Step.SKIP in terms.steps:
                break
            if isinstance(answer, Accept | Reject):
                return answer
            if not isinstance(answer, Continue):
                raise MilterError(f"a filter answered too early with {type(answer).__name__}")
        return Continue()

    async def _end(self, draft: Draft, terms: Agreed) -> Continue | Accept | Reject:
        await self.stream.send_all(frame(b"E"))
        while True:
            answer = await self._answer()
            if isinstance(answer, Continue | Accept | Reject):
                return answer
            if isinstance(answer, Skip):
                raise MilterError("a filter had enough of the body when all of it was there")
            if NEEDED[type(answer)] not in terms.actions:
                raise MilterError(f"a filter did not say that it would answer {type(answer).__name__}")
            draft.apply(answer, leading_space=Step.LEADING_SPACE in terms.steps)

    async def _answer(self) -> protocol.Said:
        while isinstance(answer := protocol.answer(await self._frame()), Progress):
            pass  # the stage has a time limit, whatever the filter promises
        return answer

    async def _frame(self) -> bytes:
        await trio.lowlevel.checkpoint()  # many may be there already: others have their turn between them
        await self._receive(4)
        size = 4 + protocol.length(bytes(self._received[:4]))
        await self._receive(size)
        body = bytes(self._received[4:size])
        del self._received[:size]
        return body

    async def _receive(self, size: int) -> None:
        while len(self._received) < size:
            some = await self.stream.receive_some(1 << 16)
            if not some:
                raise MilterError("a filter closed the connection")
            self._received += some


def _script(draft: Draft, submission: Submission, terms: Agreed) -> Iterator[Told]:
    """All that a filter can be told before the end of a message, in order."""
    login = {"i": submission.id, "{auth_type}": "PLAIN", "{auth_authen}": str(submission.login)}
    hello = protocol.macros(b"C", {"j": HOST, "{daemon_name}": "mail-gateway"})
    sender = protocol.macros(b"M", login | {"{mail_addr}": str(draft.sender)})
    yield Told(hello + protocol.connected(HOST, ADDRESS), Step.NO_CONNECT, Step.SILENT_CONNECT)
    yield Told(frame(b"H", texts(HOST)), Step.NO_HELO, Step.SILENT_HELO)
    yield Told(sender + frame(b"M", texts(f"<{draft.sender}>")), Step.NO_MAIL, Step.SILENT_MAIL)
    for one in draft.recipients:
        about = protocol.macros(b"R", {"{rcpt_addr}": str(one)})
        yield Told(about + frame(b"R", texts(f"<{one}>")), Step.NO_RCPT, Step.SILENT_RCPT)
    if terms.version >= 4:
        yield Told(frame(b"T"), Step.NO_DATA, Step.SILENT_DATA)
    for line in draft.fields:
        value = line.value if Step.LEADING_SPACE in terms.steps else line.value.removeprefix(b" ")
        told = frame(b"L", texts(line.name, value.replace(b"\r\n", b"\n")))
        yield Told(told, Step.NO_HEADERS, Step.SILENT_HEADERS)
    yield Told(frame(b"N"), Step.NO_EOH, Step.SILENT_EOH)
    for start in range(0, len(draft.body), CHUNK):
        piece = frame(b"B", draft.body[start : start + CHUNK])
        yield Told(piece, Step.NO_BODY, Step.SILENT_BODY)
