"""What plugins would say to a message: each stage that decides is asked; nothing is stored, sent or dialled.

The plugins are the loaded ones, with their settings, limits and policies; only the functions are wrapped, to
note who answered what, and nothing is counted. Stages in which plugins do something (`event`,
`around_attempt`, ...) are only named: to ask them would be to do it.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from gateway.config.settings import DIRECT, Settings
from gateway.hooks.stages import GatewayStages, Hooks, Stages
from gateway.mail.address import Address, ascii_domain
from gateway.mail.compose import Draft, Mailbox, compose
from gateway.mail.report_source import read_source
from gateway.model import (
    Accept,
    Event,
    GiveUp,
    HoldRule,
    NextHop,
    Outcome,
    QueuedMessage,
    Reception,
    Reject,
    RetryAt,
    Route,
    Submission,
    Suppress,
    Suppression,
    WebhookBody,
    WebhookCall,
)
from gateway.outbound.attempt import configured_routes
from gateway.outbound.schedule import fallback_next_attempt
from gateway.plugins.traced_calls import Ended, Step, Trace, shown

SAMPLE_ID = "trace"  # of the submission, in log lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The message to be asked about."""

    account: str
    sender: Address
    recipient: Address
    subject: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What a running gateway knows besides the configuration: hold rules, suppression lists."""

    rules: Sequence[HoldRule] = ()
    suppression: Callable[[str, str, Address], Awaitable[Suppression | None]] | None = None


async def trace_outgoing(settings: Settings, hooks: Hooks, sample: Sample, known: Known) -> tuple[Step, ...]:
    """A message that the account hands in, from submission to webhook."""
    return await _Outgoing(settings, hooks, sample, known).run()


async def trace_incoming(hooks: Hooks, sample: Sample) -> tuple[Step, ...]:
    """A message from outside that comes for the account."""
    return await _Incoming(hooks, sample).run()


class _Way(abc.ABC):
    """One message's way, whose stages tell the trace what their plugins said."""

    def __init__(self, hooks: Hooks, sample: Sample) -> None:
        self._sample, self._trace = sample, Trace()
        self._stages = Stages(self._trace.table(hooks.for_account(sample.account).table))
        self._gateway = GatewayStages(self._trace.table(hooks.gateway.table))

    async def run(self) -> tuple[Step, ...]:
        with suppress(Ended):
            await self._run()
        return tuple(self._trace.steps)

    @abc.abstractmethod
    async def _run(self) -> None:
        """Asks stage after stage. Raises Ended."""


# --- Out -----------------------------------------------------------------------------------------


