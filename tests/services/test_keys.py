"""Keys as their operator handles them, and what that means to the clients who hold them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.errors import Conflict, InvalidParameter, NotFound, RateLimited
from proxy.domain.keys import is_well_formed
from proxy.domain.secret import Secret
from tests.services.house import NOW, OPERATOR, House, house


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as built:
        yield built


async def make(here: House, expires_at: float | None = None) -> tuple[str, Secret]:
    shown, secret = await here.keys.create(OPERATOR, name="shop", limits={}, expires_at=expires_at)
    return shown.key.id, secret


def opens(here: House, secret: Secret) -> bool:
    return here.gatekeeper.caller(secret.reveal(), here.clock()) is not None


async def test_a_new_key_opens_the_gateway_at_once(here: House) -> None:
    key_id, secret = await make(here)
    assert is_well_formed(secret.reveal())
    caller = here.gatekeeper.caller(secret.reveal(), NOW)
    assert caller is not None
    assert caller.id == key_id


async def test_a_limit_that_is_not_given_is_the_default_and_none_is_no_limit(here: House) -> None:
    shown, _ = await here.keys.create(OPERATOR, name="shop", limits={"concurrency": None})
    assert shown.key.limits.requests_per_minute == 60
    assert shown.key.limits.concurrency is None


async def test_the_secret_is_in_no_byte_of_the_database(here: House) -> None:
    _, secret = await make(here)
    files = [path.read_bytes() for path in here.folder.root.iterdir() if path.name.startswith("grokpool.db")]
    assert any(secret.reveal()[:12].encode() in content for content in files)
    assert not any(secret.reveal().encode() in content for content in files)


async def test_a_rotated_key_knows_both_secrets_until_the_grace_is_over(here: House) -> None:
    key_id, old = await make(here)
    shown, new = await here.keys.rotate(OPERATOR, key_id, grace=600.0)
    assert len(shown.secrets) == 2
    assert opens(here, old)
    assert opens(here, new)
    here.clock.advance(599.9)
    assert opens(here, old)
    here.clock.advance(0.1)
    assert not opens(here, old)
    assert opens(here, new)
    assert len((await here.keys.show(key_id)).secrets) == 1


async def test_rotated_without_grace_the_old_secret_is_refused_at_once(here: House) -> None:
    key_id, old = await make(here)
    await here.keys.rotate(OPERATOR, key_id, grace=0.0)
    assert not opens(here, old)


async def test_a_second_rotation_does_not_lengthen_the_life_of_the_first_secret(here: House) -> None:
    key_id, first = await make(here)
    await here.keys.rotate(OPERATOR, key_id, grace=10.0)
    await here.keys.rotate(OPERATOR, key_id, grace=1000.0)
    here.clock.advance(10.0)
    assert not opens(here, first)


async def test_a_rotation_keeps_what_the_key_has_taken(here: House) -> None:
    key_id, old = await make(here)
    await here.keys.update(OPERATOR, key_id, {"requests_per_minute": 1})
    before = here.gatekeeper.caller(old.reveal(), NOW)
    assert before is not None
    here.shop.limits.admit(before, "video-1", NOW, 1.0)
    _, new = await here.keys.rotate(OPERATOR, key_id, grace=600.0)
    after = here.gatekeeper.caller(new.reveal(), NOW)
    assert after is not None
    with pytest.raises(RateLimited):
        here.shop.limits.admit(after, "video-2", NOW, 1.0)


async def test_a_key_revoked_by_one_process_is_refused_by_another_that_follows(here: House) -> None:
    key_id, secret = await make(here)
    async with house(here.folder.root, again=True) as other:
        assert opens(other, secret)
        await here.keys.revoke(OPERATOR, key_id)
        assert not opens(here, secret)
        await other.catalog.follow()
        assert not opens(other, secret)


async def test_revoking_twice_keeps_the_first_moment_and_one_line_in_the_audit(here: House) -> None:
    key_id, _ = await make(here)
    first = await here.keys.revoke(OPERATOR, key_id)
    here.clock.advance(5.0)
    assert (await here.keys.revoke(OPERATOR, key_id)).key.revoked_at == first.key.revoked_at
    assert await here.actions() == ["key.create", "key.revoke"]


async def test_a_revoked_key_is_not_rotated_back_to_life(here: House) -> None:
    key_id, _ = await make(here)
    await here.keys.revoke(OPERATOR, key_id)
    with pytest.raises(Conflict):
        await here.keys.rotate(OPERATOR, key_id, grace=0.0)


async def test_a_key_ends_at_its_moment(here: House) -> None:
    _, secret = await make(here, expires_at=NOW + 10.0)
    here.clock.advance(9.9)
    assert opens(here, secret)
    here.clock.advance(0.1)
    assert not opens(here, secret)


async def test_an_update_changes_what_it_names_and_nothing_else(here: House) -> None:
    key_id, secret = await make(here)
    shown = await here.keys.update(OPERATOR, key_id, {"name": "other", "concurrency": None})
    assert shown.key.name == "other"
    assert shown.key.limits.concurrency is None
    assert shown.key.limits.requests_per_minute == 60
    caller = here.gatekeeper.caller(secret.reveal(), NOW)
    assert caller is not None
    assert caller.limits.concurrency is None


async def test_the_first_key_of_a_tenant_makes_the_tenant(here: House) -> None:
    first, _ = await here.keys.create(OPERATOR, name="x", tenant_id="acme", limits={})
    second, _ = await here.keys.create(OPERATOR, name="y", tenant_id="acme", limits={})
    assert (first.key.tenant_id, second.key.tenant_id) == ("acme", "acme")


async def test_mistakes_have_names(here: House) -> None:
    with pytest.raises(NotFound):
        await here.keys.show("key_nobody")
    with pytest.raises(InvalidParameter):
        await make(here, expires_at=NOW)


async def test_pages_are_by_age_and_show_each_keys_own_secrets(here: House) -> None:
    made = []
    for _ in range(3):
        here.clock.advance(0.01)
        made.append(await make(here))
    first = await here.keys.page(None, 2)
    rest = await here.keys.page(first[-1].key.id, 2)
    assert [shown.key.id for shown in [*first, *rest]] == [key_id for key_id, _ in made]
    for shown, (_, secret) in zip([*first, *rest], made, strict=True):
        assert [kept.shown for kept in shown.secrets] == [secret.reveal()[:12]]
