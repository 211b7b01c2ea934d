"""A new admin key in the place of the old one."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.errors import Conflict
from tests.services.house import ADMIN_KEY, OPERATOR, House, house


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as built:
        yield built


async def test_the_new_admin_key_is_let_in_at_once_and_the_old_one_is_not(here: House) -> None:
    assert here.gatekeeper.is_admin(ADMIN_KEY)
    key = (await here.admin_key.reset(OPERATOR)).reveal()
    assert here.gatekeeper.is_admin(key)
    assert not here.gatekeeper.is_admin(ADMIN_KEY)
    assert len(key) >= 43
    assert key.isalnum()


async def test_it_lies_in_its_file_for_the_owner_alone(here: House) -> None:
    key = (await here.admin_key.reset(OPERATOR)).reveal()
    assert here.folder.admin_key.read_text().strip() == key
    assert stat.S_IMODE(here.folder.admin_key.stat().st_mode) == 0o600


async def test_it_is_kept_out_of_the_log_and_of_the_audit(here: House) -> None:
    key = (await here.admin_key.reset(OPERATOR)).reveal()
    assert key in here.registered
    ((_, act),) = await here.audit.page(None, 9)
    assert act.action == "admin_key.reset"
    assert key not in str(act)


async def test_one_of_the_environment_is_not_reset_by_a_file(here: House) -> None:
    with pytest.raises(Conflict) as refused:
        await here.admin_key_from(environment=True).reset(OPERATOR)
    assert "GROKPOOL_ADMIN_KEY" in refused.value.reason
    assert here.gatekeeper.is_admin(ADMIN_KEY)
    assert not here.folder.admin_key.exists()
