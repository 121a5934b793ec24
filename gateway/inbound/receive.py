"""Mail that comes in: whose it is, what the policy says, and stored durably before the 250.

`Receiver` is the handler of the SMTP server (gateway.net.smtp_server); each message is one `_Incoming`,
its sink. One stored content for all recipients; one row, event and webhook call for each account.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import trio

from gateway.accounts.directory import Directory
from gateway.clock import Clock
from gateway.config.accounts import INCOMING, AccountSettings
from gateway.config.settings import Settings
from gateway.errors import PluginError, Stale, StoreError
from gateway.hooks.stages import Hooks
from gateway.inbound.replies import FULL, OK, rejection, reply_to
from gateway.inbound.reports import Arrived, Reports
from gateway.inbound.verify.message import Client, IncomingMessage, Verifier
from gateway.mail.address import Address, AddressError, ascii_domain
from gateway.mail.auth_results import AuthResults
from gateway.mail.fields import format_date
from gateway.mail.reading import ParsedHeader, parse_header
from gateway.model import Accept, Reception, Reject
from gateway.net.smtp_handler import Session
from gateway.offload import Offload, OffloadError
from gateway.outbound.settle import call_draft, keep_events_until
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply
from gateway.store import reports, usage
from gateway.store.changes import MESSAGE_BYTES, IncomingDraft, NewCopy, NewReceived, Report
from gateway.store.content import StoredBytes
from gateway.store.received import INBOX
from gateway.store.spool import Spool
from gateway.store.store import Store

log = logging.getLogger(__name__)

Step = Literal["mail", "rcpt", "data"]  # of Reception

MAX_RECEIVED = 100  # header fields; more is a loop (RFC 5321, 6.3)
DECIDE_AGAIN = 3  # times, when what a report says rests on what changes until the commit
HEAD = 1024 * 1024  # bytes kept in memory to read the header section from


class Receiver:
    """Decides about mail that comes in. One for the process."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        hooks: Hooks,
        store: Store,
        clock: Clock,
        offload: Offload,
        announced: Callable[[bool], None],
        verifier: Verifier | None = None,
        count: Callable[[], None] = lambda: None,
    ) -> None:
        """Without a verifier nothing is verified. `announced` is called before events are written, with
        whether some of them have webhook calls; `count` for each message that is taken."""
        self.count = count
        self.reports = Reports(settings, hooks, store, offload)
        self.settings, self.directory, self.hooks = settings, directory, hooks
        self.store, self.clock, self.offload, self.announced = store, clock, offload, announced
        self.verifier = verifier

    async def connected(self, session: Session) -> Reply | None:
        return None

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        try:
            return await self._policy("mail", session, envelope)
        except AddressError as exc:
            return Reply(501, "5.1.7", (str(exc),))

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        try:
            address = self.local(recipient)
        except AddressError as exc:
            return Reply(501, "5.1.3", (str(exc),))
        # Postmaster hears of what is wrong with a domain while it is disabled, too.
        if self.directory.domain_disabled(address.domain) and not self.directory.is_postmaster(address):
            return Reply(450, "4.2.1", ("Mail for this domain is not taken at the moment",))
        accounts = self.accounts_of(address)
        if not accounts:
            return Reply(550, "5.1.1", ("There is no such address here",))
        try:
            if not await self._has_room(accounts, envelope.size):
                return FULL
        except StoreError as exc:
            return reply_to(exc)
        return await self._policy("rcpt", session, envelope, recipient)

    async def open_data(self, session: Session, envelope: Envelope) -> _Incoming:
        return _Incoming(self, session, envelope)

    def accounts_of(self, address: Address) -> tuple[str, ...]:
        unknown = self.settings.smtp.unknown_recipients
        return self.directory.recipients(address) or ((unknown,) if unknown else ())

    async def _has_room(self, accounts: Sequence[str], declared: int | None) -> bool:
        """Whether one of them has, for a message of the declared size, or else of any."""
        quotas = [(account, self.settings.accounts[account].quota) for account in accounts]
        if not all(quota for _, quota in quotas):
            return True
        size = declared or 1
        return await self.store.read(
            lambda conn: any(usage.has_room(conn, account, size, quota) for account, quota in quotas)
        )

    async def _policy(
        self, step: Step, session: Session, envelope: Envelope, recipient: Mailbox | None = None
    ) -> Reply | None:
        if not self.hooks.gateway.has("receive_policy"):
            return None
        answer = await self.ask_policy(self.reception(step, session, envelope, recipient))
        return answer if isinstance(answer, Reply) else None

    async def ask_policy(self, reception: Reception) -> Reply | Accept:
        """What the plugins say; a Reply is their refusal."""
        try:
            answer = await self.hooks.gateway.receive_policy(reception=reception)
        except PluginError as exc:
            return reply_to(exc)
        if isinstance(answer, Reject):
            if answer.after:
                await trio.sleep(answer.after)
            return rejection(answer)
        return answer or Accept()

    def reception(
        self,
        step: Step,
        session: Session,
        envelope: Envelope,
        recipient: Mailbox | None = None,
        **more: Any,
    ) -> Reception:
        """What the plugins are given; `more` are its fields of the whole message."""
        recipients = [self.local(r) for r in envelope.recipients]
        if recipient is not None:
            recipients.append(self.local(recipient))
        return Reception(
            step=step,
            remote_ip=session.remote_ip,
            helo=session.hello.name if session.hello else "",
            reverse_path=self.address(envelope.reverse_path),
            recipients=tuple(recipients),
            **more,
        )

    def local(self, mailbox: Mailbox) -> Address:
        """A mailbox as an address; postmaster without a domain (RFC 5321, 4.5.1) is ours."""
        return _address(mailbox.localpart, mailbox.domain or self.settings.hostname)

    def address(self, reverse_path: Mailbox | None) -> Address | None:
        return None if reverse_path is None else self.local(reverse_path)


