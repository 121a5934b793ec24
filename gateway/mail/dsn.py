"""Reading delivery status notifications (RFC 3464; RFC 6533 for the global types). Never raises; bounded.

What other servers write differs in many ways from the RFC: fields without their type, statuses with
comments, addresses in angle brackets, text around the SMTP reply. What can be understood is. Where in a
message the fields are is for those who call (gateway_reports).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from gateway.mail.address import Address, AddressError
from gateway.mail.bounce_class import FailureClass, classify, is_permanent
from gateway.mail.headers import Headers, read_headers

MAX_RECIPIENTS = 1_000  # blocks of one notification; as many as a message of ours can have
MAX_TEXT = 2_000  # characters of a diagnostic
MAX_GROUP = 32_000  # octets of one group of fields
MAX_REPLIES = 50  # in a text
MAX_VALUE = 1_000  # characters of any other value

_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\d)")
_REPLY = re.compile(rf"([2-5]\d\d)(?!\d)(?:[ -]+#?({_STATUS.pattern}))?")
# The same within a text: not a part of a number, an address or a version.
_BEFORE, _AFTER = r"(?:^|(?<=[\s:;,<>(\[\"'#]))", r"(?=[\s:;,.)\"'\]<-]|$)"
_REPLY_WITHIN = re.compile(
    rf"{_BEFORE}((?:4[2-7]|5[0-7])\d)(?=[\s:;,.)\"'\]<-]|$)[: -]*+(?:\1[: -]*+)?#?({_STATUS.pattern})?"
)
_STATUS_WITHIN = re.compile(rf"{_BEFORE}({_STATUS.pattern}){_AFTER}")
_RECIPIENT = ("Final-Recipient", "Original-Recipient", "Action", "Status")
FAILURES = ("failed", "delayed")  # the actions that have a class
_EMPTY_LINES = re.compile(rb"\n(?:[ \t]*+\n)++")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")  # RFC 3461, 4
_UNITEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")  # RFC 6533, 3: utf-8-addr-xtext
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientStatus:
    """What a notification says of one recipient. "" is what it does not say."""

    action: str  # lower case: "failed", "delayed", "delivered", "relayed", "expanded", or anything else
    status: str = ""  # RFC 3463, "5.1.1"
    code: int = 0  # SMTP reply code of Diagnostic-Code; else 100 times the class of the status; else 0
    enhanced: str = ""  # of Diagnostic-Code, else the status
    diagnostic: str = ""  # for people: Diagnostic-Code without its type
    remote_mta: str = ""
    final_recipient: str = ""  # an address, as it is written, without its type
    original_recipient: str = ""
    # Whom this may be about: what can be read as an address in both, also with RFC 3461's encoding undone.
    addresses: tuple[Address, ...] = ()
    failure: FailureClass = ""  # why; "" where the action is none of "failed" and "delayed"
    permanent: bool = False  # a failure of class 5: to try again would change nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatus:
    """A delivery status notification, or another bounce that says as much. "" is what it does not say."""

    reporting_mta: str
    envelope_id: str  # Original-Envelope-Id, as it is written
    message_id: str  # of the message that came back, with its angle brackets
    recipients: tuple[RecipientStatus, ...]


def decode_xtext(text: str) -> str:
    """RFC 3461, 4: "+2B" is "+". What is no xtext stays as it is."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


# --- The parts ------------------------------------------------------------------------------------


def read_groups(data: bytes) -> tuple[Headers, Iterator[Headers]]:
    """The groups of fields of a delivery-status part: the one about the message, and one for each recipient.

    At most 1,000 of these, each read when it is asked for.
    """
    groups = _EMPTY_LINES.split(data.replace(b"\r\n", b"\n").strip(b"\n"), MAX_RECIPIENTS + 1)
    found = (read_headers(group[:MAX_GROUP] + b"\n\n")[0] for group in groups[: MAX_RECIPIENTS + 1])
    blocks: Iterator[Headers] = (headers for headers in found if headers.fields)
    first = next(blocks, Headers(()))
    if any(
        name in first for name in _RECIPIENT
    ):  # the empty line after the message's own fields was left out
        blocks = chain((first,), blocks)
    named = (block for block in blocks if any(name in block for name in _RECIPIENT))
    return first, islice(named, MAX_RECIPIENTS)


