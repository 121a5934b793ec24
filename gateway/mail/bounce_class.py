"""Why a message came back: one of a few classes, by the codes and the words of a report. Pure.

Codes say less than they could: servers answer 550 5.0.0 or 5.7.1 for nearly everything. So plain words come
first, then the enhanced status (RFC 3463), then the reply code. The words are those of RFC 5321, RFC 3463 and
servers in wide use; each pattern stands for many wordings, and none for one message.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

FailureClass = Literal[
    "bad-mailbox",  # there is no such mailbox, or it takes no mail any more
    "bad-domain",  # the domain does not exist, or takes no mail
    "full",  # the mailbox is over its quota
    "blocked",  # the sending host: its address, name or reputation
    "content",  # what is in the message: spam, a virus, too large, malformed
    "policy",  # the sender or its authentication; rules of the receiver
    "relaying",  # the server is not responsible for the recipient
    "expired",  # nobody could be reached until the sending server gave up
    "protocol",  # the SMTP dialogue, or a program or system behind it, failed
    "temporary",  # something that may go away: the server said to try again
    "unknown",
    "",  # no failure
]

MAX_TEXT = 1_000  # characters of a text that are looked at

_NEAR: Final = r"[^\n]{0,40}\b"  # in the same sentence, more or less
_NOT: Final = r"(?:do|does|did|is|was|has|have|could|can)(?: ?n[o']?t)"
_WHO: Final = r"\b(?:user|recipient|mailbox|account|address|addressee|alias|local ?part|person|name)"
_ADJECTIVES: Final = r"(?: (?:or|valid|local|virtual|destination|recipient|e?mail|illegal|unknown)){0,3}"

# In the order in which they are tried: what is said plainly before what is said of many things.
_WORDS: Final[tuple[tuple[FailureClass, tuple[str, ...]], ...]] = (
    (
        "full",
        (
            rf"(?:mail\W?box|mail ?folder|inbox|maildir|user|account|recipient)\b{_NEAR}(?:full|exceed\w*)\b",
            rf"(?:mail\W?box|maildir|user|account|recipient)\b{_NEAR}over (?:its |the )?(?:quota|limit)",
            rf"\b(?:over|exceed\w*|out of|insufficient|disk|not enough)\b{_NEAR}(?:quota|storage|space)\b",
            rf"\bquota\b{_NEAR}(?:reached|violation|exceed\w*|full)\b",
            r"mailbox size limit|ShutoffQuotaExceeded|\boverquota\b",
        ),
    ),
    (
        "relaying",
        (
            rf"\brelay(?:ing)?\b{_NEAR}(?:denied|not (?:permitted|allowed)|prohibited|reject\w*)\b",
            r"\b(?:unable|not (?:permitted|allowed|authori[sz]ed)|cannot|refuse\w*|no|not) (?:to )?relay",
            rf"\brelay access|\brcpthosts\b|not a (?:local|relay) (?:domain|host)|{_NOT} relay\b",
        ),
    ),
    ("policy", (r"\b(?:SPF|DKIM|DMARC|Sender ID)\b", r"authenticat(?:ed|ion)")),
    (
        "blocked",
        (
            r"\b(?:black|block|deny)[ -]?list\w*|\b(?:dns)?(?:rbl|bl)\b|spamhaus|spamcop",
            r"\breputation\b|\bbanned\b",
            r"\bclient host\b|\bhost (?:is |was )?(?:reject\w*|blocked|denied)",
            r"\b(?:blocked|refused) (?:by|using)\b",
            rf"\b(?:IP|address)\b{_NEAR}(?:blocked|listed|blacklisted|refused)\b|\binvalid ip\b",
            rf"\bblocked\b{_NEAR}(?:ip|host|network)\b",
            r"\b(?:mismatch\w*|from your) (?:client )?(?:ip|network)\b",
            r"\breverse (?:DNS|lookup|resolution)|\bPTR\b|\brDNS\b|cannot find your hostname",
            r"(?:smtp|mail) server of your (?:isp|provider)|\bgeneric (?:hostname|rdns)|\bdynamic\b",
        ),
    ),
    (
        "content",
        (
            r"\b(?:virus|malware|spam|phish\w*|UBE|UCE|junk)\b|\bunsolicited\b|\bspam(?:my|iness)\b",
            rf"\b(?:message|mail|content|attachment)s?\b{_NEAR}(?:too (?:large|big)|potential)\b",
            rf"\bsize (?:limit|exceed)|exceed\w*{_NEAR}(?:size|maximum)\b",
            r"\b(?:message|line)s? (?:size|limit)",
            rf"\b(?:content|attachment|header|message body)s?\b{_NEAR}(?:reject\w*|blocked|denied|error)\b",
            r"\bline (?:limit|too long|length)",
            rf"\b(?:duplicate|missing|malformed|multiple)\b{_NEAR}(?:header|from)\b",
            r"\bRFC ?(?:5322|2822|822)\b|\bnot (?:RFC )?compliant\b",
        ),
    ),
    (
        "policy",
        (
            rf"\bsender\b{_NEAR}(?:reject\w*|denied|invalid|unknown|refused)\b|\bdomain of sender\b",
            rf"\bFrom\b{_NEAR}invalid\b",
            r"\b(?:permission|not (?:allowed|authori[sz]ed|permitted)) to (?:send|post)\b",
            r"\bpolicy (?:violation|reasons?)|\brestricted (?:address|recipient)",
            r"\bonly accepts? (?:mail|messages)",
        ),
    ),
    (
        "bad-domain",
        (
            rf"\b(?:host|domain)s?(?: name)?\b{_NEAR}(?:not (?:found|known|exist)|unknown|{_NOT} exist)\b",
            r"\b(?:no such|unknown|invalid|nonexistent|bad destination) (?:mail )?(?:host|domain|system)\b",
            r"\b(?:couldn'?t|could not) find any host|\bNXDOMAIN\b|\bnull ?MX\b",
            rf"{_NOT} (?:receive|accept) (?:e?|any )mail",
            r"\bname ?service error|\bhost or domain name\b|\bno mail exchanger",
            r"\ball relevant MX records",
            r"\bunrouteable (?:mail )?address|\bMX\b[^\n]{0,40}\blookup\b|\blookup\b[^\n]{0,40}\bMX\b",
        ),
    ),
    (
        "bad-mailbox",
        (
            rf"{_WHO}s?\b[^\n]{{0,60}}\b(?:unknown|unavailable|invalid|disabled|inactive|suspended|deactivated)\b",
            rf"{_WHO}s?\b[^\n]{{0,60}}\b(?:discontinued|expired|no longer|moved|closed|locked)\b",
            rf"{_WHO}s?\b[^\n]{{0,60}}\bnot (?:found|known|exist|recogni[sz]ed|listed)\b",
            rf"{_WHO}s?\b[^\n]{{0,60}}\bnot (?:valid|available|active|our)\b",
            rf"{_WHO}s?\b[^\n]{{0,60}}\b{_NOT} (?:exist|have)\b",
            rf"\b(?:unknown|no such|no|not such|invalid|bad|illegal){_ADJECTIVES} {_WHO}",
            rf"\b(?:disabled|inactive|nonexistent|undeliverable){_ADJECTIVES} {_WHO}",
            rf"\bRecip(?:ient)?NotFound\b|\bnot listed in\b|{_NOT} have an? [^\n]{{0,80}}\baccount\b",
            r"\bhas (?:moved|left)\b",
        ),
    ),
    (
        "expired",
        (
            rf"\b(?:message|delivery|envelope|mail|queue)\b{_NEAR}expired\b",
            r"\bin (?:the )?queue too long\b",
            rf"\bretry time\w* exceeded|\b{_NOT} (?:be )?delivered (?:for|within|after)\b",
            r"\bfailed \d+ attempts",
            r"\bnot delivered (?:for|within|after)\b",
            rf"\b(?:connection|operation|conversation)\b{_NEAR}timed? ?out\b",
            rf"\bconnect(?:ion)?\b{_NEAR}refused\b|\bnot (?:responding|reachable)\b|\bunreachable\b",
            r"\bno route to\b",
            rf"\b(?:unable|cannot|{_NOT}) (?:able )?(?:to )?(?:accept {_NEAR})?(?:connect|establish)",
            r"\bsocket error\b|\bdelivery time\b",
            r"\bunable to deliver (?:this )?message (?:in|after)\b|\bgiving up after\b",
        ),
    ),
    (
        "temporary",
        (
            r"\btemporar\w+|\btry (?:again )?later\b|\btoo (?:many (?!hops)|much|fast)|\brate limit",
            r"\bdeferred\b",
            r"\bgr[ea]ylist\w*|\bthrottl\w*",
        ),
    ),
    (
        "policy",
        (
            r"\baccess denied\b|\bpolic(?:y|ies)\b",
            r"\bnot (?:allowed|accepted|authori[sz]ed|permitted)\b|\bpermission\b",
            r"\bprohibited\b|\bun(?:authori[sz]ed|authenticated)\b|\badministrative",
        ),
    ),
    (
        "protocol",
        (
            r"\bTLS\b|\b(?:improper|bad) sequence\b|\bsyntax error|\bprotocol error",
            r"\bcommand (?:not|unrecogni[sz]ed)",
            r"\bmail (?:system|server) (?:error|problem)|\binternal (?:system )?error",
            r"\bmailer error|\bpipe to\b",
            r"\bloop\w*\b|\bconfiguration error|\btoo many hops\b",
            r"\bservice (?:currently )?unavailable\b|\bLDAP\b",
            r"\bno such file\b",
        ),
    ),
)
_PATTERNS: Final = tuple((found, re.compile("|".join(words), re.IGNORECASE)) for found, words in _WORDS)

# RFC 3463 and the registry of RFC 5248, without the class. What is not here follows its subject (X.1.*).
_ENHANCED: Final[dict[str, FailureClass]] = {
    "1.2": "bad-domain",
    "1.7": "policy",
    "1.8": "policy",
    "1.10": "bad-domain",
    "2.1": "bad-mailbox",
    "2.2": "full",
    "2.3": "content",
    "2.4": "bad-mailbox",
    "3.1": "full",
    "3.4": "content",
    "4.3": "temporary",
    "4.4": "bad-domain",
    "4.5": "temporary",
    "4.6": "protocol",
    "7.13": "bad-mailbox",
    "7.17": "bad-mailbox",
    "7.25": "blocked",
}
_SUBJECTS: Final[dict[str, FailureClass]] = {
    "1": "bad-mailbox",
    "3": "protocol",
    "4": "expired",
    "5": "protocol",
    "6": "content",
    "7": "policy",
}
# Statuses that say one thing only. Some servers give 5.1.1 for all that they refuse: then their words count,
# if they speak of one of the others.
_PLAIN: Final = frozenset({"1.1", "1.2", "1.3", "1.6", "2.1", "2.2", "3.4"})
_PLAINER: Final = frozenset({"full", "blocked", "relaying", "bad-domain"})
_CODES: Final[dict[int, FailureClass]] = {
    500: "protocol",
    501: "protocol",
    502: "protocol",
    503: "protocol",
    504: "protocol",
    521: "bad-domain",
    525: "bad-mailbox",
    551: "bad-mailbox",
    552: "full",
    553: "bad-mailbox",
    556: "bad-domain",
}

_TEMPORARY: Final = re.compile(
    r"\btemporar\w+|\btry (?:again )?later\b|\bnot found, try again|\bdeferred\b|\bretry time", re.IGNORECASE
)


def classify(text: str, *, code: int = 0, enhanced: str = "") -> FailureClass:
    """The class of a failure.

    `text`: what the report says, of which 1,000 characters are looked at. `code`: the SMTP reply code, 0 for
    none. `enhanced`: "5.1.1", empty for none. Linear in the text's length.
    """
    kind, _, detail = enhanced.partition(".")
    # The server's own words, from its reply on, before what the other server said around them.
    reply = max(text.find(str(code), 0, MAX_TEXT), 0) if code % 100 else 0
    words = by_words(text[reply:])
    if detail in _PLAIN:
        return words if words in _PLAINER else _of_status(detail)
    if words == "unknown" and reply:
        words = by_words(text[:reply])
    if words != "unknown":
        return words
    by_status = _of_status(detail)
    if by_status != "unknown":
        return by_status
    if kind == "4" or code // 100 == 4:
        return "temporary"
    return _CODES.get(code, "unknown")


def by_words(text: str) -> FailureClass:
    """The class by the words alone; "unknown" if they say nothing."""
    return _by_words(text[:MAX_TEXT])


@lru_cache(maxsize=128)  # the recipients of one message often have the same answer
def _by_words(text: str) -> FailureClass:
    return next((found for found, pattern in _PATTERNS if pattern.search(text)), "unknown")


def is_permanent(text: str, *, action: str, code: int = 0, enhanced: str = "") -> bool:
    """Whether a failure is one of class 5 (RFC 3463, 3.1): trying again would change nothing.

    The enhanced status says so, else the reply code; without both a plain word for "temporary", else that the
    sending server gave up (action "failed").
    """
    if action != "failed":
        return False
    for known in (enhanced[:1], str(code)[:1]):
        if known in ("4", "5"):
            return known == "5"
    return not _TEMPORARY.search(text[:MAX_TEXT])


def _of_status(detail: str) -> FailureClass:
    if detail in _ENHANCED:
        return _ENHANCED[detail]
    return _SUBJECTS.get(detail.partition(".")[0], "unknown")
