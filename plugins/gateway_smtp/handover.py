"""Handing a delivery's messages to one server: as many transactions and connections as that takes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import trio

from gateway import Delivery, Outcome, Result
from gateway.net.shaping import Crowded, Share
from gateway.smtp import results
from gateway.smtp.client_session import NONSENSE
from gateway.smtp.results import Fate, Stage
from gateway_smtp.connections import Kept
from gateway_smtp.envelope import next_batch, transaction

log = logging.getLogger(__name__)

# Of the time that an attempt has: what several transactions came to must be told before it is cut off.
TIME_TO_USE = 0.8

# What is said of a failure without a reply (RFC 3463): the connection broke, unless it was something else.
_NO_REPLY: Mapping[Stage, str] = {"connect": "4.4.1", "starttls": "4.7.5", "auth": "4.7.0"}

# Too many recipients for one transaction, in the words of RFC 5321 section 4.5.3.1.10 and of older servers.
TOO_MANY = (452, 552)


class Server(Protocol):
    """A server that connections can be had to, for one delivery."""

    @property
    def host(self) -> str:
        """Its name, for people."""

    async def share(self) -> Share:
        """The limits that it shares with others."""

    async def connection(self, share: Share, *, new: bool = False) -> Kept:
        """One that was kept, unless a `new` one is wanted; or one that failed, and says so.

        Raises Crowded.
        """

    def give_back(self, kept: Kept) -> None: ...

    def is_ours(self, answer: results.Result) -> bool:
        """Whether it is our configuration that is refused: that can be mended, so messages wait."""

    def error(self, answer: results.Result) -> str:
        """An answer that is no success, for people."""


async def in_time(
    name: str, delivery: Delivery, deliver: Callable[[dict[int, Outcome]], Awaitable[None]]
) -> list[Outcome]:
    """What `deliver` came to for each message; it puts outcomes by number where it is told, and has most of
    the time until the delivery's deadline. `name` is the transport's."""
    found: dict[int, Outcome] = {}
    with trio.move_on_after((delivery.deadline - delivery.started).total_seconds() * TIME_TO_USE):
        try:
            await deliver(found)
        except Exception:
            if not found:
                raise
            # Of those who have the message this must be known, whatever became of the others.
            log.exception("transport %s failed after some recipients", name)
    count = len(delivery.messages)
    if len(found) < count:
        cut_off = Outcome.temporary(
            f"transport {name!r}: the time for the attempt was over before there was an answer"
        )
        found = dict.fromkeys(range(count), cut_off) | found
    return [found[number] for number in range(count)]


async def hand_over(
    server: Server, delivery: Delivery, numbers: Sequence[int], found: dict[int, Outcome]
) -> list[int]:
    """Hand over these of the delivery's messages; their outcomes go into `found`.

    Answers those that another server may be asked to take now: this one has not, for the time being.
    """
    left = list(numbers)
    doubtful: set[int] = set()  # the message may have been taken
    try:
        await _hand_over(server, delivery, left, found, doubtful)
    except Crowded as exc:
        # No reason to turn to another server: one that is there for times when this one is away.
        waiting = Outcome.temporary(str(exc), enhanced="4.4.5")
        found.update(dict.fromkeys(left, replace(waiting, remote_mta=server.host, counts=False)))
        doubtful.update(left)
    return [n for n in numbers if found[n].result is Result.TEMPORARY and n not in doubtful]


async def _hand_over(
    server: Server, delivery: Delivery, left: list[int], found: dict[int, Outcome], doubtful: set[int]
) -> None:
    """`left` says at each time who has no outcome yet. Raises Crowded."""
    share = await server.share()
    await share.turn()
    kept: Kept | None = None
    new = False
    try:
        while left:
            if kept is None:
                kept = await server.connection(share, new=new)
            reused = kept.reused
            batch = next_batch(delivery, left, kept.connection.capabilities)
            answers = await _transact(server, kept, delivery, batch, found)
            if reused and _ended_meanwhile(kept, answers):
                server.give_back(kept)
                kept, new = None, True
                continue
            _tell(share, answers)
            crowded = _crowded_out(answers)
            found.update(zip(batch, _outcomes(server, delivery, kept, answers, crowded), strict=True))
            doubtful.update(
                n for n, answer in zip(batch, answers, strict=True) if answer.fate is Fate.UNKNOWN
            )
            done = frozenset(batch)
            left[:] = [number for number in left if number not in done]
            if kept.failure is not None and not any(answer.accepted for answer in answers):
                # Nobody else has a better chance now.
                found.update(dict.fromkeys(left, _unreached(server, kept, kept.failure)))
                return
            # Also when those before them were refused, as they would be each time: whoever comes first would
            # keep the others waiting until it is given up. A transaction takes one away at least: this ends.
            left[:0] = [batch[place] for place in crowded]
            if kept.spent:
                server.give_back(kept)
                kept, new = None, True
            if left:
                await share.turn()
    finally:
        if kept is not None:
            server.give_back(kept)


def _tell(share: Share, answers: Sequence[results.Result]) -> None:
    """421 and 4.7.x are a server's ways to ask for less."""
    accepted = False
    for answer in answers:
        if answer.fate is Fate.ACCEPTED:
            accepted = True
        elif answer.reply is not None and (
            answer.reply.code == 421 or (answer.enhanced or "").startswith("4.7.")
        ):
            share.slow_down()
            return
    if accepted:
        share.recover()


