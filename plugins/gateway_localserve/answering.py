"""The transport `localserve`: to this server itself; and what it answers later, over SMTP as others do."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import trio

from gateway import GatewayError, Network
from gateway.mail.fields import FieldError
from gateway.net.smtp_client import connect_smtp
from gateway.smtp.transaction import Transaction
from gateway_localserve.reports import Wanted, compose
from gateway_smtp.envelope import mailbox
from gateway_smtp.settings import SmtpTransportSettings
from gateway_smtp.transport import NextHopTransport

AFTER = 0.5  # seconds after the message: its sender has heard of the 250 by then
MOST = 1_000  # reports that wait
AT_A_TIME = 10

log = logging.getLogger(__name__)


class Answers:
    """Reports from those who want them to the transport that sends them."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[Wanted](MOST)
        self.served = False  # a transport is there

    def put(self, wanted: list[Wanted]) -> bool:
        """False if none of them will be sent."""
        room = MOST - self.send.statistics().current_buffer_used
        if not self.served or room < len(wanted):
            return False
        for one in wanted:
            self.send.send_nowait(one)
        return True


class LocalserveTransport(NextHopTransport):
    def __init__(
        self, name: str, settings: SmtpTransportSettings, network: Network, answers: Answers
    ) -> None:
        super().__init__(name, settings, network)
        self._server, self._answers = settings, answers
        answers.served = True

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().serve)
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._answer_all)

    async def _answer_all(self) -> None:
        async for wanted in self._answers.receive:
            if await wanted.stored():  # a message that was refused may come again
                await trio.sleep(AFTER)
                await self._answer(wanted)

    async def _answer(self, wanted: Wanted) -> None:
        """The recipient's server says EHLO with its own name, so that its SPF is what is checked."""
        domain = wanted.recipient.ascii_domain
        hello_name = "localhost" if domain.startswith("[") else domain
        try:
            data = compose(wanted, datetime.now(UTC))
        except (FieldError, GatewayError, ValueError) as exc:
            log.warning("no simulated report for %s: %s", wanted.recipient, exc)
            return
        transaction = Transaction(
            reverse_path=None,
            recipients=(mailbox(wanted.sender),),
            size=len(data),
            eight_bit=not data.isascii(),
            smtputf8=not wanted.sender.is_ascii,
        )
        settings = self._server.client_settings(hello_name)
        async with await connect_smtp(self._server.host, self._server.port, settings) as connection:
            [result] = await connection.deliver(transaction, _once(data))
            await connection.quit()
        if not result.accepted:
            log.warning("a simulated report for %s was not taken: %s", wanted.sender, result.text)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
