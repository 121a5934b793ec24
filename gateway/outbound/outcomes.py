"""What a transport answered, made fit to be stored: a plugin's dataclass may hold anything, of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from gateway.model import Outcome, Result
from gateway.net.hosts import MAX_NAMES
from gateway.net.tls_results import TlsResult

# Characters that are kept. The smtp transport's own are far below.
MAX_TEXT = {
    "enhanced": 20,
    "error": 2000,
    "remote_mta": 255,
    "remote_ip": 64,
    "tls": 255,
    "transcript": 65536,
}
MAX_DIALED_HOSTS = MAX_NAMES  # of a message
MAX_DIALED = 20  # addresses of a host: the latest
MAX_TLS_RESULTS = 100  # of an attempt
MAX_TLS_TEXT = 500  # characters
MAX_TLS_STRINGS = 50  # of a policy
_tls_texts = attrgetter(*(field.name for field in fields(TlsResult) if field.name not in ("policy", "mx")))


def checked(answer: object, count: int) -> list[Outcome] | None:
    """The outcomes of `count` messages, their texts cut; None if `answer` is not that."""
    if not isinstance(answer, (list, tuple)) or len(answer) != count:
        return None
    return [fit(outcome) for outcome in answer] if all(map(_is_outcome, answer)) else None


def failure(transport: str, reason: str) -> Outcome:
    """For a transport that did not do what it has to."""
    return fit(Outcome.temporary(f"transport {transport!r} {reason}"))


def _is_outcome(value: object) -> bool:
    return (
        isinstance(value, Outcome)
        and isinstance(value.result, Result)
        and type(value.code) is int
        and 0 <= value.code <= 999
        and all(isinstance(getattr(value, name), str) for name in MAX_TEXT)
        and isinstance(value.unknown, bool)
        and isinstance(value.counts, bool)
        and _is_dialed(value.dialed)
        and isinstance(value.tls_results, tuple)
        and all(map(_is_tls_result, value.tls_results))
    )


def _is_dialed(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(host, str) and _are_texts(addresses) for host, addresses in value.items()
    )


def _is_tls_result(value: object) -> bool:
    if not isinstance(value, TlsResult):
        return False
    values: list[object] = [getattr(value, field.name) for field in fields(value)]
    return all(isinstance(one, str) or _are_texts(one) for one in values)


def _are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def fit(outcome: Outcome) -> Outcome:
    """With its texts cut to what is kept."""
    texts: dict[str, Any] = {
        name: _text(text[:maximum])
        for name, maximum in MAX_TEXT.items()
        if not _fits(text := getattr(outcome, name), maximum)
    }
    if not _fits_dialed(outcome.dialed):
        texts["dialed"] = add_dialed({}, outcome.dialed)
    if len(outcome.tls_results) > MAX_TLS_RESULTS or not all(map(_fits_tls_result, outcome.tls_results)):
        texts["tls_results"] = tuple(map(_fit_tls_result, outcome.tls_results[:MAX_TLS_RESULTS]))
    return replace(outcome, **texts) if texts else outcome


def _fits(text: str, maximum: int) -> bool:
    """Whether it is clear that it can be kept as it is: nearly always."""
    return len(text) <= maximum and text.isascii() and "\0" not in text


def _fits_dialed(dialed: Mapping[str, Sequence[str]]) -> bool:
    return len(dialed) <= MAX_DIALED_HOSTS and all(
        _fits(host, MAX_TEXT["remote_mta"])
        and len(addresses) <= MAX_DIALED
        and all(_fits(address, MAX_TEXT["remote_ip"]) for address in addresses)
        for host, addresses in dialed.items()
    )


def _fits_tls_result(result: TlsResult) -> bool:
    """As `_fits`; one with a policy is looked at in whole, as there are few."""
    return (
        not result.policy and not result.mx and all(_fits(text, MAX_TLS_TEXT) for text in _tls_texts(result))
    )


def add_dialed(
    earlier: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The addresses tried so far, by host: the hosts of the latest attempts, and of each the latest ones."""
    together = {host: list(addresses) for host, addresses in earlier.items() if host not in now}
    for host, addresses in now.items():
        fit = [_text(address[: MAX_TEXT["remote_ip"]]) for address in addresses]
        together[_text(host[: MAX_TEXT["remote_mta"]])] = [*earlier.get(host, ()), *fit][-MAX_DIALED:]
    return dict(list(together.items())[-MAX_DIALED_HOSTS:])


def _fit_tls_result(result: TlsResult) -> TlsResult:
    fit: dict[str, Any] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, str):
            fit[field.name] = _text(value[:MAX_TLS_TEXT])
        else:
            fit[field.name] = tuple(_text(one[:MAX_TLS_TEXT]) for one in value[:MAX_TLS_STRINGS])
    return TlsResult(**fit)


def _text(text: str) -> str:
    """Without what no database takes: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
