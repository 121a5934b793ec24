"""Readers of messages' bytes: see gateway.model.Content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import trio

from gateway.hookspecs.additions import ContentReader
from gateway.store.content_stores import CalledStore

PIECE = 64 * 1024  # bytes: what a reader is given at a time
READ_AHEAD = 4 * PIECE  # bytes: read at a time, as the way to a thread and back costs more than reading them


class BytesContent:
    """Bytes in memory."""

    __slots__ = ("_data",)
    file: Path | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def chunks(self) -> AsyncIterator[bytes]:
        return _BytesPieces(self._data)

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data


class StoredContent:
    """Bytes in a content store. Nothing is opened before it is read.

    Error handling: one that is missing or was cut short is StoreUnavailable, never a shorter message.
    """

    __slots__ = ("_file", "_name", "_size", "_store")

    def __init__(self, store: CalledStore, name: str, size: int, file: Path | None = None) -> None:
        self._store, self._name, self._size, self._file = store, name, size, file

    @property
    def size(self) -> int:
        return self._size

    @property
    def file(self) -> Path | None:
        return self._file

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in pieces of at most 64 KiB."""
        return _StoredPieces(self._store, self._name, self._size)

    async def read(self) -> bytes:
        """All of the bytes."""
        reader = await self._store.open(self._name)
        data = await self._store.read(reader, 0, self.size + 1)  # one more than there should be
        if len(data) != self.size:
            raise self._store.damaged(self._name, len(data), self.size)
        return data


class _BytesPieces:
    """Iterates over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __aiter__(self) -> _BytesPieces:
        return self

    async def __anext__(self) -> bytes:
        if 0 < self._at < len(self._data):  # most have one piece, and who has taken it does more than this
            await trio.lowlevel.checkpoint()
        piece = self._data[self._at : self._at + PIECE]
        if not piece:
            raise StopAsyncIteration
        self._at += len(piece)
        return piece


class _StoredPieces:
    """Iterates over what a store has.

    A class instead of an async generator: one that is left early needs no closing in time.
    """

    def __init__(self, store: CalledStore, name: str, size: int) -> None:
        self._store, self._name, self._size = store, name, size
        self._reader: ContentReader | None = None
        self._at = 0
        self._ahead = b""
        self._ahead_at = 0

    def __aiter__(self) -> _StoredPieces:
        return self

    async def __anext__(self) -> bytes:
        if self._ahead_at < len(self._ahead):
            await trio.lowlevel.checkpoint()
        elif self._at < self._size:
            self._ahead, self._ahead_at = await self._read_ahead(), 0
            self._at += len(self._ahead)
        else:
            self._reader = None  # which closes what it holds
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        piece = self._ahead[self._ahead_at : self._ahead_at + PIECE]
        self._ahead_at += len(piece)
        return piece

    async def _read_ahead(self) -> bytes:
        if self._reader is None:
            self._reader = await self._store.open(self._name)
        left = self._size - self._at
        # At the end one byte more than there should be.
        count = left + 1 if left <= READ_AHEAD else READ_AHEAD
        data = await self._store.read(self._reader, self._at, count)
        if len(data) != min(left, READ_AHEAD):
            raise self._store.damaged(self._name, self._at + len(data), self._size)
        return data
