"""The exceptions of the gateway, in one tree.

    GatewayError
    ├── ConfigError            the configuration is wrong; says where, and what to do
    ├── StartError             the gateway cannot start here: port in use, directory not writable, ...
    ├── StopError              workers did not end as they should when the gateway stopped
    ├── SubmissionRefused      a submission breaks a rule; carries the code that the API answers
    │   └── RejectedByPlugin   a plugin answered Reject to a submission
    ├── NotConfigured          there is no account or transport of that name; says which there are
    ├── OverQuota              the mailboxes of the account that a message came for are full (452)
    ├── TemplateError          a template is wrong, or does not go with its variables; says where
    ├── ApiError               a plugin's method of the API: what the caller can mend
    ├── NotVisible             no such message (or it is another account's, which must look the same)
    ├── PluginError            a plugin raised, hung or answered nonsense where its stage must not go on
    └── StoreError
        ├── StoreUnavailable   disk full or I/O error: nothing was written; try again later (451, 503)
        │   └── ContentUnavailable   a content store raised, hung or answered nonsense: likewise
        ├── StoreBusy          too many writes wait: nothing was written; try again later (451, 503)
        └── Stale              the facts that a decision relied on no longer hold: decide again
            └── KeyUsed        a call with the same Idempotency-Key was faster: answer as it was answered

Two places turn these into what a peer sees: `gateway.web.api.errors` and `gateway.inbound.replies`.
Programming errors are none of these; they are logged with their traceback and answered without detail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

ApiCode = Literal[
    "protocol",
    "user",
    "server",
    "error",
    "badAddress",
    "missingBody",
    "multipleFrom",
    "badFrom",
    "domainDisabled",
    "noRecipients",
    "messageLimitReached",
    "recipientLimitReached",
    "messageTooLarge",
    "malformedMessageID",
    "sentOverQuota",
    "messageNotFound",
    "partNotFound",
    "duplicate",
    "notFound",
    "rejected",
    "badIdempotencyKey",
]


class GatewayError(Exception):
    """Any failure that the gateway foresees."""


class ConfigError(GatewayError):
    """The configuration is wrong. The text is one line: file, place, what is wrong, what to do."""


class StartError(GatewayError):
    """The gateway cannot start. The text is one line: what is wrong and what to do."""


class StopError(GatewayError):
    """The gateway has stopped, but workers did not end as they should. The text is one line: which."""


class ApiError(GatewayError):
    """Raised by a plugin's method of the API for what the caller can mend: the text says what, and how."""


class SubmissionRefused(GatewayError):
    """A submission breaks a rule of the specification.

    `code` is what the API answers; the text names the field and what is wrong with it.
    """

    def __init__(self, code: ApiCode, message: str) -> None:
        super().__init__(message)
        self.code: ApiCode = code


class RejectedByPlugin(SubmissionRefused):
    """A plugin refused a submission with a public `Reject`; `smtp_code` and `enhanced` are the plugin's."""

    def __init__(self, plugin: str, smtp_code: int, enhanced: str, reason: str) -> None:
        super().__init__("rejected", f"plugin {plugin}: {reason}")
        self.plugin, self.smtp_code, self.enhanced, self.reason = plugin, smtp_code, enhanced, reason


class TemplateError(GatewayError):
    """What is wrong with a template, or with the variables it was given, for who wrote it.

    `part` is Subject, Text or HTML; `line` counts from 1, and is 0 where none can be named.
    """

    def __init__(self, part: str, line: int, message: str) -> None:
        super().__init__(part, line, message)  # all of them, so that it goes from a worker process to us
        self.part, self.line, self.message = part, line, message

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.part}{line}: {self.message}"


class NotVisible(GatewayError):
    """No message of that ID belongs to the account."""


class OverQuota(GatewayError):
    """There is no room for a message that came in."""


class NotConfigured(GatewayError):
    """There is no `kind` (account, transport) of that name; the text says which there are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no {kind} {name!r}; there are: {', '.join(known) or 'none'}")


class PluginError(GatewayError):
    """A plugin's hook raised, did not answer in time, or answered nonsense."""

    def __init__(self, plugin: str, hook: str, reason: str, label: str = "") -> None:
        """`label` is for people, if the two names are not enough."""
        super().__init__(f"{label or f'plugin {plugin!r}, hook {hook!r}'}: {reason}")
        self.plugin, self.hook, self.reason = plugin, hook, reason


class StoreError(GatewayError):
    """The store could not do what was asked; nothing was written."""


class StoreUnavailable(StoreError):
    """The disk is full or fails."""


class ContentUnavailable(StoreUnavailable):
    """A content store raised, did not answer in time or answered nonsense; the text names it."""


class StoreBusy(StoreError):
    """Too many writes wait for the writer."""


class Stale(StoreError):
    """A decision's facts (lease token, hold-rule generation, ...) no longer hold."""


class KeyUsed(Stale):
    """Another call with the same Idempotency-Key was faster: look what it was answered."""


def foreseen(exc: BaseException) -> GatewayError | None:
    """The first failure that was foreseen, of an exception or a group of them; None for any other."""
    if isinstance(exc, BaseExceptionGroup):
        group: BaseExceptionGroup[Any] = exc
        return next((found for one in group.exceptions if (found := foreseen(one))), None)
    return exc if isinstance(exc, GatewayError) else None
