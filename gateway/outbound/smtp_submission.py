"""Mail that accounts hand in over SMTP (RFC 6409): whose it is, its header made fit, then into the queue.

`SmtpSubmission` is the handler of the SMTP server (gateway.net.smtp_server) behind logins; each message is
one `_Submitted`, its sink. All that is decided about a message is decided at its end, and all its recipients
are queued, durably, before the 250, or none.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import trio

from gateway.accounts.directory import Directory
from gateway.accounts.logins import Login
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.errors import StoreUnavailable, SubmissionRefused
from gateway.inbound.replies import reply_to
from gateway.mail.address import Address, AddressError, ascii_domain
from gateway.mail.compose import new_message_id
from gateway.mail.fields import format_date
from gateway.mail.submitted import HeaderFault, SubmittedHeader, rewrite
from gateway.net.smtp_handler import Session
from gateway.offload import Offload
from gateway.outbound.submission import NewSubmission, ReportWishes, Submitter
from gateway.smtp.addresses import Mailbox
from gateway.smtp.events import Envelope
from gateway.smtp.replies import Reply

MAX_FUTURE_RELEASE = timedelta(days=60)
IN_MEMORY = 128 * 1024  # bytes of a message that is still coming; what is larger waits in a file
AT_ONCE = 8  # large messages that are read back, signed and queued at a time

_NOT_LOGGED_IN = Reply(530, "5.7.0", ("Authentication required",))
_NOT_YOURS = Reply(550, "5.7.1", ("This sender is not an address of your account",))


class SmtpSubmission:
    """Takes mail from accounts. One for the process."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        submitter: Submitter,
        clock: Clock,
        offload: Offload,
        spool_dir: Path,
    ) -> None:
        self.settings, self.directory, self.submitter = settings, directory, submitter
        self.clock, self.offload, self.spool_dir = clock, offload, spool_dir
        self.large = trio.CapacityLimiter(AT_ONCE)

    def extensions(self) -> tuple[str, ...]:
        """Lines of the answer to EHLO (RFC 3461, RFC 4865)."""
        latest = self.clock.now().astimezone(UTC) + MAX_FUTURE_RELEASE
        seconds = int(MAX_FUTURE_RELEASE.total_seconds())
        return ("DSN", f"FUTURERELEASE {seconds} {latest:%Y-%m-%dT%H:%M:%SZ}")

    async def connected(self, session: Session) -> Reply | None:
        return None

    async def mail(self, session: Session, envelope: Envelope) -> Reply | None:
        login = session.login
        if login is None:  # the server sees to that
            return _NOT_LOGGED_IN
        if envelope.reverse_path is None:
            return _NOT_YOURS
        try:
            sender = _address(envelope.reverse_path, self.settings.hostname)
        except AddressError as exc:
            return Reply(501, "5.1.7", (str(exc),))
        if self.directory.domain_disabled(sender.domain):
            return Reply(450, "4.2.1", ("The domain of this sender is disabled",))
        if not self.directory.may_send_from(login.account, sender):
            return _NOT_YOURS
        now = self.clock.now()
        return _release_fault(release_time(envelope, now), now)

    async def rcpt(self, session: Session, envelope: Envelope, recipient: Mailbox) -> Reply | None:
        try:
            _address(recipient, self.settings.hostname)
        except AddressError as exc:
            return Reply(501, "5.1.3", (str(exc),))
        return None

    async def open_data(self, session: Session, envelope: Envelope) -> _Submitted | Reply:
        return _NOT_LOGGED_IN if session.login is None else _Submitted(self, session, session.login, envelope)


def release_time(envelope: Envelope, now: datetime) -> datetime | None:
    """When the message may be sent at the earliest (RFC 4865)."""
    if envelope.hold_for is not None:
        return now + timedelta(seconds=envelope.hold_for)
    return envelope.hold_until


def _release_fault(release: datetime | None, now: datetime) -> Reply | None:
    if release is None:
        return None
    if release <= now:
        return Reply(554, "5.5.4", ("HOLDUNTIL is in the past",))
    if release > now + MAX_FUTURE_RELEASE:
        return Reply(554, "5.5.4", (f"A message is held for {MAX_FUTURE_RELEASE.days} days at most",))
    return None


def _address(mailbox: Mailbox, hostname: str) -> Address:
    return Address(mailbox.localpart, mailbox.domain or hostname)


