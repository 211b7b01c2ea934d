"""The master key's rotation, online: everything sealed is sealed anew while the gateway works."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy.domain.errors import Conflict
from proxy.domain.secret import Secret
from proxy.services.catalog import Catalog
from proxy.storage import sealed
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.folder import write_private
from proxy.storage.seal import KEY_BYTES, Sealer, decode_keys, encode_key, key_id
from proxy.storage.writer import each

ADVICE = (
    "The master key comes from GROKPOOL_MASTER_KEY: put a new one before it there (NEW,OLD), restart, rotate, "
    "then take the old one out."
)
TAKE_OUT = "Take the older keys out of GROKPOOL_MASTER_KEY before the next start."
BACKUPS = "The old key is gone from its file: backups made before today open only with your own copy of it."


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did: the new key's public id, how many values were sealed anew, what is left to do."""

    key_id: str
    resealed: int
    note: str


class MasterKey:
    """`given` is the environment's text, where the key comes from there. `sealing` is what writers of sealed values
    hold from the sealing to the commit: with it held here, none can commit under a key that is about to go."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        file: Path,
        given: Secret | None,
        sealing: asyncio.Lock,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._file = file
        self._given = given
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy

    async def rotate(self, actor: str) -> Rotated:
        """Put a new master key in the place of the old one. A crash at any point leaves a file that opens everything.

        Keys of the environment are not made here: there, everything is sealed under the first of several.
        Raises `Conflict` when the environment gives just one.
        """
        async with self._sealing:
            if self._given is not None:
                return await self._under_the_first(actor, decode_keys(self._given.reveal()))
            old = decode_keys(await asyncio.to_thread(self._file.read_text))
            if key_id(old[0]) != self._catalog.sealer.current:
                raise Conflict(f"{self._file} is not what the gateway started with: restart it first.")
            new = self._entropy(KEY_BYTES)
            await self._write([new, *old])
            resealed = await self._reseal(actor, [new, *old])
            await self._write([new])
            self._catalog.sealer = Sealer([new], self._entropy)
            return Rotated(self._catalog.sealer.current.hex(), resealed, BACKUPS)

    async def _under_the_first(self, actor: str, keys: list[bytes]) -> Rotated:
        if len(keys) == 1:
            raise Conflict(ADVICE)
        resealed = await self._reseal(actor, keys)
        return Rotated(self._catalog.sealer.current.hex(), resealed, TAKE_OUT)

    async def _reseal(self, actor: str, keys: list[bytes]) -> int:
        """Seal everything under the first of `keys`, and let the catalog take over; meanwhile it opens both."""
        sealer = Sealer(keys, self._entropy)
        self._catalog.sealer = sealer
        act = Act(self._clock(), actor, "master_key.rotate", "master_key", {"key_id": sealer.current.hex()})
        resealed = await self._database.write(_ROTATE, sealed.Rotation(sealer, act))
        await self._catalog.load()
        return resealed

    async def _write(self, keys: list[bytes]) -> None:
        text = "".join(encode_key(key) + "\n" for key in keys)
        await asyncio.to_thread(write_private, self._file, text)


_ROTATE = each(sealed.rotate)