class _Fate:
    """Whether a message was stored, for those who have to know (Reception.stored)."""

    def __init__(self) -> None:
        self.stored, self.known = False, trio.Event()

    async def __call__(self) -> bool:
        await self.known.wait()
        return self.stored


class _Incoming:
    """One message on its way in (a Sink of gateway.net.smtp_server)."""

    def __init__(self, receiver: Receiver, session: Session, envelope: Envelope) -> None:
        self._receiver, self._session, self._envelope = receiver, session, envelope
        self._sender = receiver.address(envelope.reverse_path)
        self._spool: Spool | None = None
        self._head = bytearray()  # the first of the message, for its header
        self._started = receiver.clock.now()
        self._fate = _Fate()
        # What of it is verified while it comes; None: nothing is, and our own fields are written at once.
        self._unverified: IncomingMessage | None = None
        if receiver.verifier is not None and session.peer is not None:
            self._unverified = receiver.verifier.message()

    async def write(self, data: bytes) -> Reply | None:
        try:
            if self._spool is None:
                self._spool = self._receiver.store.content.spool()
                if self._unverified is None:
                    await self._spool.write(self._trace())
            if len(self._head) < HEAD:
                self._head += data
            if self._unverified is not None:
                data = await self._unverified.write(data)
            await self._spool.write(data)
        except (StoreError, OffloadError) as exc:
            return reply_to(exc)
        return None

    async def commit(self) -> Reply:
        """Everything that decides, then the store; only then 250."""
        receiver = self._receiver
        try:
            failed = await self.write(b"")  # an empty message has a spool too
            if failed is not None:
                return failed
            section = self._section()
            header = await receiver.offload.run_on_message(
                section, parse_header, null_sender=self._sender is None
            )
            if header.received > MAX_RECEIVED:
                return Reply(
                    554, "5.4.6", (f"More than {MAX_RECEIVED} Received headers: this message loops",)
                )
            stored, auth = await self._finish()
            owners = self._owners()
            reception = self._reception(section, stored, auth)
            answer = await receiver.ask_policy(reception)
            if isinstance(answer, Reply):
                self._log_refusal(answer, auth)
                return answer
            mailboxes = [
                await self._mailbox(reception, *owner, chosen=answer.mailbox or INBOX) for owner in owners
            ]
            return await self._store(header, stored, auth, owners, mailboxes)
        except Exception as exc:
            return reply_to(exc)
        finally:
            self._fate.known.set()
            await self.abort()

    async def abort(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            await spool.close()

    def _section(self) -> bytes:
        """The header section, as the client sent it."""
        end = self._head.find(b"\r\n\r\n")
        return bytes(self._head if end < 0 else self._head[: end + 4])

    async def _finish(self) -> tuple[StoredBytes, AuthResults | None]:
        """All of the message, durable if it is large, and what was verified of it."""
        assert self._spool is not None
        peer = self._session.peer
        if self._unverified is None or peer is None:
            return await self._spool.finish(), None
        hello = self._session.hello
        client = Client(ip=peer, helo=hello.name if hello else "", mail_from=self._sender)
        auth = await self._unverified.results(client)
        await self._spool.write(self._unverified.rest())
        return await self._spool.finish(self._trace() + self._unverified.head(auth, client)), auth

    def _reception(self, section: bytes, stored: StoredBytes, auth: AuthResults | None) -> Reception:
        """The whole message, for plugins."""
        content = self._receiver.store.content.open(stored)
        return self._receiver.reception(
            "data",
            self._session,
            self._envelope,
            header=section,
            content=content,
            auth=auth,
            stored=self._fate,
        )

    async def _mailbox(self, reception: Reception, account: str, recipient: Address, *, chosen: str) -> str:
        stages = self._receiver.hooks.for_account(account)
        said = await stages.mailbox(reception=reception, account=account, recipient=recipient, chosen=chosen)
        return said or chosen

    def _log_refusal(self, reply: Reply, auth: AuthResults | None) -> None:
        log.info(
            "refused session=%s code=%d from=<%s> spf=%s dkim=%s dmarc=%s",
            self._session.id,
            reply.code,
            self._envelope.reverse_path or "",
            auth.spf.result if auth else "",
            ",".join(check.result for check in auth.dkim) if auth else "",
            auth.dmarc.result if auth else "",
        )

    async def _store(
        self,
        header: ParsedHeader,
        stored: StoredBytes,
        auth: AuthResults | None,
        owners: Sequence[tuple[str, Address]],
        mailboxes: Sequence[str],
    ) -> Reply:
        receiver = self._receiver
        arrived = Arrived(
            mail_from=self._sender,
            header=header,
            content=receiver.store.content.open(stored),
        )
        candidates = [receiver.reports.may_be(arrived, *owner) for owner in owners]
        read = await receiver.reports.read(arrived) if any(candidates) else None
        for tries in range(DECIDE_AGAIN + 1):
            now = receiver.clock.now()
            found = [
                await receiver.reports.about(arrived, read, *owner, now, suppressing=tries < DECIDE_AGAIN)
                if candidate
                else ()
                for owner, candidate in zip(owners, candidates, strict=True)
            ]
            new = self._copies(stored, header, auth, mailboxes, owners, found, now)
            try:
                # Before the write: what claims the calls joins its transaction.
                receiver.announced(any(found) or any(copy.event and copy.event.calls for copy in new.copies))
                arrival = reports.Arrival(new, found, now)
                size = stored.size + MESSAGE_BYTES * len(new.copies)
                ids, _ = await receiver.store.write_together(reports.add, arrival, size=size)
                break
            except Stale:
                # What was reported on is gone, or a suppression rested on what has changed.
                if tries == DECIDE_AGAIN:
                    raise
        self._fate.stored = True
        self._receiver.count()
        log.info(
            "received session=%s messages=%s from=<%s> size=%d",
            self._session.id,
            ids,
            self._envelope.reverse_path or "",
            stored.size,
        )
        return OK

    def _owners(self) -> list[tuple[str, Address]]:
        """Who gets a copy, and for which recipient: an alias may have many accounts."""
        recipients = [self._receiver.local(mailbox) for mailbox in self._envelope.recipients]
        return [
            (account, recipient)
            for recipient in recipients
            for account in self._receiver.accounts_of(recipient)
        ]

    def _copies(
        self,
        stored: StoredBytes,
        header: ParsedHeader,
        auth: AuthResults | None,
        mailboxes: Sequence[str],
        owners: Sequence[tuple[str, Address]],
        found: Sequence[Sequence[Report]],
        now: datetime,
    ) -> NewReceived:
        """A copy for each owner, announced to its account unless it is a report on what that sent."""
        accounts = self._receiver.settings.accounts
        mail_from, remote_ip = str(self._sender or ""), self._session.remote_ip
        copies = []
        for (account, recipient), mailbox, reported in zip(owners, mailboxes, found, strict=True):
            copies.append(
                NewCopy(
                    account=account,
                    mailbox=mailbox,
                    mail_from=mail_from,
                    mail_from_validated=auth is not None and auth.mail_from_validated,
                    rcpt_to=str(recipient),
                    msg_from=header.msg_from,
                    msg_from_validated=auth is not None and auth.msg_from_validated,
                    dkim_verified_domains=() if auth is None else auth.dkim_verified_domains,
                    remote_ip=remote_ip,
                    dsn=header.dsn,
                    automated=header.automated,
                    message_id=header.message_id,
                    subject=header.subject,
                    quota=accounts[account].quota,
                    event=None if reported else _announcement(accounts[account], now),
                )
            )
        return NewReceived(content=stored, copies=tuple(copies))

    def _trace(self) -> bytes:
        """Return-Path and Received (RFC 5321, 4.4; RFC 3848 and RFC 6531 for the protocol; RFC 8689, 4.3)."""
        session, envelope = self._session, self._envelope
        hello = session.hello
        name = hello.name if hello else "unknown"
        protocol = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
        protocol = protocol + ("S" if session.tls else "") if hello and hello.extended else "SMTP"
        tls = " (requiretls)" if envelope.require_tls else ""
        hostname = ascii_domain(self._receiver.settings.hostname)
        lines = [
            f"Return-Path: <{envelope.reverse_path or ''}>",
            f"Received: from {name} ([{_literal(session)}])",
            f"\tby {hostname}{tls} with {protocol} id {session.id}",
        ]
        if len(envelope.recipients) == 1:  # with more, it would tell each of the others
            lines.append(f"\tfor <{envelope.recipients[0]}>")
        lines[-1] += ";"
        lines.append(f"\t{format_date(self._started)}")
        return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n"


def _literal(session: Session) -> str:
    """The peer as an address literal (RFC 5321, 4.1.3)."""
    if session.peer is None:
        return "unknown"
    return session.remote_ip if session.peer.version == 4 else f"IPv6:{session.remote_ip}"


@lru_cache(maxsize=4096)
def _address(localpart: str, domain: str) -> Address:
    """Remembered: each step of a transaction asks for it, and so does the next message from or to there."""
    return Address(localpart, domain)


def _announcement(account: AccountSettings, now: datetime) -> IncomingDraft:
    return IncomingDraft(
        keep_until=keep_events_until(account, now),
        calls=tuple(
            call_draft(target, account, now, supersede=False) for target in account.webhook_targets(INCOMING)
        ),
    )
