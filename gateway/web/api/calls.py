"""What passes between the dispatcher and a method."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.web.api.services import Login, Services

FilePart = Literal["alternativefile", "inlinefile", "attachedfile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """A file that came in a part of a multipart request, as its part headers describe it."""

    part: FilePart
    index: int  # among the parts of this name, from 0
    name: str
    content_type: str
    content_id: str
    data: bytes | bytearray

    @property
    def path(self) -> str:
        return f"{self.part}[{self.index}]"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An Idempotency-Key, and the digest of the call that came with it."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a method: who calls, and what came beside the request object."""

    login: Login
    services: Services
    files: tuple[UploadedFile, ...] = ()
    size: int = 0  # bytes of the request object and the files
    idempotency_key: IdempotencyKey | None = None  # for methods that keep their answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that is no JSON."""

    content_type: str
    size: int  # bytes that `chunks` will give
    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