class _Outgoing(_Way):
    def __init__(self, settings: Settings, hooks: Hooks, sample: Sample, known: Known) -> None:
        super().__init__(hooks, sample)
        self._settings, self._known = settings, known

    async def _run(self) -> None:
        ask, stages, sample = self._trace.ask, self._stages, self._sample
        given = _submission(self._settings.hostname, sample)
        submission = await ask(
            "submission",
            stages.submission(submission=given),
            lambda answer: "as it was handed in" if answer == given else shown(answer, [given]),
        )
        data = await ask(
            "sign",
            stages.sign(data=submission.data, submission=submission),
            lambda answer: f"{len(answer) - len(submission.data)} bytes of signatures",
        )
        recipient = submission.recipients[0]
        base = await ask(
            "base_address",
            stages.base_address(address=recipient),
            lambda answer: f"stands on suppression lists as {answer or recipient}",
        )
        held = await ask(
            "hold",
            stages.hold(submission=submission, recipient=recipient, rules=self._known.rules),
            lambda answer: "held: it waits until somebody releases it" if answer else "not held",
        )
        message = _message(submission, recipient, str(base or recipient), bool(held), len(data), sample.now)
        entry = None
        if self._known.suppression is not None:
            entry = await self._known.suppression(sample.account, str(base or recipient), recipient)
        suppressed = await ask(
            "suppressed",
            stages.suppressed(message=message, entry=entry),
            lambda answer: "not sent: suppressed" if answer else "sent",
        )
        if suppressed:
            return
        self._trace.name(stages, "around_attempt")
        route = await self._route(message)
        await self._shape(message, route.transport)
        for code, failure in (
            (451, Outcome.temporary("a failure for now", code=451, enhanced="4.3.0")),
            (550, Outcome.permanent("a failure for good", code=550, enhanced="5.1.1")),
        ):
            await ask(
                "classify_outcome",
                stages.classify_outcome(outcome=failure, message=message, transport=route.transport),
                partial(_classified, code),
            )
        failure = Outcome.temporary("a failure for now", code=451, enhanced="4.3.0")
        await ask(
            "retry",
            stages.retry(message=message, outcome=failure, now=sample.now, route=route),
            lambda answer: f"after a failure with 451: {_retried(answer, message)}",
        )
        failure = Outcome.permanent("a failure for good", code=550, enhanced="5.1.1")
        await ask(
            "suppress",
            stages.suppress(message=message, outcome=failure, source="queue", history=(), now=sample.now),
            lambda answer: f"after a failure with 550 5.1.1: {_suppressed(answer)}",
        )
        self._trace.name(stages, "event", "around_webhook")
        await self._webhook(message)

    async def _route(self, message: QueuedMessage) -> Route:
        rules = configured_routes(self._settings, message.account, self._sample.sender.domain)
        known = {*self._settings.transports, DIRECT}

        def result(name: str) -> str:
            return f"by transport {name}" if name in known else f"for now by none: there is no {name!r}"

        route = await self._trace.ask(
            "route",
            self._stages.route(message=message, routes=rules),
            lambda answer: result(DIRECT if answer is None else answer.transport),
        )
        return route or Route(DIRECT)

    async def _shape(self, message: QueuedMessage, transport: str) -> None:
        table = self._settings.transports.get(transport, {})
        domain = message.recipient.domain
        host, port = str(table.get("host", f"mx.{domain}")), table.get("port", 25)
        hop = NextHop(domain, host, "", port if isinstance(port, int) else 25, transport)
        await self._trace.ask(
            "shape",
            self._gateway.shape(hop=hop),
            lambda answer: f"no limits for {host}" if answer is None else f"for {host}: {shown(answer, ())}",
        )

    async def _webhook(self, message: QueuedMessage) -> None:
        account = self._settings.accounts.get(message.account)
        event = _event(message, self._sample.now)
        for target in account.webhook_targets(event.name) if account is not None else ():
            body = await self._trace.ask(
                "format_webhook",
                self._stages.format_webhook(event=event, format_name=target.format),
                _formatted,
            )
            if not isinstance(body, WebhookBody):
                continue
            call = WebhookCall(
                id=0, account=message.account, event=event.name, url=target.url, format=target.format,
                attempt=1, time=self._sample.now, body=body.body, secrets=target.secrets,
            )  # fmt: skip
            await self._trace.ask(
                "sign_webhook",
                self._stages.sign_webhook(headers={}, call=call),
                lambda answer: f"{len(answer)} header fields",
            )


def _classified(code: int, outcome: Outcome) -> str:
    return f"a failure with {code} is {outcome.result.value}"


def _retried(answer: RetryAt | GiveUp | None, message: QueuedMessage) -> str:
    if isinstance(answer, GiveUp):
        return f"given up, {answer.reason}"
    return f"tried again at {answer.time if answer is not None else message.next_attempt:%Y-%m-%d %H:%M:%S}"


def _suppressed(answer: Suppress | None) -> str:
    if answer is None:
        return "not suppressed"
    until = f" until {answer.expires:%Y-%m-%d %H:%M:%S}" if answer.expires is not None else ""
    return f"suppressed{until}, {answer.reason}"


def _formatted(body: WebhookBody | bool | None) -> str:
    if isinstance(body, WebhookBody):
        return f"a call with {len(body.body)} bytes of {body.content_type}"
    return "nobody could format it" if body is None else "no call for this event"


