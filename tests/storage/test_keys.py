"""Keys and their secrets in their rows; each change is told to all processes, and to the audit."""

import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from proxy.domain.keys import SCHEME_OWN, Key, KeyLimits, KeySecret
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.storage import changes, keys
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each

KEY = Key("key_1", DEFAULT, "test", KeyLimits(60, None), 100.0, expires_at=900.0)
SECRET = KeySecret(b"1" * 32, KEY.id, SCHEME_OWN, "gp_AbCdEfGhI", 100.0)


def act(action: str) -> Act:
    return Act(100.0, "admin", action, KEY.id, {"why": "test"})


async def create(database: Database, key: Key = KEY, secret: KeySecret = SECRET) -> None:
    await database.write(each(keys.create), keys.NewKey(key, secret, act("key.create")))


async def test_a_key_is_found_as_it_was_made_with_its_secrets(database: Database) -> None:
    await create(database)
    assert await database.read(keys.find, KEY.id) == KEY
    assert await database.read(keys.find, "key_2") is None
    assert await database.read(keys.secrets_of, KEY.id) == [SECRET]
    assert await database.read(keys.load) == [(KEY, [SECRET])]
    assert await database.read(keys.load, ["key_2"]) == []


async def test_a_rotation_gives_the_older_secrets_an_end_and_never_a_later_one(database: Database) -> None:
    await create(database, secret=replace(SECRET, expires_at=150.0))
    second, third = (replace(SECRET, hash=hash_ * 32, created_at=at) for hash_, at in ((b"2", 110.0), (b"3", 120.0)))
    for secret, end in ((second, 300.0), (third, 200.0)):
        await database.write(each(keys.add_secret), keys.NewSecret(secret, end, act("key.rotate")))
    ends = [secret.expires_at for secret in await database.read(keys.secrets_of, KEY.id)]
    assert ends == [150.0, 200.0, None]


async def test_two_keys_have_no_secret_in_common(database: Database) -> None:
    await create(database)
    with pytest.raises(IntegrityError):
        await create(database, replace(KEY, id="key_2"), replace(SECRET, key_id="key_2"))
    assert await database.read(keys.find, "key_2") is None, "all of it or nothing"


async def test_a_key_of_no_tenant_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await create(database, replace(KEY, tenant_id="nobody"))


async def test_changes_are_marked_and_audited_in_the_same_transaction(database: Database) -> None:
    before = await database.read(changes.latest)
    await create(database)
    await database.write(each(keys.change), keys.KeyUpdate(KEY.id, {"revoked_at": 200.0}, act("key.revoke")))
    assert [(kind, id_) for _, kind, id_ in await database.read(changes.since, before)] == [("key", KEY.id)] * 2
    audited = [line for _, line in await database.read(changes.audit_page, None, 9)]
    assert audited == [act("key.revoke"), act("key.create")]
    revoked = await database.read(keys.find, KEY.id)
    assert revoked == replace(KEY, revoked_at=200.0)


async def test_a_change_moves_the_version_that_processes_look_at(database: Database) -> None:
    before = await database.version()
    assert await database.version() == before
    await create(database)
    assert await database.version() != before


async def test_keys_are_paged_by_age_and_the_valid_ones_counted(database: Database) -> None:
    made = [replace(KEY, id=f"key_{number}", expires_at=None if number else 150.0) for number in range(5)]
    for number, key in enumerate(made):
        await create(database, key, replace(SECRET, key_id=key.id, hash=bytes([number]) * 32))
    first = await database.read(keys.page, None, 3)
    rest = await database.read(keys.page, first[-1].id, 3)
    assert first + rest == made
    assert await database.read(keys.count_valid, 149.0) == 5
    assert await database.read(keys.count_valid, 150.0) == 4


async def test_no_more_of_a_secret_is_stored_than_may_be_shown(database: Database) -> None:
    await create(database)
    with sqlite3.connect(database.path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(key_secrets)")]
    connection.close()
    assert set(columns) == {"hash", "key_id", "scheme", "shown", "created_at", "expires_at"}


async def test_the_tenant_is_made_once(database: Database) -> None:
    await database.write(each(keys.ensure_tenant), (Tenant(DEFAULT, "Another name"), 9.0))
    tenant = await database.read(keys.tenant, DEFAULT)
    assert tenant is not None
    assert tenant.name == "Default"
