"""The yardsticks of `inbound` and `submission`: aiosmtpd whose handler commits each message to SQLite.

`python -m benchmarks.plain_smtp PORT DATABASE HOW [CERTIFICATE KEY]`; with a certificate TLS from the first
byte, and AUTH, where every password is right. HOW is where the commit is done:

- "loop": on the event loop, which stands still meanwhile, also for whoever else it serves.
- "thread": in one thread beside it, as a server does that has others to serve; still one commit a message.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


class Database:
    """A message is answered once it is durable."""

    def __init__(self, path: str, how: str) -> None:
        self._thread = ThreadPoolExecutor(1) if how == "thread" else None
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, sender, recipients, content)")

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self._thread is None:
            self._commit(envelope)
        else:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, envelope)
        return "250 2.0.0 ok"

    def _commit(self, envelope: Envelope) -> None:
        self._connection.execute(
            "INSERT INTO message (sender, recipients, content) VALUES (?, ?, ?)",
            (envelope.mail_from, " ".join(envelope.rcpt_tos), envelope.content),
        )


async def _serve(port: int, database: str, how: str, certificate: list[str]) -> None:
    handler = Database(database, how)
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)

    def session() -> SMTP:
        return SMTP(
            handler,
            auth_require_tls=False,  # it is around all, where aiosmtpd does not see it
            authenticator=lambda *_: AuthResult(success=True),
        )

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # its advice about AUTH
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
