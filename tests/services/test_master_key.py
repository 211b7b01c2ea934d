"""The master key's rotation, while the gateway works."""

import asyncio
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from proxy.domain.errors import Conflict
from proxy.domain.secret import Secret
from proxy.services.proxies import Edit
from proxy.storage import sealed
from proxy.storage.folder import write_private
from proxy.storage.seal import KEY_BYTES, Sealer, decode_keys, encode_key, key_id
from tests.services.house import OPERATOR, House, house


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as built:
        yield built


async def fill(here: House) -> str:
    """Make one of everything that is sealed; return the token's id."""
    proxy = Edit(frozenset({"url", "clearance"}), url=Secret("http://a:b@127.0.0.1:9"), clearance=Secret("cf"))
    await here.proxies.add(OPERATOR, proxy)
    return (await here.tokens.add(OPERATOR, "xai", Secret("xai-1"), {})).token.id


def sealing_keys(connection: Connection) -> set[bytes]:
    """Return the ids of the master keys that anything is sealed under."""
    found = set()
    for column in sealed.SEALED_COLUMNS:
        values = connection.execute(select(column.column).where(column.column.is_not(None))).scalars()
        found |= {value[:4] for value in values}
    return found


def keys_of(here: House) -> list[bytes]:
    return decode_keys(here.folder.master_key.read_text())


async def test_after_a_rotation_everything_is_sealed_under_the_new_key_alone(here: House) -> None:
    token_id = await fill(here)
    (old,) = keys_of(here)
    rotated = await here.master_key.rotate(OPERATOR)
    (new,) = keys_of(here)
    assert new != old
    assert rotated.key_id == key_id(new).hex()
    assert rotated.resealed == 4  # the pepper, the token, the proxy's URL and clearance
    assert await here.database.read(sealing_keys) == {key_id(new)}
    assert stat.S_IMODE(here.folder.master_key.stat().st_mode) == 0o600
    assert here.catalog.secret_of(token_id) == Secret("xai-1")
    assert (await here.actions())[-1] == "master_key.rotate"


async def test_clients_keys_stay_valid_here_and_after_a_restart(here: House) -> None:
    _, secret = await here.keys.create(OPERATOR, name="shop", limits={})
    await here.master_key.rotate(OPERATOR)
    assert here.gatekeeper.caller(secret.reveal(), here.clock()) is not None
    async with house(here.folder.root, again=True) as next_start:
        assert next_start.gatekeeper.caller(secret.reveal(), here.clock()) is not None


async def test_secrets_are_read_and_written_all_through_rotations(here: House) -> None:
    token_id = await fill(here)
    rotating = here.tasks.start(rotations(here, 5), "rotations")
    added: list[str] = []
    while not rotating.done():
        assert here.catalog.secret_of(token_id) == Secret("xai-1")
        shown = await here.tokens.add(OPERATOR, "xai", Secret(f"more-{len(added)}"), {})
        added.append(shown.token.id)
    await rotating
    assert await here.database.read(sealing_keys) == {key_id(keys_of(here)[0])}
    await here.catalog.load()
    assert [here.catalog.secret_of(id_).reveal() for id_ in added] == [f"more-{n}" for n in range(len(added))]


async def test_a_rotation_and_who_is_about_to_write_a_secret_wait_for_each_other(here: House) -> None:
    url = Edit(frozenset({"url"}), url=Secret("http://127.0.0.1:9"))
    async with here.sealing:
        waiting = [
            here.tasks.start(here.master_key.rotate(OPERATOR), "rotation"),
            here.tasks.start(here.tokens.add(OPERATOR, "xai", Secret("xai-1"), {}), "token"),
            here.tasks.start(here.proxies.add(OPERATOR, url), "proxy"),
        ]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
    await asyncio.gather(*waiting)
    assert await here.database.read(sealing_keys) == {key_id(keys_of(here)[0])}


async def rotations(here: House, times: int) -> None:
    for _ in range(times):
        await here.master_key.rotate(OPERATOR)


async def test_a_rotation_cut_short_leaves_a_file_that_opens_everything(here: House) -> None:
    token_id = await fill(here)
    new, (old,) = secrets.token_bytes(KEY_BYTES), keys_of(here)
    write_private(here.folder.master_key, encode_key(new) + "\n" + encode_key(old) + "\n")  # and then the power fails
    async with house(here.folder.root, again=True) as next_start:
        assert next_start.catalog.secret_of(token_id) == Secret("xai-1")
        await next_start.master_key.rotate(OPERATOR)
        assert await next_start.database.read(sealing_keys) == {key_id(keys_of(here)[0])}
        assert len(keys_of(here)) == 1


async def test_a_file_that_somebody_else_changed_stops_it(here: House) -> None:
    write_private(here.folder.master_key, encode_key(secrets.token_bytes(KEY_BYTES)) + "\n")
    token_id = await fill(here)
    with pytest.raises(Conflict):
        await here.master_key.rotate(OPERATOR)
    assert here.catalog.secret_of(token_id) == Secret("xai-1")


async def test_one_key_of_the_environment_is_not_rotated_but_explained(here: House) -> None:
    given = Secret(here.folder.master_key.read_text())
    with pytest.raises(Conflict) as refused:
        await here.master_key_given(given, asyncio.Lock()).rotate(OPERATOR)
    assert "GROKPOOL_MASTER_KEY" in refused.value.reason


async def test_of_several_in_the_environment_the_first_takes_everything_over(here: House) -> None:
    token_id = await fill(here)
    new, (old,) = secrets.token_bytes(KEY_BYTES), keys_of(here)
    here.catalog.sealer = Sealer([new, old], secrets.token_bytes)
    given = Secret(f"{encode_key(new)},{encode_key(old)}")
    rotated = await here.master_key_given(given, asyncio.Lock()).rotate(OPERATOR)
    assert "GROKPOOL_MASTER_KEY" in rotated.note
    assert await here.database.read(sealing_keys) == {key_id(new)}
    assert here.catalog.secret_of(token_id) == Secret("xai-1")