def _submission(hostname: str, sample: Sample) -> Submission:
    draft = Draft(
        from_=[Mailbox("", sample.sender)],
        to=[Mailbox("", sample.recipient)],
        message_id=f"<{SAMPLE_ID}@{ascii_domain(hostname)}>",
        date=sample.now,
        subject=sample.subject,
        text="This message is not sent.",
    )
    composed = compose(draft)
    return Submission(
        id=SAMPLE_ID,
        account=sample.account,
        login=sample.sender,
        via="api",
        reverse_path=sample.sender,
        recipients=(sample.recipient,),
        header_from=sample.sender,
        data=composed.data,
        message_id=composed.message_id,
        subject=sample.subject,
        smtputf8=composed.smtputf8,
        has_8bit=composed.has_8bit,
    )


def _message(
    submission: Submission, recipient: Address, base_address: str, hold: bool, size: int, now: datetime
) -> QueuedMessage:
    return QueuedMessage(
        id=0,
        base_id=0,
        submission_id=submission.id,
        account=submission.account,
        sender=submission.reverse_path,
        recipient=recipient,
        queued=now,
        hold=hold,
        attempts=1,
        max_attempts=0,
        next_attempt=fallback_next_attempt(1, now),
        last_attempt=now,
        message_id=submission.message_id,
        subject=submission.subject,
        size=size,
        has_8bit=submission.has_8bit,
        smtputf8=submission.smtputf8,
        require_tls=submission.require_tls,
        transport="",
        from_id="",
        env_id="",
        extra=submission.extra,
        base_address=base_address,
    )


def _event(message: QueuedMessage, now: datetime) -> Event:
    return Event(
        id=0,
        time=now,
        account=message.account,
        name="delivered",
        queue_msg_id=message.id,
        from_id="",
        message_id=message.message_id,
        subject=message.subject,
        recipient=str(message.recipient),
        attempt=1,
        code=250,
        sender=str(message.sender or ""),
    )


# --- In ------------------------------------------------------------------------------------------


class _Incoming(_Way):
    async def _run(self) -> None:
        sample = self._sample
        data = _submission("trace.example", sample).data
        header = data.partition(b"\r\n\r\n")[0] + b"\r\n"
        at_mail = Reception(
            step="mail", remote_ip="192.0.2.1", helo="trace.example", reverse_path=sample.sender
        )
        at_rcpt = replace(at_mail, step="rcpt", recipients=(sample.recipient,))
        at_data = replace(at_rcpt, step="data", header=header, content=_Text(data))
        chosen = ""
        for reception in (at_mail, at_rcpt, at_data):
            answer = await self._policy(reception)
            if isinstance(answer, Reject):
                return
            chosen = answer.mailbox if isinstance(answer, Accept) else ""
        report = await self._trace.ask(
            "read_report",
            self._gateway.read_report(source=read_source(data)),
            lambda answer: "no report" if answer is None else "a report",
        )
        if report is not None:
            self._trace.name(self._stages, "match_report")
            return
        await self._trace.ask(
            "mailbox",
            self._stages.mailbox(
                reception=at_data, account=sample.account, recipient=sample.recipient, chosen=chosen
            ),
            lambda answer: f"into the mailbox {answer or chosen or 'Inbox'}",
        )
        self._trace.name(self._stages, "event", "format_webhook", "sign_webhook", "around_webhook")

    async def _policy(self, reception: Reception) -> Accept | Reject | None:
        def result(answer: Accept | Reject | None) -> str:
            if isinstance(answer, Reject):
                return f"at {reception.step}: refused with {answer.code} {answer.enhanced} {answer.reason}"
            return f"at {reception.step}: taken"

        return await self._trace.ask(
            "receive_policy", self._gateway.receive_policy(reception=reception), result
        )


class _Text:
    """A message's content that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data

    async def read(self) -> bytes:
        return self._data
