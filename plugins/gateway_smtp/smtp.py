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
from gateway_smtp.connections import Connections, KeepSettings, Kept


class SmtpSettings(BaseModel):
    """[transports.NAME] type = "smtp" """

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    # There is no default: to send without TLS is to be said aloud, and it is all that this transport can do.
    tls: Literal["none"]
    connect_timeout: Annotated[float, Field(gt=0)] = 30.0  # seconds
    keep: KeepSettings = KeepSettings()


class SmtpTransport:
    """Delivers to one next hop, on connections that are kept for a while."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._hostname = ""
        self._connections = Connections(settings.keep, self._open)

    async def serve(self) -> None:
        await self._connections.serve()

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        first = delivery.messages[0]
        if first.require_tls:
            verified = Outcome.permanent(
                "the message requires verified TLS, which this transport does not have",
                code=554,
                enhanced="5.7.30",
            )
            return [verified] * len(delivery.messages)
        self._hostname = delivery.hostname
        kept = await self._connections.take()
        outcomes = await self._deliver_on(kept, delivery)
        if kept.reused and _closed_meanwhile(kept.connection):
            # The server had ended the connection while it was idle: nothing was handed over.
            await self._connections.give_back(kept)
            kept = await self._connections.take(new=True)
            outcomes = await self._deliver_on(kept, delivery)
        await self._connections.give_back(kept)
        return outcomes

    async def _open(self) -> SmtpConnection:
        settings = ClientSettings(self._hostname, connect_timeout=self._settings.connect_timeout)
        return await connect_smtp(self._settings.host, self._settings.port, settings)

    async def _deliver_on(self, kept: Kept, delivery: Delivery) -> Sequence[Outcome]:
        connection = kept.connection
        if connection.failure is not None:
            found: Sequence[results.Result] = [connection.failure] * len(delivery.messages)
        else:
            found = await connection.deliver(_transaction(delivery), delivery.content.chunks())
        return [self._outcome(result, connection) for result in found]

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


def _closed_meanwhile(connection: SmtpConnection) -> bool:
    """Whether the connection ended before the server took any of the transaction."""
    failure = connection.failure
    return failure is not None and failure.stage == "mail"


def _error(result: results.Result) -> str:
    reply = result.reply
    if reply is None:
        return result.text
    return (
        f"remote answered {reply.code} {reply.enhanced + ' ' if reply.enhanced else ''}{reply.text}".rstrip()
    )


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
    """An address for a command: with its domain in A-labels where that makes all of it ASCII, or where its
    labels have joiners (RFC 5892, A.1), which are legal and invisible."""
    in_ascii = address.is_ascii or not address.domain.isprintable()
    return Mailbox(address.localpart, address.ascii_domain if in_ascii else address.domain)


class Smtp:
    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        return {"smtp": TransportType(SmtpSettings, _make)}


def _make(_name: str, settings: SmtpSettings) -> Transport:
    return SmtpTransport(settings)
