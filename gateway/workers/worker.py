"""Which of a gateway's processes this is, and what its supervisor gave it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.net.listeners import Sockets
from gateway.workers.hints import Hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of a gateway."""

    number: int = 0
    workers: int = 1  # that there are
    owner: str = field(default_factory=lambda: secrets.token_hex(8))  # of leases: a new one at each start
    others: Sequence[str] = ()  # the owners of the other workers' leases
    sockets: Sockets = field(default_factory=dict)
    hints: Hints

    @property
    def first(self) -> bool:
        """Whether it does what is to be done once."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        return self.workers == 1


def the_only_one(sockets: Sockets) -> Worker:
    """The worker of a gateway that is one process."""
    return Worker(sockets=sockets, hints=Hints((), None))