class _Submitted:
    """One message on its way in (a Sink of gateway.net.smtp_server)."""

    def __init__(self, handler: SmtpSubmission, session: Session, login: Login, envelope: Envelope) -> None:
        self._handler, self._session, self._login, self._envelope = handler, session, login, envelope
        self._started = handler.clock.now()
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None  # nameless: gone with its last user

    async def write(self, data: bytes) -> Reply | None:
        self._buffer += data
        if len(self._buffer) >= IN_MEMORY:
            try:
                await trio.to_thread.run_sync(self._to_file)
            except OSError as exc:
                return reply_to(StoreUnavailable(f"a submission cannot be kept: {exc}"))
        return None

    async def commit(self) -> Reply:
        try:
            if self._file is None:
                return await self._submit(bytes(self._buffer))
            async with self._handler.large:
                return await self._submit(await trio.to_thread.run_sync(self._from_file))
        except Exception as exc:
            return reply_to(exc)
        finally:
            self._close()

    async def abort(self) -> None:
        self._close()

    async def _submit(self, message: bytes) -> Reply:
        handler = self._handler
        section, body = _split(message)
        made = new_message_id(ascii_domain(handler.settings.hostname))  # if it has none
        header = await handler.offload.run_beside(
            len(section),
            rewrite,
            section,
            message_id=made,
            date=self._started,
            keep_extra=handler.settings.submission.keep_extra_headers,
        )
        if isinstance(header, HeaderFault):
            raise SubmissionRefused("badFrom" if header.about == "from" else "user", header.text)
        if not handler.directory.may_send_from(self._login.account, header.from_):
            raise SubmissionRefused("badFrom", f"From: {header.from_} is not an address of your account")
        submitted = await handler.submitter.submit(self._new(header, body, made))
        return Reply(250, "2.0.0", (f"Queued as {submitted.recipients[0].id}",))

    def _new(self, header: SubmittedHeader, body: bytes, made: str) -> NewSubmission:
        envelope, hostname = self._envelope, self._handler.settings.hostname
        assert envelope.reverse_path is not None  # refused at MAIL
        sender = _address(envelope.reverse_path, hostname)
        wishes: dict[Address, tuple[str, str]] = {}
        for mailbox, wish in zip(envelope.recipients, envelope.dsn, strict=True):
            # An address that was given twice gets the message once, as it was asked for the first time.
            wishes.setdefault(_address(mailbox, hostname), (",".join(wish.notify), wish.orcpt))
        recipients = tuple(wishes)
        # REQUIRETLS wins over the header (RFC 8689, 4.1).
        require_tls = True if envelope.require_tls else False if header.tls_required_no else None
        release = release_time(envelope, self._started)
        data = b"".join((self._trace(), header.section, b"\r\n", body))
        return NewSubmission(
            account=self._login.account,
            login=self._login.address,
            via="smtp",
            session=self._session.id,
            reverse_path=sender,
            header_from=header.from_,
            recipients=recipients,
            data=data,
            message_id=header.message_id,
            made_message_id=header.message_id == made,
            subject=header.subject,
            smtputf8=(header.utf8 and envelope.smtputf8)
            or not all(address.is_ascii for address in (sender, header.from_, *recipients)),
            has_8bit=not data.isascii(),
            require_tls=require_tls,
            future_release=None if release is None else release.astimezone(UTC),
            extra=header.extra,
            reports=ReportWishes(
                env_id=envelope.envid,
                ret=envelope.ret,
                future_release=_as_asked(envelope),
                recipients=wishes,
            ),
        )

    def _trace(self) -> bytes:
        """Received (RFC 5321, 4.4; RFC 3848 for the protocol; RFC 8689, 4.3)."""
        session, hello = self._session, self._session.hello
        protocol = "UTF8SMTP" if self._envelope.smtputf8 else "ESMTP"
        protocol += "SA" if session.tls else "A"
        peer = "unknown" if session.peer is None else str(session.peer)
        literal = f"IPv6:{peer}" if ":" in peer else peer
        tls = " (requiretls)" if self._envelope.require_tls else ""
        lines = [
            f"Received: from {hello.name if hello else 'unknown'} ([{literal}])",
            f"\tby {ascii_domain(self._handler.settings.hostname)}{tls} with {protocol} id {session.id};",
            f"\t{format_date(self._started)}",
        ]
        return "\r\n".join(lines).encode() + b"\r\n"

    # --- The message while it comes ---

    def _to_file(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._handler.spool_dir, buffering=0)  # noqa: SIM115 - see _close
        self._file.write(self._buffer)
        self._buffer.clear()

    def _from_file(self) -> bytes:
        assert self._file is not None
        self._file.seek(0)
        return self._file.read() + self._buffer

    def _close(self) -> None:
        self._buffer = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None


def _split(message: bytes) -> tuple[bytes, bytes]:
    """Header section and body, without the empty line between them. Lines end in CRLF and nothing else."""
    if message.startswith(b"\r\n"):
        return b"", message[2:]
    end = message.find(b"\r\n\r\n")
    return (message, b"") if end < 0 else (message[: end + 2], message[end + 4 :])


def _as_asked(envelope: Envelope) -> str:
    """As the store keeps it (RFC 4865, 5)."""
    if envelope.hold_for is not None:
        return f"for;{envelope.hold_for}"
    if envelope.hold_until is not None:
        return f"until;{envelope.hold_until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return ""
