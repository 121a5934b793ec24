"""Idempotency-Key: a call that comes again is answered as it was the first time, and does nothing.

The answer is kept by the transaction that queues (see `gateway.store.submissions`), so that there are both or
neither, whenever the gateway stops. Within a process, calls with the same key take turns; another process may
be faster, which that transaction finds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import trio

from gateway.errors import KeyUsed
from gateway.web.api.calls import Call, IdempotencyKey, UploadedFile
from gateway.web.api.errors import BadRequest
from gateway.web.api.jsontypes import Request, Response
from gateway.web.api.services import KeptAnswer

# Bytes of a body. More than this takes milliseconds, which a thread has: hashing frees the loop.
DIGEST_HERE = 1024 * 1024

_KEY = re.compile(r"[ -~]{1,255}")

A = TypeVar("A")


def check_key(key: str) -> str:
    """Raises BadRequest."""
    if not _KEY.fullmatch(key):
        raise BadRequest(
            "badIdempotencyKey", "Idempotency-Key: must have 1 to 255 printable ASCII characters"
        )
    return key


@dataclass(slots=True)
class _Turns:
    lock: trio.Lock = field(default_factory=trio.Lock)
    wanted: int = 0  # by calls, the one that has it included


class IdempotencyKeys:
    """The keys of calls under way."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], _Turns] = {}

    async def once(
        self,
        call: Call,
        key: str,
        request: Request,
        answer: type[Response],
        run: Callable[[Call], Awaitable[A]],
    ) -> A | Response:
        """What `run` answers, or what it answered to an earlier call. Raises BadRequest, and as `run`."""
        account = call.login.account
        if call.size > DIGEST_HERE:
            digest = await trio.to_thread.run_sync(digest_of, request, call.files)
        else:
            digest = digest_of(request, call.files)
        async with self._turn(account, key):
            while True:
                kept = await call.services.submitter.kept_answer(account, key)
                if kept is not None:
                    return _again(kept, key, digest, answer)
                try:
                    return await run(replace(call, idempotency_key=IdempotencyKey(key, digest)))
                except KeyUsed:  # by another process
                    continue

    @asynccontextmanager
    async def _turn(self, account: str, key: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault((account, key), _Turns())
        turns.wanted += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[account, key]


def digest_of(request: Request, files: tuple[UploadedFile, ...]) -> bytes:
    """The same for calls that ask for the same, however their bodies put it."""
    parts = [type(request).__name__.encode(), request.__pydantic_serializer__.to_json(request)]
    for file in files:
        described = (file.part, file.name, file.content_type, file.content_id)
        parts += [
            *(text.encode("utf-8", "surrogatepass") for text in described),
            hashlib.sha256(file.data).digest(),
        ]
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8))
        whole.update(part)
    return whole.digest()


def _again(kept: KeptAnswer, key: str, digest: bytes, answer: type[Response]) -> Response:
    if kept.digest != digest:
        raise BadRequest("badIdempotencyKey", f"Idempotency-Key: {key} was used for another request")
    if "Code" in kept.result:  # queued, but not all was well
        raise BadRequest(kept.result["Code"], kept.result["Message"])
    return answer.model_validate(kept.result)
