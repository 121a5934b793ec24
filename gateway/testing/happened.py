"""What a step of a test brought about."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model import Event, IncomingEvent, QueuedMessage
from gateway.store.listing import Attempt
from gateway.testing.transport import HandedOver
from gateway.testing.webhooks import Webhook


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one recipient's message so far.

    `state`: "waiting" (it will be tried again), "held", "delivered", "failed", "suppressed" or "canceled".
    """

    recipient: str
    state: str
    message: QueuedMessage
    attempts: tuple[Attempt, ...]  # the oldest first


@dataclass(frozen=True, slots=True)
class Happened:
    """Everything that one step of a test brought about, until there was nothing left to do.

    `refused`: why the message was not taken, else empty. `messages`: those that were handed in by the step,
    or that it changed. `handed_over`: what the fake transports got. `log`: what plugins logged, and what was
    logged of their failures.
    """

    refused: str
    messages: tuple[Fate, ...]
    events: tuple[Event, ...]
    incoming: tuple[IncomingEvent, ...]
    webhooks: tuple[Webhook, ...]
    handed_over: tuple[HandedOver, ...]
    log: tuple[str, ...]

    def __getitem__(self, recipient: str) -> Fate:
        """The latest message to a recipient. Raises KeyError."""
        for fate in reversed(self.messages):
            if fate.recipient == recipient:
                return fate
        raise KeyError(f"{recipient}: there is no message to this recipient; there are: {self.recipients}")

    @property
    def recipients(self) -> list[str]:
        return [fate.recipient for fate in self.messages]
