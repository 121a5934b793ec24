"""The yardstick of `inbound` and `submission`: aiosmtpd whose handler commits each message to SQLite.

`python -m benchmarks.plain_smtp PORT DATABASE [CERTIFICATE KEY]`; with a certificate TLS from the first byte,
and AUTH, where every password is right.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


class Database:
    """A message is answered once it is durable."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, sender, recipients, content)")

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self._connection.execute(
            "INSERT INTO message (sender, recipients, content) VALUES (?, ?, ?)",
            (envelope.mail_from, " ".join(envelope.rcpt_tos), envelope.content),
        )
        return "250 2.0.0 ok"


async def _serve(port: int, database: str, certificate: list[str]) -> None:
    handler = Database(database)
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
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
