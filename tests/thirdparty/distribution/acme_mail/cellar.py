"""Content store: large messages in a directory of Acme's, compressed."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import trio
from pydantic import BaseModel, ConfigDict

from gateway import ConfigPath, ContentReader, ContentStore, NewContent, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: ConfigPath


class Cellar:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def put(self, name: str, content: NewContent) -> None:
        data = await content.read()
        await trio.to_thread.run_sync(self._write, name, data)

    async def open(self, name: str) -> ContentReader:
        packed = await trio.Path(self._directory / name).read_bytes()
        return Bottle(await trio.to_thread.run_sync(zlib.decompress, packed))

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            await trio.Path(self._directory / name).unlink(missing_ok=True)

    async def names(self, before: datetime) -> AsyncIterator[str]:
        directory = trio.Path(self._directory)
        await directory.mkdir(exist_ok=True)
        for path in await directory.iterdir():
            try:
                changed = (await path.stat()).st_mtime
            except FileNotFoundError:  # renamed or deleted meanwhile
                continue
            if changed < before.timestamp():
                yield path.name

    def _write(self, name: str, data: bytes) -> None:
        self._directory.mkdir(exist_ok=True)
        new = self._directory / f"{name}.new"
        with new.open("wb") as file:
            file.write(zlib.compress(data, 1))
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._directory / name)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Bottle:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, start: int, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data[start : start + count]


@hookimpl
def content_store(settings: Settings) -> Mapping[str, ContentStore]:
    return {"cellar": Cellar(settings.directory)}
