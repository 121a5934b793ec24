"""What fails for one account is suppressed for all: one list, in a SQLite file, beside the accounts' own.

Gateways on one machine may share the file. As a command it shows the list and takes addresses off it:

    python -m gateway_shared_suppression FILE
    python -m gateway_shared_suppression FILE --remove user@example.org
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gateway import Address, ConfigPath, Event, IncomingEvent, QueuedMessage, hookimpl

WAIT = 2.0  # seconds for another process's write; less than the hooks' time limits


class SharedSettings(BaseModel):
    """[plugin."example.shared-suppression"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: ConfigPath  # made if it is not there
    # Accounts that neither add to the list nor are kept from anything by it.
    apart: tuple[str, ...] = ()


class SharedSuppression:
    Settings = SharedSettings

    # A file may be slow: both functions have a thread, where they hold up nothing else.

    @hookimpl(thread=True)
    def event(self, event: Event | IncomingEvent, settings: SharedSettings) -> None:
        if isinstance(event, Event) and event.suppressing and event.account not in settings.apart:
            with opened(settings.file) as list_:
                list_.execute(
                    # An event may be told twice.
                    "INSERT INTO suppressed VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (canonical(Address.parse(event.recipient)), event.account, event.time.isoformat()),
                )

    @hookimpl(thread=True)
    def suppressed(self, message: QueuedMessage, settings: SharedSettings) -> bool | None:
        if message.account in settings.apart:
            return None
        with opened(settings.file) as list_:
            found = list_.execute(
                "SELECT 1 FROM suppressed WHERE address = ?", (canonical(message.recipient),)
            )
            return True if found.fetchone() else None  # None: the account's own list decides


def canonical(address: Address) -> str:
    """One form for what is one mailbox with most providers: lower case, without what follows a plus."""
    localpart = address.localpart.lower()
    return f"{localpart.partition('+')[0] or localpart}@{address.domain}"


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The list, for one transaction; a connection belongs to its thread."""
    with closing(sqlite3.connect(file, timeout=WAIT)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS suppressed (address TEXT PRIMARY KEY, account TEXT, since TEXT)"
        )
        yield connection


def main() -> None:
    parser = argparse.ArgumentParser(description="The suppression list that all accounts share.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--remove", metavar="ADDRESS", type=Address.parse, help="send to it again")
    options = parser.parse_args()
    if not options.file.exists():
        parser.error(
            f"there is no file {options.file}; [plugin.'example.shared_suppression'] says where it is"
        )
    with opened(options.file) as list_:
        if options.remove is None:
            for row in list_.execute("SELECT address, since, account FROM suppressed ORDER BY address"):
                print("\t".join(row))
        elif not list_.execute(
            "DELETE FROM suppressed WHERE address = ?", (canonical(options.remove),)
        ).rowcount:
            parser.error(f"{options.remove} is not on the list")


if __name__ == "__main__":
    main()
