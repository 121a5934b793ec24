"""What a submitter wants to hear of a message (RFC 3461), and how it is written into MAIL and RCPT."""

import re
from dataclasses import dataclass

MAX_ORCPT = 500  # characters of the address, RFC 3461 section 4.2
_NOT_XTEXT = re.compile(r"[^!-*,-<>-~]")  # RFC 3461 section 4
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 section 3: what stands for itself
_ESCAPED = re.compile(r"\\x\{[0-9A-Fa-f]{1,6}\}")


@dataclass(frozen=True, slots=True)
class DsnWish:
    """What is asked for one recipient: see `commands.Rcpt`."""

    notify: tuple[str, ...] = ()
    orcpt: str = ""

    def parameters(self) -> str:
        """Of RCPT, with a space before each."""
        text = f" NOTIFY={','.join(self.notify)}" if self.notify else ""
        kind, _, address = self.orcpt.partition(";")
        encoded = utf8_address(address) if kind.lower() == "utf-8" else xtext(address)
        if 1 <= len(encoded) <= MAX_ORCPT:  # a longer one would have the recipient refused
            text += f" ORCPT={xtext(kind)};{encoded}"
        return text


def xtext(text: str) -> str:
    """Encoded; characters that are not ASCII, which it does not have, become question marks."""
    return _NOT_XTEXT.sub(lambda match: f"+{ord(match[0]):02X}" if match[0].isascii() else "?", text)


def utf8_address(address: str) -> str:
    """In the form that needs no SMTPUTF8 (RFC 6533, 3); what is in that form already stays."""
    pieces, start = [], 0
    for match in _ESCAPED.finditer(address):
        pieces += [_escaped(address[start : match.start()]), match[0]]
        start = match.end()
    return "".join((*pieces, _escaped(address[start:])))


def _escaped(text: str) -> str:
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)
