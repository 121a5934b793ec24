"""Which of a gateway's processes this is, and what its supervisor gave it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from gateway.net.listeners import Sockets
from gateway.workers.hints import Hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of a gateway."""

    number: int = 0
    workers: int = 1  # that there are
    run: str = field(default_factory=lambda: secrets.token_hex(8))  # of the gateway, with all its workers
    start: str = field(default_factory=lambda: secrets.token_hex(4))  # of this process
    sockets: Sockets = field(default_factory=dict)
    hints: Hints

    @property
    def owner(self) -> str:
        """Of leases."""
        return f"{self.run}.{self.number}.{self.start}"

    def knows_gone(self, owner: str) -> bool:
        """Whether that owner of leases is gone: of an earlier run, as one alone has the data directory, or
        this worker before it was started again. Another one of this run may have begun a moment ago.
        """
        run, _, process = owner.partition(".")
        return run != self.run or (process.startswith(f"{self.number}.") and owner != self.owner)

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