async def _transact(
    server: Server, kept: Kept, delivery: Delivery, batch: Sequence[int], found: dict[int, Outcome]
) -> Sequence[results.Result]:
    if kept.failure is not None:
        return [kept.failure] * len(batch)
    try:
        return await kept.connection.deliver(transaction(delivery, batch), delivery.content.chunks())
    except BaseException as exc:
        # Time is up. Some may have been refused; of a message that was sent whole nothing is known; of
        # another at least how far it came, unless an earlier server had an answer.
        cancelled = isinstance(exc, trio.Cancelled)
        transcript = kept.connection.transcript
        for number, answer in zip(batch, kept.connection.results, strict=False):
            if answer.fate is not Fate.BROKEN or (cancelled and number not in found):
                found[number] = _outcome(server, kept, answer, transcript)
        kept.abandoned = True
        raise


# --- What it came to ---


def error_text(answer: results.Result) -> str:
    """An answer that is no success, for people."""
    reply = answer.reply
    if reply is not None:
        enhanced = f"{reply.enhanced} " if reply.enhanced else ""
        return f"remote answered {reply.code} {enhanced}{reply.text}".rstrip()
    if answer.fate is Fate.UNKNOWN:
        return f"outcome unknown, the message may have been delivered: {answer.text}"
    return answer.text


def _outcomes(
    server: Server,
    delivery: Delivery,
    kept: Kept,
    answers: Sequence[results.Result],
    crowded: Sequence[int],
) -> Sequence[Outcome]:
    failed = not all(answer.accepted for answer in answers)
    transcript = kept.connection.transcript if failed else ""
    passed_on = bool(delivery.dsn) and "DSN" in kept.connection.capabilities
    return [
        _outcome(server, kept, answer, transcript, passed_on=passed_on, for_now=place in crowded)
        for place, answer in enumerate(answers)
    ]


def _outcome(
    server: Server,
    kept: Kept,
    answer: results.Result,
    transcript: str,
    *,
    passed_on: bool = False,
    for_now: bool = False,
) -> Outcome:
    if answer.accepted:
        kind = Result.DELIVERED
    else:
        waits = not answer.permanent or for_now or server.is_ours(answer)
        kind = Result.TEMPORARY if waits else Result.PERMANENT
    return Outcome(
        result=kind,
        code=answer.code or 0,
        enhanced=answer.enhanced
        or ("" if answer.reply is not None else _NO_REPLY.get(answer.stage, "4.4.2")),
        error="" if answer.accepted else server.error(answer),
        remote_mta=server.host,
        remote_ip=kept.connection.remote_ip,
        tls=kept.tls_used,
        transcript="" if answer.accepted else transcript,
        about_recipient=answer.stage in ("rcpt", "data", "dot"),
        dsn_passed_on=passed_on and answer.accepted,
        unknown=answer.fate is Fate.UNKNOWN,
    )


def _unreached(server: Server, kept: Kept, failure: results.Result) -> Outcome:
    """For those who were not asked for before the connection ended."""
    temporary = _outcome(server, kept, failure, kept.connection.transcript, for_now=True)
    return replace(temporary, code=0, enhanced="4.4.2")


def _ended_meanwhile(kept: Kept, answers: Sequence[results.Result]) -> bool:
    """The server had ended the connection while it was idle, without a word to this transaction.

    Where the message was sent behind its envelope, a server that ends without a word has hardly taken it; one
    that is only slow to answer, or answers nonsense, may well have.
    """

    def ended(answer: results.Result) -> bool:
        if answer.fate is Fate.UNKNOWN:
            return not kept.connection.timed_out and answer.enhanced != NONSENSE
        return answer.fate is Fate.BROKEN or answer.code == 421

    return all(answer.stage == "mail" and ended(answer) for answer in answers)


def _crowded_out(answers: Sequence[results.Result]) -> list[int]:
    """Those refused only because others had been asked for before them: they are asked for again at once.

    What the first one gets is never for the others' sake, and nor is the same answer to all behind it: a
    server that is full says 452 to each, and would be asked as many times as there are recipients.
    """
    crowded: list[int] = []
    before: set[tuple[int | None, str | None]] = set()  # what those got whom the server was asked for
    for place, answer in enumerate(answers):
        if answer.stage not in ("rcpt", "data", "dot"):
            continue
        refusal = (answer.code, answer.enhanced) if answer.stage == "rcpt" else (None, None)
        if answer.stage == "rcpt" and answer.code in TOO_MANY and before - {refusal}:
            crowded.append(place)
        before.add(refusal)
    return crowded
