"""The client's side of an SMTP session, without I/O (RFC 5321, 2920, 1870, 3030, 6152, 6531, 3207, 3461,
4954, 8689).

Bytes from the server go in through `receive_data`, events come out of `next_event`, bytes for the server out
of `data_to_send`. Five rules hold throughout:

1. Every command sent is in `_awaiting` until its reply is read; replies are matched with commands by order
   and by nothing else. What a reply means stands in one method for each kind of command.
2. Each recipient gets exactly one Result, set once. Whatever ends the connection gives the same result to all
   that have none yet; `connection_lost` is how the caller tells of the network's part.
3. A 421 answers whatever was asked and ends the connection. It is a normal reply.
4. What the server said before TLS is forgotten, and what it sent behind its yes to STARTTLS ends the
   connection: neither was from whom we talk to.
5. There is no login outside of TLS, unless that is asked for, and none of it is in the transcript.

A message goes by BDAT where the server offers CHUNKING and the size is known, as a single chunk: there is one
reply less to wait for, and no dot-stuffing. Else by DATA; the caller does the same for both. A server that
has taken one by BDAT, and offers PIPELINING, gets the next small one right behind its envelope (RFC 3030
section 4.2): the whole transaction is one round trip. The first on a connection waits, so that a server that
closes it at MAIL, as some do, has certainly not taken the message; and so does one behind RSET, which a
server may refuse and go on.

The order of calls: wait for Ready; `begin(transaction)`; when SendData comes, `send_message` for each
chunk and `end_message`; wait for Finished; again from `begin`, or `quit`. Upon NEED_DATA send what there
is to send, then read. Upon TlsStarting do the handshake, then call `tls_started`; a connection that begins
within TLS has it called first of all. Upon LoginStep call `answer_challenge`. Upon Failed, or when `closed`,
nothing more can be done with the connection.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from gateway.smtp.chunks import ChunkEncoder
from gateway.smtp.client_auth import Credentials
from gateway.smtp.client_session import (
    MAX_PIPELINED,
    NONSENSE,
    AskForTls,
    ClientSession,
    Command,
    Event,
    Kind,
)
from gateway.smtp.data import DataEncoder
from gateway.smtp.events import Finished, SendData
from gateway.smtp.replies import Reply
from gateway.smtp.results import Fate, Result
from gateway.smtp.transaction import Transaction, mail_command, rcpt_commands, refusals

MAX_AHEAD = 64 * 1024  # octets of a message that is sent before it is known whether anybody is to get it

__all__ = ["MAX_AHEAD", "MAX_PIPELINED", "AskForTls", "Event", "SmtpClient"]


class SmtpClient(ClientSession):
    """One connection. `hello_name` is our own host name or address literal; `starttls` is of no meaning for a
    connection that begins within TLS; with `credentials` we log in; `chunking` is to be used where it is
    offered. Not for use by several tasks."""

    def __init__(
        self,
        hello_name: str,
        starttls: AskForTls = AskForTls.NEVER,
        credentials: Credentials | None = None,
        *,
        chunking: bool = True,
    ) -> None:
        super().__init__(hello_name, starttls, credentials)
        self._chunking = chunking
        self._results: list[Result | None] | None = None  # of the transaction under way
        self._accepted: list[int] = []  # recipients that RCPT was accepted for
        self._mail_open = False  # the server has begun a transaction and not ended it: RSET is due
        self._encoder: DataEncoder | ChunkEncoder | None = None  # while the message is sent
        self._chunk: int | None = None  # octets that are to be sent by BDAT
        self._ahead = False  # they are sent without waiting for the envelope's replies
        self._takes_chunks = False  # the server has taken a message by BDAT
        self._leaving: Result | None = None  # 421 to a recipient of a message that was sent already

    @property
    def _sending(self) -> bool:
        return self._encoder is not None

    # --- What the caller wants done ---

    def begin(self, transaction: Transaction) -> None:
        """Start a transaction; its results come with Finished, also when the connection is of no more use."""
        opening = self._awaiting or self._handshaking or self._login is not None
        if self._results is not None or (opening and not self.closed):
            raise RuntimeError("the connection is not ready for a transaction")
        self._results = [None] * len(transaction.recipients)
        self._accepted = []
        self._transcript.begin_transaction()
        if self.failure is not None:
            self._finish(self.failure)
            return
        if not self._parser.empty:  # the rest of it would be taken for the answer to our next command
            self._fail(self._broken("unexpected part of a reply", NONSENSE))
            return
        self._results = refusals(transaction, self.capabilities)
        if all(self._results):
            self._finish()
            return
        if self._mail_open:
            self._unsent.append(Command("rset", "RSET"))
        self._unsent.append(Command("mail", mail_command(transaction, self.capabilities)))
        self._unsent.extend(
            Command("rcpt", line, number)
            for number, line in enumerate(rcpt_commands(transaction, self.capabilities))
            if self._results[number] is None
        )
        self._chunk = transaction.size if self._chunking and "CHUNKING" in self.capabilities else None
        if self._chunk is None:
            self._unsent.append(Command("data", "DATA"))
        self._send_commands()
        self._ahead = (
            self._chunk is not None
            and self._chunk <= MAX_AHEAD
            and self._takes_chunks
            and not self._mail_open
            and "PIPELINING" in self.capabilities
            and not self._unsent
        )
        if self._ahead:
            self._begin_chunk()

    def send_message(self, chunk: bytes) -> None:
        """A part of the message, without dot-stuffing, its lines ended by CRLF.

        A bare CR or LF makes the message unsendable and ends the connection, since data once begun
        can't be taken back. So does a message of another size than its transaction says, sent by BDAT.
        """
        if self._encoder is None:
            raise RuntimeError("the server does not wait for a message")
        try:
            self._output.append(self._encoder.feed(chunk))
        except ValueError as error:
            self._unsendable_data(error)

    def end_message(self) -> None:
        """The message is complete."""
        if self._encoder is None:
            raise RuntimeError("the server does not wait for a message")
        try:
            self._output.append(self._encoder.finish())
        except ValueError as error:
            self._unsendable_data(error)
            return
        self._encoder = None
        self._transcript.sent("(message)")
        self._awaiting.append(Command("dot", "."))

    # --- Replies ---

    def _on_rset(self, _command: Command, reply: Reply) -> None:
        if reply.positive:
            self._mail_open = False
        else:  # which says nothing about the message
            self._fail(self._broken(f"RSET failed: {reply}"))

    def _on_mail(self, _command: Command, reply: Reply) -> None:
        if reply.positive:
            self._mail_open = True
            return
        self._unsent.clear()
        self._settle(Result.from_reply(Fate.REFUSED, "mail", reply))
        self._finish_if_answered()

    def _on_rcpt(self, command: Command, reply: Reply) -> None:
        assert self._results is not None
        if self._results[command.recipient] is None:
            if reply.positive:
                self._accepted.append(command.recipient)
            else:
                self._results[command.recipient] = Result.from_reply(Fate.REFUSED, "rcpt", reply)
        if not self._accepted and not self._awaiting and self._unsent and self._unsent[0].kind == "data":
            self._unsent.clear()  # nobody is to get it
        if self._ahead or self._chunk is None or not self._accepted or self._awaiting or self._unsent:
            self._finish_if_answered()
        else:
            self._begin_chunk()

    def _begin_chunk(self) -> None:
        assert self._chunk is not None
        self._encoder = ChunkEncoder(self._chunk)
        self._transcript.sent(self._encoder.command)
        self._events.append(SendData())

    def _on_data(self, _command: Command, reply: Reply) -> None:
        if reply.code >= 400:
            self._settle(Result.from_reply(Fate.REFUSED, "data", reply))
            self._finish()
        elif self._accepted:
            self._encoder = DataEncoder()
            self._events.append(SendData())
        else:
            # DATA was pipelined, and the server said yes to it though nobody is to get the message.
            self._awaiting.append(Command("lone dot", "."))
            self._transcript.sent(".")
            self._output.append(b".\r\n")

    def _on_dot(self, _command: Command, reply: Reply) -> None:
        chunk = self._chunk is not None
        self._mail_open = chunk and not reply.positive  # RFC 3030 section 2
        self._takes_chunks = self._takes_chunks or (chunk and reply.positive)
        fate = Fate.ACCEPTED if reply.positive else Fate.REFUSED
        self._settle(Result.from_reply(fate, "dot", reply))
        if self._leaving is not None:
            self._end(self._leaving, self._leaving)
        self._finish()

    def _on_lone_dot(self, _command: Command, _reply: Reply) -> None:
        self._mail_open = False
        self._finish()

    # --- Results ---

    def _settle(self, result: Result) -> None:
        """The result of all recipients that have none."""
        if self._results is not None:
            self._results = [known or result for known in self._results]

    def _finish_if_answered(self) -> None:
        """Finish when nothing is left to be sent or answered; else the next reply comes here again."""
        if not (self._awaiting or self._unsent or self._sending):
            self._finish()

    def _finish(self, result: Result | None = None) -> None:
        """Report the transaction, with this result for all that have none."""
        if result is not None:
            self._settle(result)
        results, self._results = self._results, None
        assert results is not None
        done = tuple(known for known in results if known is not None)
        assert len(done) == len(results)
        self._encoder = None
        self._events.append(Finished(done))

    def _refused(self, command: Command, reply: Reply) -> None:
        if command.kind == "rcpt" and self.message_sent:
            # A server that goes on all the same may take for others what it has already.
            assert self._results is not None
            self._leaving = Result.from_reply(Fate.REFUSED, "rcpt", reply)
            self._on_rcpt(command, reply)
            if not all(self._results):
                return
        super()._refused(command, reply)

    def _broken(self, text: str, enhanced: str | None = None) -> Result:
        return self._leaving or super()._broken(text, enhanced)  # it has said so, and has not gone on

    def _unsendable_data(self, error: ValueError) -> None:
        self._fail(Result(Fate.UNSENDABLE, "data", str(error), enhanced="5.6.0"))

    def _fail(self, result: Result) -> None:
        """The end of the transaction under way, too."""
        if self._results is None:
            super()._fail(result)
        else:
            self._end(result, Result(Fate.BROKEN, "connect", result.text, enhanced=result.enhanced))
            self._finish(result)

    _ON_REPLY: ClassVar[Mapping[Kind, Callable[..., None]]] = {
        **ClientSession._ON_REPLY,
        "rset": _on_rset,
        "mail": _on_mail,
        "rcpt": _on_rcpt,
        "data": _on_data,
        "dot": _on_dot,
        "lone dot": _on_lone_dot,
    }
