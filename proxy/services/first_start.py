"""What every gateway has from its first start: a tenant, secrets of its own, and, in the sandbox, a token for it."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.domain.secret import Secret
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.domain.tokens import Token, TokenState
from proxy.storage import keys, sealed, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.seal import Pepper, Sealer
from proxy.storage.writer import each

SANDBOX_TOKEN = "tok_sandbox"  # the id of the built-in one
SECRET_BYTES = 16


class RealTokens(Exception):
    """`--sandbox` does not start beside enabled real tokens: somebody would take the stand-in's videos for theirs."""


@dataclass(frozen=True, slots=True)
class OwnSecrets:
    pepper: Pepper  # of the hashes by which secrets are found
    signing_key: bytes  # of the links to files


async def prepare(database: Database, sealer: Sealer, entropy: Callable[[int], bytes], now: float) -> OwnSecrets:
    """Make what is missing. Raises `Unsealable` when the master key is not the one that sealed what is there."""
    await database.write(_ENSURE_TENANT, (Tenant(DEFAULT, "Default"), now))

    async def own(name: str) -> Secret:
        return await database.write(_OWN_SECRET, sealed.OwnSecret(name, sealer, entropy))

    return OwnSecrets(Pepper(await own("pepper")), (await own("signing")).reveal().encode())


async def put_sandbox_token(database: Database, sealer: Sealer, entropy: Callable[[int], bytes], token: Token) -> None:
    """Put the built-in sandbox token into the pool, if it is not there. Raises `RealTokens`."""
    rows = [known for known, _ in await database.read(tokens.load)]
    real = sum(known.driver != token.driver and known.state is TokenState.ENABLED for known in rows)
    if real:
        raise RealTokens(f"--sandbox does not start beside enabled real tokens ({real}); disable them first")
    built_in = next((known for known in rows if known.id == token.id), None)
    if built_in is not None:
        await _switch(database, token.id, TokenState.ENABLED, token.created_at)
    else:
        secret = "built-in " + entropy(SECRET_BYTES).hex()
        act = Act(token.created_at, "gateway", "token.add", token.id, {"driver": token.driver})
        new = tokens.NewToken(token, sealer.seal(secret, tokens.place(token.id)), entropy(32), act)
        await database.write(_CREATE_TOKEN, new)


async def retire_sandbox_token(database: Database, now: float) -> None:
    """Disable the built-in sandbox token: this start is for real."""
    known = await database.read(tokens.find, SANDBOX_TOKEN)
    if known is not None and known.state is TokenState.ENABLED:
        await _switch(database, SANDBOX_TOKEN, TokenState.DISABLED, now)


async def _switch(database: Database, token_id: str, state: TokenState, now: float) -> None:
    cause = None if state is TokenState.ENABLED else "no --sandbox"
    values = {"state": state, "disabled_cause": cause}
    act = Act(now, "gateway", f"token.{state}", token_id, {"cause": cause})
    await database.write(_CHANGE_TOKEN, tokens.TokenUpdate(token_id, values, act))


_ENSURE_TENANT = each(keys.ensure_tenant)
_OWN_SECRET = each(sealed.own_secret)
_CREATE_TOKEN = each(tokens.create)
_CHANGE_TOKEN = each(tokens.change)
