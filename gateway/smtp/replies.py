"""SMTP replies: a code, an enhanced status code and lines of text (RFC 5321 section 4.2, RFC 2034).

What we send is made harmless (printable ASCII, lines of at most 512 octets), whatever text it is given. What
we receive is bounded, and tolerated as far as its code can be read: any text is decoded, without surrogates
and without control characters. No code has a special meaning here, 421 included.
"""

import re
from dataclasses import dataclass

from gateway.smtp.lines import LineReader, LineTooLongError

MAX_REPLY_LINE = 512  # octets with CRLF that we send (RFC 5321 section 4.5.3.1.5)
MAX_RECEIVED_LINE = 2048  # octets with CRLF that we accept; some servers write more than they may
MAX_REPLY_LINES = 128  # lines of one reply; the longest EHLO answers seen have about 30

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")  # RFC 3463 section 2
_ENHANCED_PREFIX = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)")
_RECEIVED = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ReplyError(ValueError):
    """What was received is not an SMTP reply, or over the bounds. The text says which."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply.

    `code` is 200 to 599; `enhanced` is like "5.1.1", of the same class as the code, or None; `lines` are
    the texts without codes. Raises ValueError when the codes are not possible.
    """

    code: int
    enhanced: str | None
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"SMTP code {self.code} is not in 200 to 599")
        if self.enhanced is not None:
            match = _ENHANCED.fullmatch(self.enhanced)
            if match is None or int(match[1]) != self.code // 100:
                raise ValueError(f"enhanced status code {self.enhanced!r} does not go with {self.code}")

    @property
    def text(self) -> str:
        """The lines as one, without the codes."""
        return " ".join(line for line in self.lines if line)

    @property
    def positive(self) -> bool:
        """The command was carried out (2xx)."""
        return self.code < 300

    @property
    def permanent(self) -> bool:
        """The command was refused, and would be again (5xx)."""
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    def render(self) -> bytes:
        """The reply as octets to send. Text that may not be sent is replaced or cut."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines = self.lines[:MAX_REPLY_LINES] or ("",)
        last = len(lines) - 1
        rendered = []
        for number, line in enumerate(lines):
            text = f"{self.code}{' ' if number == last else '-'}{prefix}{line}"
            if not (text.isascii() and text.isprintable()):
                text = _CONTROL.sub(" ", text).encode("ascii", "replace").decode("ascii")
            rendered.append(text[: MAX_REPLY_LINE - 2])
        rendered.append("")
        return "\r\n".join(rendered).encode("ascii")


class ReplyParser:
    """Turns received bytes into replies. Lines may end in CRLF or, tolerated, in LF."""

    def __init__(self) -> None:
        self._reader = LineReader(MAX_RECEIVED_LINE)
        self._lines: list[str] = []

    def feed(self, data: bytes) -> None:
        self._reader.feed(data)

    @property
    def empty(self) -> bool:
        """Nothing is left over, not even a part of a reply."""
        return not self._lines and not len(self._reader)

    def next_reply(self) -> Reply | None:
        """The next complete reply, or None. After a ReplyError the stream is of no more use."""
        while True:
            try:
                line = self._reader.next_line()
            except LineTooLongError:
                raise ReplyError(f"reply line is longer than {MAX_RECEIVED_LINE} octets") from None
            if line is None:
                return None
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
            match = _RECEIVED.fullmatch(line)
            if match is None:
                raise ReplyError(f"not an SMTP reply: {_printable(line[:80])!r}")
            self._lines.append(_printable(match[3] or b""))
            if match[2] != b"-":
                lines, self._lines = self._lines, []
                return _reply(int(match[1]), lines)
            if len(self._lines) >= MAX_REPLY_LINES:
                raise ReplyError(f"reply has more than {MAX_REPLY_LINES} lines")


def _printable(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return text if text.isprintable() else _CONTROL.sub("\ufffd", text.replace("\t", " "))


def _reply(code: int, lines: list[str]) -> Reply:
    """A received reply; where its lines differ in code, the last line's counts, as in most clients."""
    match = _ENHANCED_PREFIX.match(lines[0])
    if match is None or int(match[1][0]) != code // 100:
        return Reply(code, None, tuple(lines))
    enhanced = match[1]
    # The enhanced code stands on every line; a line without it is left as it is.
    texts = [
        line[len(enhanced) :].lstrip(" ") if f"{line} ".startswith(f"{enhanced} ") else line for line in lines
    ]
    return Reply(code, enhanced, tuple(texts))
