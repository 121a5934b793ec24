"""Which of some messages a report is about, by the recipient. Used by fromid, envid and messageid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway import Address, FeedbackReport, QueuedMessage, RecipientStatus, ReportMatch


def by_recipient(
    recipients: Sequence[RecipientStatus], messages: Sequence[QueuedMessage]
) -> list[tuple[RecipientStatus, QueuedMessage]]:
    """What is said of each message; of two messages to one recipient the first is meant, once."""
    known: dict[tuple[str, str], QueuedMessage] = {}
    for message in messages:
        known.setdefault(_key(message.recipient), message)
    found: dict[int, tuple[RecipientStatus, QueuedMessage]] = {}
    for recipient in recipients:
        for address in recipient.addresses:
            message_meant = known.get(_key(address))
            if message_meant is not None:
                found.setdefault(message_meant.id, (recipient, message_meant))
                break
    return list(found.values())


def complained(
    feedback: FeedbackReport,
    messages: Sequence[QueuedMessage],
    by: str,
    is_secret: Callable[[QueuedMessage], bool],
) -> tuple[ReportMatch, ...]:
    """The messages that a feedback report is about: those to who is named in it.

    Most name nobody: then only an identifier that the gateway made for one recipient alone says whose it is.
    """
    named = feedback.recipients
    if named:
        return tuple(ReportMatch(m.id, by, None, is_secret(m)) for m in messages if is_for(m, named))
    if len(messages) == 1 and is_secret(messages[0]):
        return (ReportMatch(messages[0].id, by, None, trusted=True),)
    return ()


def is_for(message: QueuedMessage, addresses: Sequence[Address]) -> bool:
    """Whether the message's recipient is one of these, itself or as its base address."""
    own = {_key(message.recipient)}
    if message.base_address:
        own.add(_key(Address.parse(message.base_address)))
    return not own.isdisjoint(_key(address) for address in addresses)


def may_be_for(message: QueuedMessage, addresses: Sequence[Address]) -> bool:
    """Whether what names these, or nobody, can be about the message's recipient.

    A report on somebody else suppresses nobody, however it was matched: a forwarder's address failed, not the
    one that the account sends to.
    """
    return not addresses or is_for(message, addresses)


def _key(address: Address) -> tuple[str, str]:
    """Servers on the way may change a localpart's case."""
    return address.localpart.casefold(), address.domain
