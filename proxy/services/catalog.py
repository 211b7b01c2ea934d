"""What every request looks up: keys, tokens, proxies and pauses, in memory and true to the database.

Every change of those rows leaves a line in `changes`; `follow` applies the lines this process has not seen, its own
and those of others.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from proxy.domain.keys import Key, KeySecret
from proxy.domain.proxies import Proxy, parse
from proxy.domain.secret import Secret
from proxy.domain.tokens import Token, TokenState
from proxy.state.pool import Pool
from proxy.storage import changes, cooldowns, keys, pauses, proxies, tokens
from proxy.storage.database import Database
from proxy.storage.pauses import Pause
from proxy.storage.seal import Place, Sealer
from proxy.upstream.transport import Transport


@dataclass(frozen=True, slots=True)
class Credential:
    """A token with its secret, as sealed."""

    token: Token
    sealed_secret: bytes


class Catalog:
    def __init__(
        self,
        *,
        database: Database,
        pool: Pool,
        transport: Transport,
        sealer: Sealer,
        clock: Callable[[], float],
        register: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._database = database
        self._pool = pool
        self._transport = transport
        self._clock = clock
        self._register = register  # of the log's redaction
        self._on_change = on_change
        self._following = asyncio.Lock()  # who asks for a look while one is made is answered by the next
        self._seq = 0
        self._version = -1
        self._keys: dict[str, Key] = {}
        self._secrets: dict[bytes, KeySecret] = {}
        self._tokens: dict[str, Credential] = {}
        self.proxies: dict[str, Proxy] = {}
        self.pauses: tuple[Pause, ...] = ()
        self.sealer = sealer

    async def load(self) -> None:
        """Read everything. Raises `Unsealable` when the master key is not the one that sealed the secrets."""
        async with self._following:
            self._seq = await self._database.read(changes.latest)
            for kind in ("proxy", "token", "key", "pause"):
                await self._reload(kind, None)
        self._pool.restore(await self._database.read(cooldowns.load), self._clock())

    async def follow(self) -> None:
        """Apply what has changed since the last look. Costs nothing while nobody commits."""
        async with self._following:
            version = await self._database.version()
            if version == self._version:
                return
            new: dict[str, set[str]] = {}
            latest = self._seq
            for seq, kind, id_ in await self._database.read(changes.since, self._seq):
                new.setdefault(kind, set()).add(id_)
                latest = seq
            for kind in sorted(new):  # proxies before the tokens that are pinned to them
                await self._reload(kind, new[kind])
            self._seq, self._version = latest, version
            if new:
                self._on_change()

    def key_of(self, secret_hash: bytes, now: float) -> Key | None:
        """Return the key a secret belongs to, if both are valid now."""
        secret = self._secrets.get(secret_hash)
        if secret is None or not secret.is_valid(now):
            return None
        key = self._keys.get(secret.key_id)
        return key if key is not None and key.is_valid(now) else None

    @property
    def has_one_key(self) -> bool:
        return len(self._keys) == 1

    def secret_of(self, token_id: str) -> Secret:
        """Raises `KeyError` for a token that is gone."""
        return self._unsealed(self._tokens[token_id].sealed_secret, tokens.place(token_id))

    def token(self, token_id: str) -> Token | None:
        known = self._tokens.get(token_id)
        return None if known is None else known.token

    def tokens(self) -> list[Token]:
        return [known.token for known in self._tokens.values() if known.token.state is not TokenState.REMOVED]

    async def _reload(self, kind: str, ids: set[str] | None) -> None:
        match kind:
            case "key":
                self._put_keys(await self._database.read(keys.load, ids))
            case "token":
                self._put_tokens(await self._database.read(tokens.load, ids))
            case "proxy":
                await self._put_proxies(await self._database.read(proxies.load, ids))
            case _:
                self.pauses = tuple(await self._database.read(pauses.load))

    def _put_keys(self, rows: list[tuple[Key, list[KeySecret]]]) -> None:
        for key, secrets in rows:
            self._keys[key.id] = key
            self._secrets.update({secret.hash: secret for secret in secrets})

    def _put_tokens(self, rows: list[tuple[Token, bytes]]) -> None:
        for token, sealed_secret in rows:
            self._tokens[token.id] = Credential(token, sealed_secret)  # a removed one too: it finishes its own jobs
            self._pool.put_token(token, self._clock())

    async def _put_proxies(self, rows: list[proxies.Stored]) -> None:
        for stored in rows:
            proxy = stored.proxy
            if proxy.removed:
                self.proxies.pop(proxy.id, None)
                self._pool.drop_proxy(proxy.id, self._clock())
                await self._transport.drop_proxy(proxy.id)
                continue
            address = parse(self.sealer.open(stored.sealed_url, proxies.url_place(proxy.id)).reveal())
            if address.password is not None:
                self._register(address.password.reveal())
            clearance = None
            if stored.sealed_clearance is not None:
                clearance = self._unsealed(stored.sealed_clearance, proxies.clearance_place(proxy.id))
            await self._transport.put_proxy(proxy.id, address, clearance, proxy.user_agent)
            self.proxies[proxy.id] = proxy
            self._pool.put_proxy(proxy, self._clock())

    def _unsealed(self, sealed: bytes, place: Place) -> Secret:
        """Open a secret, and keep it out of the log from here on."""
        secret = self.sealer.open(sealed, place)
        self._register(secret.reveal())
        return secret
