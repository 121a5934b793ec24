"""What the text of a bounce says of a recipient: for reports that are written for people. Pure; bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.mail.address import Address
from gateway.mail.bounce_class import by_words, classify, is_permanent
from gateway.mail.dsn import RecipientStatus, find_reply
from gateway.mail.report_source import ReportSource

MAX_SAID = 2_000  # characters of what is said of one recipient
MAX_RECIPIENTS = 100  # of one text
MAX_MENTIONS = 4  # of one address that are looked at

_SPACE: Final = re.compile(r"\s+")
_PARAGRAPH: Final = re.compile(r"(?<=\S)[ \t]*\n[ \t]*\n|\n[ \t]*<[^<>\s]{1,320}@")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_HOST: Final = r"([A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,10}[A-Za-z0-9-]{1,63}|\[?\d{1,3}(?:\.\d{1,3}){3}\]?)"
_REMOTE: Final = (
    re.compile(rf"\bhost:? {_HOST}", re.IGNORECASE),
    re.compile(
        rf"\b(?:while talking to|server for the recipient domain \S{{1,255}} by) {_HOST}", re.IGNORECASE
    ),
    re.compile(rf"{_HOST}\.? (?:\[[^\]\n]{{1,60}}\] )?(?:does not|did not) like", re.IGNORECASE),
    re.compile(rf"\bconnected to {_HOST}", re.IGNORECASE),
)

# Who writes bounces (RFC 5321, 4.5.5; RFC 2142), and how their subjects begin.
_DAEMONS: Final = re.compile(
    r"\bmailer[-_. ]?daemon\b|\bmail[-_. ]?delivery[-_. ]?(?:sub)?system\b", re.IGNORECASE
)
_SYSTEMS: Final = re.compile(
    r"(?:mailer[-_.]?daemon|post[-_.]?master|mail[-_.]?delivery[-_.]?(?:sub)?system|mdaemon|mail[-_.]?daemon"
    r"|bounces?|double-?bounce|daemon|no-?reply|system[-_. ]?administrator|mail(?:er)?[-_.]?(?:agent|robot))"
    r"(?:@|$|\b)",
    re.IGNORECASE,
)
_SUBJECTS: Final = re.compile(
    r"undeliver|not (?:be )?deliver|returned (?:mail|message|to sender)|returning message"
    r"|delivery (?:status|fail|has)"
    r"|fail(?:ed|ure)\b.{0,40}\b(?:notice|deliver|mail|message)|(?:mail|message|deliver\w*)\b.{0,40}\bfail"
    r"|failure notice|(?:mail|delivery) (?:system )?(?:error|problem|warning)|bounced?\b"
    r"|warning: (?:message|could not)|delayed|rejected|nondeliver|non remis|unzustellbar|nicht zustellbar"
    r"|échec|non distribu|no entregad|no se p\w+ entregar|não entregue|mancata consegna|не доставлен"
    r"|配信|退信|返信不能",
    re.IGNORECASE,
)
_HELP: Final = re.compile(r"(?:support|help(?:desk)?|abuse|info|contact|admin(?:istrator)?)$", re.IGNORECASE)
# That something was not delivered, in a text.
FAILED: Final = re.compile(
    r"(?:un(?:able|deliver)|could ?n.t|cannot|can.?t|was(?: not|n.t)|not|fail\w*|did not|impossible)\b.{0,60}"
    r"\b(?:deliver\w*|reach|send|sent|receive)"
    r"|deliver\w*\b.{0,60}\b(?:fail|delay|problem|error|trouble|unsuccessful|not possible)"
    r"|undeliver|returned to (?:the )?sender|permanent (?:fatal )?error"
    r"|(?:mail|message)\b.{0,40}\b(?:rejected|bounced)"
    r"|trouble delivering|following (?:recipient|address)",
    re.IGNORECASE,
)
_DELAYED: Final = re.compile(
    r"warning message only|do not need to resend|(?:has been|is|was|been) delayed"
    r"|will (?:be )?(?:retr|keep trying|continue)"
    r"|not yet been delivered|still trying|delivery delayed",
    re.IGNORECASE,
)


def may_be_bounce(sender: str, subject: str) -> bool:
    """Whether a From field or a Subject, decoded, is like those of a bounce."""
    return bool(_SYSTEMS.search(sender[:500]) or _SUBJECTS.search(subject[:500]))


def is_bounce(source: ReportSource) -> bool:
    """Whether a message is what a mail system writes when it did not deliver another.

    A daemon writes nothing else. Else two of sender, subject and text must say so; the null sender counts
    only with the subject, for automatic replies have it, too (RFC 3834).
    """
    sender = source.header("From")[:500]
    if _DAEMONS.search(sender):
        return True
    subject = bool(_SUBJECTS.search(source.header("Subject")[:500]))
    text = bool(FAILED.search(source.text[:MAX_SAID]))
    null = source.header("Return-Path").strip() == "<>"
    return [from_system(source) or (null and subject), subject, text].count(True) >= 2


def from_system(source: ReportSource) -> bool:
    """Whether the sender calls itself a mail system."""
    return bool(_SYSTEMS.search(source.header("From")[:500]))


def action_of(source: ReportSource) -> str:
    """ "delayed" where the sending server goes on trying, else "failed"."""
    subject = source.header("Subject")[:500]
    if re.search(r"\b(?:delay|warning)", subject, re.IGNORECASE):
        return "delayed"
    return "delayed" if _DELAYED.search(source.text[:MAX_SAID]) else "failed"


def spans(text: str, starts: Sequence[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    """What follows each match, up to the next one."""
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        yield start, text[start.end() : end]


def said_of(said: str, recipient: str, addresses: tuple[Address, ...], action: str) -> RecipientStatus:
    """A recipient, and what is made of what is said of it."""
    said = _CONTROL.sub(" ", _SPACE.sub(" ", said[: 2 * MAX_SAID])).strip()[:MAX_SAID]
    code, enhanced = find_reply(said)
    status = enhanced
    if not code and enhanced:
        code = int(enhanced[0]) * 100
    return RecipientStatus(
        action=action,
        status=status,
        code=code,
        enhanced=enhanced,
        diagnostic=said,
        remote_mta=remote_of(said),
        final_recipient=recipient,
        addresses=addresses,
        failure=classify(said, code=code, enhanced=enhanced),
        permanent=is_permanent(said, action=action, code=code, enhanced=enhanced),
    )


def remote_of(said: str) -> str:
    """The server that refused, if the text names it; else ""."""
    for pattern in _REMOTE:
        found = pattern.search(said)
        if found is not None:
            return found[1].strip("[]").rstrip(".")
    return ""


def near(text: str, addresses: tuple[Address, ...], *, alone: bool) -> str:
    """What a text says of a recipient: from its address on, where a reply or plain words follow; else "".

    `alone`: it is the only one, so a reply anywhere is meant for it.
    """
    lower = text.lower()
    for address in addresses:
        wanted = str(address).lower()
        at = lower.find(wanted)
        for _ in range(MAX_MENTIONS):
            if at < 0:
                break
            said = _paragraph(text[at + len(wanted) : at + len(wanted) + MAX_SAID])
            if says_why(said):
                return said
            at = lower.find(wanted, at + len(wanted))
    if alone and find_reply(text[: 4 * MAX_SAID])[0]:
        return text[: 4 * MAX_SAID]
    return ""


def says_why(said: str) -> bool:
    """Whether there is a server's reply, or plain words of a class."""
    return find_reply(said) != (0, "") or by_words(said) != "unknown"


def _paragraph(text: str) -> str:
    """Up to the next recipient, or an empty line with something before it."""
    end = _PARAGRAPH.search(text)
    return text if end is None else text[: end.start()]


def is_system(address: Address) -> bool:
    """Whether it is the address of a mail system or its postmaster, or of a help desk: no recipient's."""
    return bool(_SYSTEMS.match(f"{address.localpart}@") or _HELP.match(address.localpart))
