"""SPF records and their macros (RFC 7208): text in, terms out. No look-ups."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias, cast
from urllib.parse import quote

MAX_RECORD = 4096  # octets; RFC 7208, 3.4 has 450 in mind
MAX_NAME = 253

Qualifier = Literal["+", "-", "~", "?"]
Mechanism = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]
IpAddress: TypeAlias = IPv4Address | IPv6Address

_VERSION = re.compile(rb"v=spf1(?: |\Z)", re.IGNORECASE)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)")
_DIRECTIVE = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9]*)(?::([^ ]*?))?(?:/([0-9]+))?(?:(//)([0-9]+))?")
_MACRO = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\}|([%_-]))")
_LITERAL = re.compile(r"[!-$&-~]*")
_TOP_LABEL = re.compile(r"\.(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?\Z")
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
_LETTERS = "slodiphv"  # and in explanations also c, r, t
_EXPLAINING = "crt"
_ONLY_NETWORK: Mapping[str, int] = {"ip4": 32, "ip6": 128}


class SpfSyntaxError(ValueError):
    """The record is wrong; the message says where. check_host() answers permerror for it (RFC 7208, 4.6)."""


@dataclass(frozen=True, slots=True)
class Macro:
    """%{letter digits r delimiters}; a capital letter wants its value escaped for a URL."""

    letter: str
    parts: int  # 0: all
    reverse: bool
    delimiters: str
    escaped: bool


# A text with macros: literal pieces and macros in turn.
MacroText: TypeAlias = tuple[str | Macro, ...]


@dataclass(frozen=True, slots=True)
class Directive:
    """A mechanism with its qualifier. `domain` is empty where the record names none."""

    text: str  # as it is written
    qualifier: Qualifier
    mechanism: Mechanism
    domain: MacroText = ()
    network: IPv4Network | IPv6Network | None = None  # of ip4 and ip6
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class SpfRecord:
    directives: tuple[Directive, ...]
    redirect: MacroText | None = None
    explanation: MacroText | None = None  # exp=


def is_spf(record: bytes) -> bool:
    """Whether a TXT record is one of SPF, right or wrong (RFC 7208, 4.5)."""
    return _VERSION.match(record) is not None


@lru_cache(maxsize=1024)
def parse_spf(record: bytes) -> SpfRecord:
    """Reads a record for which `is_spf` holds. Raises SpfSyntaxError."""
    if len(record) > MAX_RECORD:
        raise SpfSyntaxError(f"the record is longer than {MAX_RECORD} octets")
    if not record.isascii():
        raise SpfSyntaxError("the record is not ASCII")
    directives: list[Directive] = []
    modifiers: dict[str, MacroText] = {}
    for term in record.decode("ascii").split(" ")[1:]:
        if not term:
            continue
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(_directive(term))
            continue
        name = modifier[1].lower()
        if name not in ("redirect", "exp"):
            parse_macros(modifier[2], explaining=True)  # unknown ones are ignored, if they are well-formed
        elif name in modifiers:
            raise SpfSyntaxError(f"{name}= is there twice")
        else:
            modifiers[name] = _domain_spec(modifier[2], term)
    return SpfRecord(tuple(directives), modifiers.get("redirect"), modifiers.get("exp"))


def _directive(term: str) -> Directive:
    found = _DIRECTIVE.fullmatch(term)
    if found is None:
        raise SpfSyntaxError(f"{term!a} is no term")
    qualifier = cast(Qualifier, found[1] or "+")
    name, argument, first, slashes, second = found[2].lower(), found[3], found[4], found[5], found[6]
    if name in _ONLY_NETWORK:
        return _network_directive(term, qualifier, cast(Mechanism, name))
    if name not in ("all", "include", "a", "mx", "ptr", "exists"):
        raise SpfSyntaxError(f"{term!a}: there is no such mechanism")
    mechanism = cast(Mechanism, name)
    if argument == "" or (name == "all" and argument is not None):
        raise SpfSyntaxError(f"{term!a}: nothing may stand there behind the colon")
    if name in ("include", "exists") and argument is None:
        raise SpfSyntaxError(f"{term!a}: a domain is missing")
    if name not in ("a", "mx") and (first or slashes):
        raise SpfSyntaxError(f"{term!a}: no prefix length belongs there")
    return Directive(
        text=term,
        qualifier=qualifier,
        mechanism=mechanism,
        domain=_domain_spec(argument, term) if argument else (),
        prefix4=_prefix(first, 32, term),
        prefix6=_prefix(second, 128, term),
    )


def _network_directive(term: str, qualifier: Qualifier, mechanism: Mechanism) -> Directive:
    """ip4 and ip6: an address, and perhaps a prefix length."""
    longest = _ONLY_NETWORK[mechanism]
    address, slash, length = term.partition(":")[2].partition("/")
    if slash and not length:
        raise SpfSyntaxError(f"{term!a}: the prefix length is missing")
    prefix = _prefix(length, longest, term)
    try:
        network: IPv4Network | IPv6Network
        if mechanism == "ip4":
            network = IPv4Network((IPv4Address(address), prefix), strict=False)
        else:
            network = IPv6Network((IPv6Address(address.partition("%")[0]), prefix), strict=False)
            if "%" in address:
                raise ValueError
    except ValueError:
        raise SpfSyntaxError(f"{term!a}: that is no {mechanism} address") from None
    return Directive(text=term, qualifier=qualifier, mechanism=mechanism, network=network)


def _prefix(digits: str | None, longest: int, term: str) -> int:
    if not digits:
        return longest
    if len(digits) > 3 or not digits.isascii() or not digits.isdigit() or int(digits) > longest:
        raise SpfSyntaxError(f"{term!a}: the prefix length is no number to {longest}")
    if digits[0] == "0" and digits != "0":
        raise SpfSyntaxError(f"{term!a}: the prefix length begins with 0")
    return int(digits)


def _domain_spec(text: str, term: str) -> MacroText:
    """A domain-spec (RFC 7208, 7.1): it ends in a macro, or in a dot and a label that can be the last."""
    pieces = parse_macros(text)
    ends_in_macro = pieces and (isinstance(pieces[-1], Macro) or pieces[-1] in _ESCAPES.values())
    if not ends_in_macro and not _TOP_LABEL.search(text):
        raise SpfSyntaxError(f"{term!a}: that is no domain")
    return pieces


def parse_macros(text: str, *, explaining: bool = False) -> MacroText:
    """A macro-string (RFC 7208, 7.1). `explaining`: with spaces, and the macros that only explanations have.
    Raises SpfSyntaxError."""
    letters = _LETTERS + _EXPLAINING if explaining else _LETTERS
    pieces: list[str | Macro] = []
    at = 0
    while at < len(text):
        if text[at] == "%":
            found = _MACRO.match(text, at)
            if found is None:
                raise SpfSyntaxError(f"{text[:200]!a}: a % that begins no macro")
            pieces.append(_ESCAPES[found[5]] if found[5] else _macro(found, letters))
            at = found.end()
            continue
        end = text.find("%", at)
        literal = text[at : end if end >= 0 else len(text)]
        if not _LITERAL.fullmatch(literal.replace(" ", "") if explaining else literal):
            raise SpfSyntaxError(f"{text[:200]!a}: a character that cannot stand there")
        pieces.append(literal)
        at += len(literal)
    return tuple(pieces)


def _macro(found: re.Match[str], letters: str) -> Macro:
    letter, digits = found[1], found[2]
    if letter.lower() not in letters:
        raise SpfSyntaxError(f"{found[0]}: there is no such macro here")
    if digits and not digits.strip("0"):
        raise SpfSyntaxError(f"{found[0]}: none of its parts is wanted")
    return Macro(
        letter=letter.lower(),
        parts=min(int(digits[:9]), 128) if digits else 0,
        reverse=bool(found[3]),
        delimiters=found[4] or ".",
        escaped=letter.isupper(),
    )


def expand(pieces: MacroText, value: Callable[[str], str]) -> str:
    """The text with its macros replaced; `value` answers what a letter stands for."""
    return "".join(piece if isinstance(piece, str) else _expanded(piece, value) for piece in pieces)


def expand_domain(pieces: MacroText, value: Callable[[str], str]) -> str:
    """The same for a domain-spec; labels on the left are left out until it has at most 253 characters."""
    name = expand(pieces, value).removesuffix(".")
    while len(name) > MAX_NAME and "." in name:
        name = name.partition(".")[2]
    return name


def _expanded(macro: Macro, value: Callable[[str], str]) -> str:
    text = value(macro.letter)
    if macro.parts or macro.reverse or macro.delimiters != ".":
        parts: Sequence[str] = re.split(f"[{re.escape(macro.delimiters)}]", text)
        if macro.reverse:
            parts = parts[::-1]
        text = ".".join(parts[-macro.parts :] if macro.parts else parts)
    return quote(text, safe="-._~") if macro.escaped else text


def uses(pieces: MacroText, letter: str) -> bool:
    return any(isinstance(piece, Macro) and piece.letter == letter for piece in pieces)