def about_message(
    fields: Headers, *, message_id: str, recipients: tuple[RecipientStatus, ...]
) -> DeliveryStatus:
    """A notification: what its first group says of the message, and the rest."""
    return DeliveryStatus(
        reporting_mta=_typed(fields, "Reporting-MTA"),
        envelope_id=_value(fields, "Original-Envelope-Id"),
        message_id=message_id,
        recipients=recipients,
    )


def recipient_status(block: Headers, said: str = "", *, worded: bool = True) -> RecipientStatus:
    """What a group of fields says of a recipient.

    `said`: what the text says of this recipient, for a group without a server's reply. `worded`: the class is
    found by the words as well as by the codes.
    """
    kind, diagnostic = _split_type(_value(block, "Diagnostic-Code", MAX_TEXT))
    found = _STATUS.match(_value(block, "Status"))
    status = found[0] if found else ""
    reply = _REPLY.match(diagnostic) if kind in ("smtp", "") else None
    code, enhanced = (int(reply[1]), reply[2] or "") if reply is not None else (0, "")
    if reply is None and kind != "x-unix":  # of these, a number is a program's exit status
        code, enhanced = find_reply(diagnostic)
    if not code and said:
        code, enhanced = find_reply(said)
        diagnostic = said[:MAX_TEXT] if code and not diagnostic else diagnostic
    if code and not enhanced and status[:1] == str(code)[0]:
        enhanced = status
    if not code:
        code, enhanced = (int(status[0]) * 100, status) if status else (0, "")
    original, final = _address(block, "Original-Recipient"), _address(block, "Final-Recipient")
    action = _action(block, status)
    words = (diagnostic or said) if worded else ""
    return RecipientStatus(
        final_recipient=final,
        original_recipient=original,
        action=action,
        status=status,
        code=code,
        enhanced=enhanced,
        diagnostic=diagnostic,
        remote_mta=_typed(block, "Remote-MTA"),
        addresses=readable_addresses(original, final),
        failure=classify(words, code=code, enhanced=enhanced or status) if action in FAILURES else "",
        permanent=is_permanent(words, action=action, code=code, enhanced=enhanced),
    )


def _action(block: Headers, status: str) -> str:
    action = _value(block, "Action").partition("(")[0].strip().lower()
    if not action and "Action" not in block and status[:1] == "5":  # the field was lost or misspelled
        return "failed"
    return action


def find_reply(text: str) -> tuple[int, str]:
    """An SMTP reply code and an enhanced status in a text; 0 and "" for what is not there.

    Of several replies the first that has an enhanced status is taken, else the first.
    """
    first = 0
    for match in islice(_REPLY_WITHIN.finditer(text), MAX_REPLIES):
        if match[2]:
            return int(match[1]), match[2]
        first = first or int(match[1])
    status = _STATUS_WITHIN.search(text)
    enhanced = status[1] if status is not None and (not first or status[1][0] == str(first)[0]) else ""
    return first, enhanced


# --- Values ---------------------------------------------------------------------------------------


def _value(block: Headers, name: str, maximum: int = MAX_VALUE) -> str:
    return _CONTROL.sub(" ", block.get(name)[:maximum]).strip()


def _split_type(value: str) -> tuple[str, str]:
    """RFC 3464, 2.1.2: "rfc822; a@example.org". Without a type, all is value."""
    kind, semicolon, rest = value.partition(";")
    kind = kind.strip().lower()
    if not semicolon or not kind.replace("-", "").isalnum():
        return "", value
    return kind, rest.strip()


def _typed(block: Headers, name: str) -> str:
    return _split_type(_value(block, name))[1]


def _address(block: Headers, name: str) -> str:
    return _typed(block, name).removeprefix("<").removesuffix(">").strip()


def readable_addresses(*texts: str) -> tuple[Address, ...]:
    found: dict[Address, None] = {}
    for text in dict.fromkeys(form for t in texts for form in (t, decode_xtext(t), _decode_unitext(t))):
        try:
            found[Address.parse(text)] = None
        except AddressError:
            continue
    return tuple(found)


def _decode_unitext(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        number = int(match[1], 16)
        return chr(number) if number < 0x110000 else match[0]

    return _UNITEXT.sub(char, text)
