"""Before a message is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.hookspecs import checks
from gateway.hookspecs.marks import OnError, Scope, Verb, hookspec
from gateway.mail.address import Address
from gateway.model import HoldRule, Reject, Submission, TemplateEngine


class SubmissionSpecs(Protocol):
    """Before a message is queued."""

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=checks.template_engines,
    )
    def template_engines(self, settings: Any) -> Mapping[str, TemplateEngine] | None:
        """Registers languages of templates: what `Engine` of TemplateSet can be.

        Called once, when the configuration is loaded. Answer the engines by their names; two plugins must not
        use the same.

        A failure: the configuration is refused.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(Submission, Reject),
        check=checks.submission,
    )
    def submission(self, submission: Submission, settings: Any) -> Submission | Reject | None:
        """Looks at a message that an account hands in; may change or refuse it.

        Called once for each submission, after the gateway's own checks and before signing. Answer a changed
        copy (`dataclasses.replace`; not of id, account, login and via), `Reject` to refuse the message for
        all recipients, None to leave it as it is. The next plugin gets the changed one; after a Reject
        nobody is asked.

        A failure: the sender is asked to try again (API error, SMTP 451); nothing is queued.
        """

    @hookspec(
        verb=Verb.FOLD,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=bytes,
        check=checks.data,
    )
    def sign(self, data: bytes, submission: Submission, settings: Any) -> bytes | None:
        """Signs a message: the last that changes its data.

        Called once for each submission, after the stage `submission`. `data` is the whole message with
        CRLF line ends, as the plugin before left it (`submission.data` is as it was before all signing).
        Answer the whole message, usually with a header field prepended; None leaves it as it is.

        A failure: the sender is asked to try again; nothing is queued.
        """

    @hookspec(verb=Verb.FIRST, scope=Scope.ACCOUNT, limit=5.0, on_error=OnError.DEFER, answer=bool)
    def hold(
        self, submission: Submission, recipient: Address, rules: Sequence[HoldRule], settings: Any
    ) -> bool | None:
        """Decides whether one recipient's message waits in the queue until someone releases it.

        Called for each recipient of a submission when it is queued. `rules`: all hold rules in force. Answer
        True to hold, False not to (no other plugin is asked), None to leave it to the next. When nobody
        answers, the message is not held.

        A failure: the sender is asked to try again; nothing is queued.
        """

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.ACCOUNT,
        limit=5.0,
        on_error=OnError.FALLBACK,
        answer=Address,
    )
    def base_address(self, address: Address, settings: Any) -> Address | None:
        """Says which addresses are one and the same for the suppression list: those of one base address.

        Called for each recipient when a message is queued, and when an address is added to the list, removed
        or looked up. The same address must always get the same answer. None leaves it to the next plugin.

        A failure: when nobody else answers, the address itself is its base address. Only time-outs suspend
        this hook: while it is not asked, mail goes to those who are on the list under their base address.
        """
