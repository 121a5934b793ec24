"""Mail that comes in."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.hookspecs import checks
from gateway.hookspecs.marks import OnError, Scope, Verb, hookspec
from gateway.mail.address import Address
from gateway.model import Accept, Reception, Reject


class ReceptionSpecs(Protocol):
    """Mail that comes in."""

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(Accept, Reject),
        check=checks.receive_policy,
        raising_suspends=False,
    )
    def receive_policy(self, reception: Reception, settings: Any) -> Accept | Reject | None:
        """Accepts or refuses mail that comes in.

        Called at each step of an SMTP transaction on the inbound listener: MAIL FROM, each RCPT TO, and when
        the whole message is there and verified. Answer Accept (no other plugin is asked), in the end perhaps
        with a mailbox, Reject with the reply to give, at once or `after` a while, None to leave it to the
        next. When nobody answers, it is accepted.

        A failure: 451, and the client tries again. Only time-outs suspend this hook: strangers choose what it
        is asked, and must not keep others' mail out by that.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=str,
        check=checks.mailbox,
        raising_suspends=False,
    )
    def mailbox(
        self, reception: Reception, account: str, recipient: Address, chosen: str, settings: Any
    ) -> str | None:
        """Chooses the mailbox of a message that is taken.

        Called for each account that a message goes to, after `receive_policy` and before it is stored.
        `reception` is of the step "data". `recipient`: the one of its recipients that is the account's.
        `chosen`: where the message goes if nobody says otherwise, which is the mailbox of `receive_policy`,
        else the Inbox. Answer the name of a mailbox, which is made if it is missing; None leaves it to the
        next plugin.

        A failure: 451, and the client tries again. Only time-outs suspend this hook: strangers choose what it
        is asked, and must not keep others' mail out by that.
        """
