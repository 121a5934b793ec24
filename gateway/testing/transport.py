"""A transport that delivers nothing, and answers as it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from gateway.hookspecs.marks import hookimpl
from gateway.model import Delivery, Outcome, Result, TransportType
from gateway.net.network import Network

TYPE = "testing"  # of [transports.NAME]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a transport was given: one attempt at one transaction, and what it answered."""

    transport: str
    recipients: tuple[str, ...]
    data: bytes  # the whole message
    delivery: Delivery
    outcomes: tuple[Outcome, ...]


@dataclass(slots=True)
class Script:
    """Answers for recipients that match a pattern: one after the other, the last again and again."""

    pattern: str
    answers: list[Outcome | Exception]

    def next(self) -> Outcome | Exception:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass(slots=True)
class FakeTransport:
    """Takes every message, unless it was told something else with `answer`."""

    name: str
    got: list[HandedOver] = field(default_factory=list)
    _scripts: list[Script] = field(default_factory=list)

    def answer(self, *answers: Outcome | Exception, to: str = "*") -> None:
        """From now on answer this to recipients that match: one answer after the other, then always the last.

        `to`: an address, or a pattern as in "*@example.org"; what was told last comes first. An exception is
        raised: then all messages of the attempt have failed for now.
        """
        if not answers:
            raise ValueError("answer: nothing to answer; give an Outcome, such as temporary(451)")
        self._scripts.insert(0, Script(to, list(answers)))

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        recipients = tuple(str(message.recipient) for message in delivery.messages)
        data = await delivery.content.read()
        answers = [self._next(recipient) for recipient in recipients]
        outcomes = tuple(one for one in answers if isinstance(one, Outcome))
        self.got.append(HandedOver(self.name, recipients, data, delivery, outcomes))
        for one in answers:
            if isinstance(one, Exception):
                raise one
        return outcomes

    def _next(self, recipient: str) -> Outcome | Exception:
        for script in self._scripts:
            if fnmatchcase(recipient, script.pattern):
                return script.next()
        return Outcome(result=Result.DELIVERED, code=250, enhanced="2.0.0", remote_mta=f"{self.name}.example")


class NoSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FakeTransports:
    """The plugin that makes one for each [transports.NAME] of the type "testing"."""

    def __init__(self) -> None:
        self.by_name: dict[str, FakeTransport] = {}
        self.got: list[HandedOver] = []  # by all of them, in order

    @hookimpl
    def transports(self) -> Mapping[str, TransportType]:
        return {TYPE: TransportType(NoSettings, self._make)}

    def _make(self, name: str, settings: NoSettings, network: Network) -> FakeTransport:
        made = self.by_name[name] = FakeTransport(name, self.got)
        return made
