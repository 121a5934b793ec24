"""Keeps large messages in a bucket of S3, or of a service with the same API.

Each message is an object. Requests are made by httpx, and signed by botocore (AWS Signature Version 4), the
SHA-256 of what is stored included: the service takes what it got whole, or nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import httpx
import trio
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import BaseModel, ConfigDict, Field

from gateway import ContentReader, ContentStore, NewContent, hookimpl

READ_AHEAD = 1 << 20  # bytes that are fetched at a time, since they are mostly asked for in order
MAX_PAGE = 1 << 22  # bytes of a list of 1,000 objects
MAX_PROBLEM = 500  # bytes of what the service says of a failure
DELETES = 8  # requests at a time
EMPTY = hashlib.sha256(b"").hexdigest()

_NAME = re.compile(r"[0-9a-f]{32}")


class S3Settings(BaseModel):
    """[plugin."example.s3_content"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#@]+$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]+/)*$")] = ""  # of the objects' names: "mail/"
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    access_key: Annotated[str, Field(min_length=1)]
    secret_key: Annotated[str, Field(min_length=1)] = Field(repr=False)


class S3Error(Exception):
    """The service did not do what it was asked. The gateway takes it for "not now"."""


class S3Content:
    Settings = S3Settings

    def __init__(self) -> None:
        self._store: S3Store | None = None

    @hookimpl
    def content_store(self, settings: S3Settings) -> Mapping[str, ContentStore]:
        self._store = S3Store(settings)
        return {"s3": self._store}

    @hookimpl
    async def stop(self) -> None:
        if self._store is not None:
            await self._store.aclose()


class S3Store:
    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = f"{settings.endpoint}/{settings.bucket}"
        self._auth = Signer(settings)

    async def put(self, name: str, content: NewContent) -> None:
        digest = hashlib.sha256()
        async for chunk in content.chunks():
            digest.update(chunk)
        await self._ask(
            "PUT",
            self._object(name),
            body=content.chunks(),
            headers={"Content-Length": str(content.size), "Content-Type": "message/rfc822"},
            digest=digest.hexdigest(),
        )

    async def open(self, name: str) -> ContentReader:
        return S3Reader(self, name)

    async def read(self, name: str, start: int, count: int) -> bytes:
        """So many bytes of an object from there on; fewer only where it ends."""
        ranged = {"Range": f"bytes={start}-{start + count - 1}"}
        status, data = await self._ask("GET", self._object(name), headers=ranged, good=(206, 416), most=count)
        return data if status == 206 else b""  # 416: there is nothing as far as that

    async def delete(self, names: Sequence[str]) -> None:
        # One request for each: not every service has the request for many.
        turns = trio.CapacityLimiter(DELETES)

        async def one(name: str) -> None:
            async with turns:
                await self._ask("DELETE", self._object(name), good=(200, 204, 404))

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)

    async def names(self, before: datetime) -> AsyncIterator[str]:
        token = ""
        while True:
            query = {"list-type": "2", "prefix": self._settings.prefix}
            if token:
                query["continuation-token"] = token
            url = f"{self._bucket}?{urlencode(sorted(query.items()), quote_via=quote, safe='')}"
            _, page = await self._ask("GET", url, most=MAX_PAGE)
            found, token = listed(page, self._settings.prefix, before)
            for name in found:
                yield name
            if not token:
                return

    async def aclose(self) -> None:
        await self._client.aclose()

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """One, whose connections are kept. The gateway has a time limit for each call."""
        return httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113

    def _object(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise S3Error(f"{name!r} is no name of a content")
        return f"{self._bucket}/{self._settings.prefix}{name}"

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        body: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        digest: str = EMPTY,
        good: tuple[int, ...] = (200,),
        most: int = 0,
    ) -> tuple[int, bytes]:
        """The status and what comes with it, `most` bytes of it. Raises S3Error, httpx.HTTPError."""
        signed = self._auth.sign(method, url, {"Accept-Encoding": "identity", **(headers or {})}, digest)
        request = self._client.build_request(method, url, headers=signed, content=body)
        response = await self._client.send(request, stream=True)
        try:
            worked = response.status_code in good
            got = await _read(response, most if worked else MAX_PROBLEM)
        finally:
            await response.aclose()
        if not worked:
            said = got[:MAX_PROBLEM].decode("ascii", "replace")
            raise S3Error(f"{method} {url} was answered with {response.status_code}: {said!r}")
        if response.status_code in (200, 206) and method == "GET" and len(got) > most:
            raise S3Error(f"{method} {url} was answered with more than {most} bytes")
        return response.status_code, got


@dataclass(slots=True)
class S3Reader:
    """An object that is read. It keeps what was fetched last, and holds no connection."""

    store: S3Store
    name: str
    _start: int = 0
    _kept: bytes = b""

    async def read(self, start: int, count: int) -> bytes:
        behind = start - self._start
        if not (behind >= 0 and behind + count <= len(self._kept)):
            fetched = await self.store.read(self.name, start, max(count, READ_AHEAD))
            self._start, self._kept, behind = start, fetched, 0
        return self._kept[behind : behind + count]


async def _read(response: httpx.Response, most: int) -> bytes:
    """At most that, and a little more by which the caller knows."""
    got = bytearray()
    with trio.CancelScope() as enough:  # cancelled, not left: so all of httpx ends at once
        async for chunk in response.aiter_raw():
            got += chunk
            if len(got) > most:
                enough.cancel()
    return bytes(got)


def listed(page: bytes, prefix: str, before: datetime) -> tuple[list[str], str]:
    """A page of a list of objects: the names of contents put before a time, and where the next page begins.

    Raises S3Error. The token is "" on the last page.
    """
    try:
        root = ElementTree.fromstring(page)  # noqa: S314 - of at most MAX_PAGE bytes; expat bounds what entities make
        names = [
            key.removeprefix(prefix)
            for entry in root.iterfind("{*}Contents")
            if (key := entry.findtext("{*}Key", "")).startswith(prefix)
            and _NAME.fullmatch(key.removeprefix(prefix))
            and datetime.fromisoformat(entry.findtext("{*}LastModified", "")) < before
        ]
    except (ElementTree.ParseError, ValueError, TypeError) as exc:
        raise S3Error(f"a list of objects cannot be read: {exc}") from None
    more = root.findtext("{*}IsTruncated", "false") == "true"
    token = root.findtext("{*}NextContinuationToken", "")
    if more and not token:
        raise S3Error("a list of objects goes on, and does not say where")
    return names, token if more else ""


class Signer(S3SigV4Auth):  # type: ignore[misc]
    """Signs with a digest of the body that is known already: botocore would read the body for it."""

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(Credentials(settings.access_key, settings.secret_key), "s3", settings.region)

    def payload(self, request: Any) -> str:
        return str(request.context["digest"])

    def sign(self, method: str, url: str, headers: Mapping[str, str], digest: str) -> dict[str, str]:
        """All fields of the request's header."""
        request = AWSRequest(method, url, headers=dict(headers))
        request.context["digest"] = digest
        self.add_auth(request)
        return dict(request.headers.items())
