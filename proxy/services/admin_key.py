"""The operator's own key, and a new one in its place."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from proxy.domain.errors import Conflict
from proxy.domain.ids import encode
from proxy.domain.secret import Secret
from proxy.services.access import Gatekeeper
from proxy.storage import changes
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.folder import write_private
from proxy.storage.writer import each

ENTROPY_BYTES = 36
DIGITS = 58  # of base 32: all of the entropy


def make_admin_key(entropy: Callable[[int], bytes]) -> str:
    return encode(int.from_bytes(entropy(ENTROPY_BYTES)), DIGITS)


class AdminKey:
    """`register` keeps a secret out of the log."""

    def __init__(
        self,
        *,
        database: Database,
        gatekeeper: Gatekeeper,
        file: Path,
        from_environment: bool,
        register: Callable[[str], None],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._gatekeeper = gatekeeper
        self.file = file
        self._from_environment = from_environment
        self._register = register
        self._clock = clock
        self._entropy = entropy

    async def reset(self, actor: str) -> Secret:
        """Make a new admin key, write it to its file, and let it in; the old one is refused from then on.

        Raises `Conflict` when the key is given by the environment, which a file would not change.
        """
        if self._from_environment:
            raise Conflict("The admin key comes from GROKPOOL_ADMIN_KEY: change it there and restart.")
        key = make_admin_key(self._entropy)
        self._register(key)
        await self._database.write(_RECORD, Act(self._clock(), actor, "admin_key.reset", "admin_key", {}))
        await asyncio.to_thread(write_private, self.file, key + "\n")
        self._gatekeeper.admit_admin(key)
        return Secret(key)


_RECORD = each(changes.record)
