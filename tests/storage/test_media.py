"""Kept files: whole or not at all."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.errors import StorageFull
from proxy.storage.media import MediaStore


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path, min_free_bytes=0)


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_stream_is_kept_with_its_size_and_hash(store: MediaStore) -> None:
    kept = await store.keep_stream("file_ab", pieces(b"one", b"two"))
    assert (kept.size, kept.sha256) == (6, hashlib.sha256(b"onetwo").digest())
    assert await store.read("file_ab") == b"onetwo"


async def test_nothing_stays_of_a_stream_that_breaks(store: MediaStore, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        await store.keep_stream("file_ab", pieces(b"one", error=ConnectionError()))
    assert files_below(tmp_path) == []


async def test_what_a_crash_left_half_written_is_swept(store: MediaStore) -> None:
    await store.keep("file_ab", b"whole")
    part = store.path("file_cd").with_suffix(".part")
    part.parent.mkdir()
    part.write_bytes(b"half")
    store.sweep()
    assert not part.exists()
    assert await store.read("file_ab") == b"whole"


async def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        MediaStore(tmp_path, min_free_bytes=2**62).require_room()


async def test_files_are_private_and_removed_once(store: MediaStore) -> None:
    await store.keep("file_ab", b"x")
    assert store.path("file_ab").parent.stat().st_mode & 0o077 == 0
    await store.remove("file_ab")
    await store.remove("file_ab")
    assert not store.path("file_ab").exists()
