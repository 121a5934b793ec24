"""The transport `smtp`: every message to one host, a smarthost or a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway import Address, Delivery, Outcome, Result, Transport, TransportType, hookimpl
from gateway.net.smtp_client import ClientSettings, SmtpConnection, connect_smtp
from gateway.smtp import results
from gateway.smtp.addresses import Mailbox
from gateway.smtp.transaction import Transaction


class SmtpSettings(BaseModel):
    """[transports.NAME] type = "smtp" """

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    # There is no default: to send without TLS is to be said aloud, and it is all that this transport can do.
    tls: Literal["none"]
    connect_timeout: Annotated[float, Field(gt=0)] = 30.0  # seconds


class SmtpTransport:
    """Delivers each transaction on a connection of its own."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        first = delivery.messages[0]
        if first.require_tls:
            verified = Outcome.permanent(
                "the message requires verified TLS, which this transport does not have", code=554, enhanced="5.7.30"
            )
            return [verified] * len(delivery.messages)
        settings = ClientSettings(delivery.hostname, connect_timeout=self._settings.connect_timeout)
        async with await connect_smtp(self._settings.host, self._settings.port, settings) as connection:
            if connection.failure is not None:
                found: Sequence[results.Result] = [connection.failure] * len(delivery.messages)
            else:
                found = await connection.deliver(_transaction(delivery), delivery.content.chunks())
            outcomes = [self._outcome(result, connection) for result in found]
            if connection.failure is None:
                await connection.quit()
        return outcomes

    def _outcome(self, result: results.Result, connection: SmtpConnection) -> Outcome:
        if result.accepted:
            kind = Result.DELIVERED
        else:
            kind = Result.PERMANENT if result.permanent else Result.TEMPORARY
        return Outcome(
            result=kind,
            code=result.code or 0,
            enhanced=result.enhanced or "",
            error="" if result.accepted else _error(result),
            remote_mta=self._settings.host,
            transcript="" if result.accepted else connection.transcript,
        )


def _error(result: results.Result) -> str:
    reply = result.reply
    if reply is None:
        return result.text
    return f"remote answered {reply.code} {reply.enhanced + ' ' if reply.enhanced else ''}{reply.text}".rstrip()


def _transaction(delivery: Delivery) -> Transaction:
    first = delivery.messages[0]
    return Transaction(
        reverse_path=_mailbox(first.sender) if first.sender else None,
        recipients=tuple(_mailbox(message.recipient) for message in delivery.messages),
        size=delivery.content.size,
        eight_bit=first.has_8bit,
        smtputf8=first.smtputf8,
    )


@lru_cache(maxsize=1024)
def _mailbox(address: Address) -> Mailbox:
    """An address for a command: with its domain in A-labels where that makes all of it ASCII."""
    return Mailbox(address.localpart, address.ascii_domain if address.is_ascii else address.domain)


def _make(name: str, settings: SmtpSettings) -> Transport:
    return SmtpTransport(settings)


class Smtp:
    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        return {"smtp": TransportType(SmtpSettings, _make)}
