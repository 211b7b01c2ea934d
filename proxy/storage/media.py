"""Kept files: finished videos and input images, under the data folder.

A file's name is its id, never a user's text: `media/ab/<id>`. It is written to `<id>.part`, synced, renamed, and the
folder synced: a file that has its name is whole.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from proxy.domain.errors import StorageFull
from proxy.storage.folder import sync_folder

P = ParamSpec("P")
T = TypeVar("T")

FOLDER_DIGITS = 2
BLOCK = 1024 * 1024  # bytes of a stream written at a time
RETRY_AFTER = 30.0  # seconds, told to a client while the disk is full


@dataclass(frozen=True, slots=True)
class Kept:
    size: int  # bytes
    sha256: bytes


class MediaStore:
    def __init__(self, root: Path, min_free_bytes: int, reached: Callable[[str], None] = lambda _step: None) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._reached = reached  # told of each step towards a whole file; a crash test stops there

    def path(self, file_id: str) -> Path:
        return self._root / file_id[-FOLDER_DIGITS:] / file_id

    def require_room(self) -> None:
        """Raises `StorageFull` when the disk has less free space than the setting keeps."""
        if shutil.disk_usage(self._root).free < self._min_free_bytes:
            raise StorageFull(RETRY_AFTER)

    async def keep(self, file_id: str, content: bytes) -> Kept:
        """Store `content`, safe against a loss of power. Raises `StorageFull`."""

        async def whole() -> AsyncIterator[bytes]:
            yield content

        return await self.keep_stream(file_id, whole())

    async def keep_stream(self, file_id: str, chunks: AsyncIterator[bytes]) -> Kept:
        """Store what `chunks` yields, safe against a loss of power; nothing of it stays when they fail.

        Raises `StorageFull`, and whatever the iterator raises.
        """
        path = self.path(file_id)
        part = path.with_name(path.name + ".part")
        digest, size, pending = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                pending += chunk
                if len(pending) >= BLOCK:
                    size += len(pending)
                    await _on_disk(_append, part, bytes(pending), digest)
                    pending.clear()
            size += len(pending)
            await _on_disk(self._commit, part, path, bytes(pending), digest)
        finally:
            part.unlink(missing_ok=True)
        return Kept(size, digest.digest())

    async def read(self, file_id: str) -> bytes:
        return await asyncio.to_thread(self.path(file_id).read_bytes)

    async def remove(self, file_id: str) -> None:
        await asyncio.to_thread(self.path(file_id).unlink, missing_ok=True)

    def sweep(self) -> None:
        """Remove what a crash left half-written."""
        for part in self._root.glob("*/*.part"):
            part.unlink(missing_ok=True)

    def _commit(self, part: Path, path: Path, block: bytes, digest: "hashlib._Hash") -> None:
        """Write the last block, and give the file its name once all of it is on the disk."""
        _append(part, block, digest, last=True)
        self._reached("synced")
        part.replace(path)
        self._reached("renamed")
        sync_folder(path.parent)


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work beside the event loop. Raises `StorageFull`."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise StorageFull(RETRY_AFTER) from error


def _append(part: Path, block: bytes, digest: "hashlib._Hash", *, last: bool = False) -> None:
    part.parent.mkdir(mode=0o700, exist_ok=True)
    digest.update(block)
    with part.open("ab") as file:
        file.write(block)
        if last:
            file.flush()
            os.fsync(file.fileno())
