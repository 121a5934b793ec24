"""What both clients do alike, without I/O: requests, answers, errors, and when to try again."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import to_json

from gateway.client.endpoints import A, Endpoint, Q
from gateway.errors import GatewayError
from gateway.web.api.jsontypes import Response

LONGEST_WAIT = 60.0  # seconds between two tries
# Answers that say that nothing was done, or that come of something between us and the gateway.
_NOTHING_DONE = frozenset({429, 503})
_IN_BETWEEN = frozenset({500, 502, 504})


class ClientError(GatewayError):
    """Whatever keeps a call from its answer."""


class ApiError(ClientError):
    """The gateway refused a call; `code` is for programs, `message` for people. See docs/webapi.md."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else f"HTTP status {status}: {message}")
        self.status, self.code, self.message = status, code, message


class NotReached(ClientError):
    """No answer came: there is no connection, or it broke. With an Idempotency-Key, and else maybe not, the
    same call can be made again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call as HTTP has it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    keyed: bool


def prepare(endpoint: Endpoint[Q, A], request: Q, idempotency_key: str) -> Prepared:
    headers = {"Content-Type": "application/json"}
    if endpoint.keyed:
        headers["Idempotency-Key"] = idempotency_key or uuid.uuid4().hex
    # Not as JSON at once: in JSON the models write digests of files, for Idempotency-Keys.
    body = to_json(request.model_dump(mode="python", exclude_defaults=True))
    return Prepared(endpoint.name, headers, body, endpoint.keyed)


def read_answer(endpoint: Endpoint[Q, A], status: int, body: bytes) -> A:
    """Raises ApiError."""
    if status == 200:
        if issubclass(endpoint.answer, Response):
            return endpoint.answer.model_validate(parse_json(body))
        return cast(A, body)
    try:
        refusal = parse_json(body)
        code, message = str(refusal["Code"]), str(refusal["Message"])
    except (ValueError, TypeError, KeyError):  # of something in between
        code, message = "", body[:200].decode("utf-8", "replace")
    raise ApiError(status, code, message)


def parse_json(body: bytes) -> Any:
    """Not pydantic's parser: a message of 100 parts within each other goes deeper than that does.

    Raises ValueError.
    """
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def next_wait(
    prepared: Prepared, tries: int, status: int | None, retry_after: str, *, sent: bool
) -> float | None:
    """Seconds until the next try after `tries`; None if another one would help nothing, or could do harm.

    `status` is None when no answer came; `sent` then says whether the call may have arrived.
    """
    again = (
        (prepared.keyed or not sent)
        if status is None
        else status in _NOTHING_DONE or (prepared.keyed and status in _IN_BETWEEN)
    )
    if not again:
        return None
    wait: float = min(0.5 * 2 ** (tries - 1), LONGEST_WAIT) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    if retry_after.isdigit() and len(retry_after) < 6:
        wait = max(wait, float(retry_after))
    return min(wait, LONGEST_WAIT)
