"""The transport to one host, a smarthost or a server of one's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import trio

from gateway import Delivery, Outcome, Result
from gateway.net.smtp_client import SmtpConnection, TlsPolicy, connect_smtp
from gateway.smtp import results
from gateway.smtp.results import Fate
from gateway_smtp.connections import Connections, Kept
from gateway_smtp.envelope import next_batch, transaction
from gateway_smtp.settings import NextHopSettings

log = logging.getLogger(__name__)

# Of the time that an attempt has: what several transactions came to must be told before it is cut off.
TIME_TO_USE = 0.8

# Too many recipients for one transaction, in the words of RFC 5321 section 4.5.3.1.10 and of older servers.
TOO_MANY = (452, 552)

NOT_VERIFIED = Outcome.permanent(
    "the message requires verified TLS, which this transport does not have", code=554, enhanced="5.7.30"
)


class NextHopTransport:
    """Delivers to one next hop, on connections that are kept for a while."""

    def __init__(self, name: str, settings: NextHopSettings) -> None:
        self._name, self._settings = name, settings
        self._connections = Connections(settings.keep, self._open)

    async def serve(self) -> None:
        await self._connections.serve()

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        count = len(delivery.messages)
        if delivery.messages[0].require_tls and not self._settings.verified:
            return [NOT_VERIFIED] * count
        found: dict[int, Outcome] = {}
        with trio.move_on_after((delivery.deadline - delivery.started).total_seconds() * TIME_TO_USE):
            try:
                await self._deliver(delivery, found)
            except Exception:
                if not found:
                    raise
                # Of those who have the message this must be known, whatever became of the others.
                log.exception("transport %s failed after some recipients", self._name)
        cut_off = Outcome.temporary(
            f"transport {self._name!r}: the attempt ended before this recipient's turn"
        )
        return [found.get(number, cut_off) for number in range(count)]

    async def _deliver(self, delivery: Delivery, found: dict[int, Outcome]) -> None:
        """As many transactions as are needed, each leaving fewer recipients; outcomes go into `found`."""
        left: Sequence[int] = range(len(delivery.messages))
        kept = await self._connections.take(delivery.hostname)
        while left:
            reused = kept.reused
            batch = next_batch(delivery, left, kept.connection.capabilities)
            answers = await self._transact(kept, delivery, batch)
            if reused and _ended_meanwhile(answers):
                kept = await self._connections.take(delivery.hostname, new=True)
                continue
            crowded = _crowded_out(answers)
            found.update(zip(batch, self._outcomes(delivery, kept.connection, answers, crowded), strict=True))
            done = frozenset(batch)
            left = [number for number in left if number not in done]
            if any(answer.accepted for answer in answers):
                left = [*(batch[place] for place in crowded), *left]
            elif kept.connection.failure is not None:
                # Nobody else has a better chance now.
                found.update(dict.fromkeys(left, self._unreached(kept.connection)))
                return
            if left and kept.spent:
                self._connections.give_back(kept)
                kept = await self._connections.take(delivery.hostname, new=True)
        self._connections.give_back(kept)

    async def _transact(
        self, kept: Kept, delivery: Delivery, batch: Sequence[int]
    ) -> Sequence[results.Result]:
        connection = kept.connection
        if connection.failure is not None:
            return [connection.failure] * len(batch)
        return await connection.deliver(transaction(delivery, batch), delivery.content.chunks())

    async def _open(self, hostname: str) -> SmtpConnection:
        settings = self._settings.client_settings(hostname)
        connection = await connect_smtp(self._settings.host, self._settings.port, settings)
        if (
            settings.tls is TlsPolicy.OPPORTUNISTIC
            and connection.failure is not None
            and connection.failure.stage == "starttls"
            and connection.failure.reply is None
        ):
            # Whoever takes part in the handshake could as well have hidden STARTTLS: nothing is lost.
            without = replace(settings, tls=TlsPolicy.NONE)
            return await connect_smtp(self._settings.host, self._settings.port, without)
        return connection

    # --- What it came to ---

    def _outcomes(
        self,
        delivery: Delivery,
        connection: SmtpConnection,
        answers: Sequence[results.Result],
        crowded: Sequence[int],
    ) -> Sequence[Outcome]:
        failed = not all(answer.accepted for answer in answers)
        transcript = connection.transcript if failed else ""
        passed_on = bool(delivery.dsn) and "DSN" in connection.capabilities
        return [
            self._outcome(connection, answer, transcript, passed_on=passed_on, for_now=place in crowded)
            for place, answer in enumerate(answers)
        ]

    def _outcome(
        self,
        connection: SmtpConnection,
        answer: results.Result,
        transcript: str,
        *,
        passed_on: bool = False,
        for_now: bool = False,
    ) -> Outcome:
        if answer.accepted:
            kind = Result.DELIVERED
        else:
            kind = Result.PERMANENT if answer.permanent and not for_now else Result.TEMPORARY
        return Outcome(
            result=kind,
            code=answer.code or 0,
            enhanced=answer.enhanced or "",
            error="" if answer.accepted else self._error(answer),
            remote_mta=self._settings.host,
            remote_ip=connection.remote_ip,
            tls=connection.tls_used,
            transcript="" if answer.accepted else transcript,
            dsn_passed_on=passed_on and answer.accepted,
        )

    def _unreached(self, connection: SmtpConnection) -> Outcome:
        """For those who were not asked for before the connection ended."""
        assert connection.failure is not None
        temporary = self._outcome(connection, connection.failure, connection.transcript, for_now=True)
        return replace(temporary, code=0, enhanced="")

    def _error(self, answer: results.Result) -> str:
        reply = answer.reply
        if reply is not None:
            enhanced = f"{reply.enhanced} " if reply.enhanced else ""
            return f"remote answered {reply.code} {enhanced}{reply.text}".rstrip()
        if answer.stage == "auth":
            return f"transport {self._name!r}: {answer.text}; repair auth of [transports.{self._name}]"
        if answer.fate is Fate.UNKNOWN:
            return f"outcome unknown, the message may have been delivered: {answer.text}"
        return answer.text


def _ended_meanwhile(answers: Sequence[results.Result]) -> bool:
    """The server had ended the connection while it was idle: of this transaction it has taken nothing."""
    return all(
        answer.stage == "mail" and (answer.fate is Fate.BROKEN or answer.code == 421) for answer in answers
    )


def _crowded_out(answers: Sequence[results.Result]) -> list[int]:
    """Those refused only because others had come before them: they are asked for again at once."""
    crowded: list[int] = []
    others = False
    for place, answer in enumerate(answers):
        if answer.stage in ("data", "dot"):
            others = True
        elif others and answer.stage == "rcpt" and answer.code in TOO_MANY:
            crowded.append(place)
    return crowded
