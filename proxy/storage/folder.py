"""The data folder: private to its owner, used by one process at a time."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from proxy.storage.seal import KEY_BYTES, decode_keys, encode_key


class FolderInUse(Exception):
    """Another process runs on this data folder."""


class Folder:
    """Where one gateway keeps everything: `grokpool.db`, `media/`, `master.key`, `admin.key`, `grokpool.sock`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "grokpool.db"
        self.backups = root / "backups"
        self.media = root / "media"
        self.scratch = root / "scratch"
        self.master_key = root / "master.key"
        self.admin_key = root / "admin.key"
        self.socket = root / "grokpool.sock"
        self._lock: int | None = None

    def take(self) -> None:
        """Create the folder (0700) and lock it for this process. Raises `FolderInUse`."""
        for path in (self.root, self.media, self.scratch):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise FolderInUse(f"another grokpool runs on {self.root}") from None
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def master_keys(self, given: str | None, entropy: Callable[[int], bytes]) -> list[bytes]:
        """Return the master keys, the current one first: those given, else those of the key file, else a new one.

        Raises `ValueError`, `PermissionError` when others may read the file.
        """
        if given:
            return decode_keys(given)
        if not self.master_key.exists():
            write_private(self.master_key, encode_key(entropy(KEY_BYTES)) + "\n")
        if self.master_key.stat().st_mode & 0o077:
            raise PermissionError(f"{self.master_key} may be read by others; make it 0600")
        return decode_keys(self.master_key.read_text())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, safe against a loss of power."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
