"""Tokens as their operator handles them, with a loopback xAI to look at them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.errors import Conflict, InvalidParameter, NotFound, Unavailable
from proxy.domain.jobs import Attempt
from proxy.domain.outcomes import Outcome
from proxy.domain.secret import Secret
from proxy.state.leases import NotNow, Status, Want
from proxy.storage import jobs, schema
from proxy.storage.seal import Unsealable
from proxy.storage.writer import each
from tests.services.house import OPERATOR, VIDEO, House, house
from tests.upstream.xai_script import Reply
from tests.upstream.xai_server import XaiServer

SECRET = Secret("CANARY-xai-token")
WANT = Want(drivers=("xai",), model=VIDEO)


@pytest.fixture
async def upstream() -> AsyncIterator[XaiServer]:
    async with XaiServer() as server:
        yield server


@pytest.fixture
async def here(tmp_path: Path, upstream: XaiServer) -> AsyncIterator[House]:
    async with house(tmp_path, base_url=upstream.base_url) as built:
        yield built


async def add(here: House, secret: Secret = SECRET, **values: object) -> str:
    return (await here.tokens.add(OPERATOR, "xai", secret, values)).token.id


async def begin(here: House, token_id: str) -> None:
    """Let an attempt of a job be under way on the token."""
    shown, _ = await here.keys.create(OPERATOR, name="shop", limits={})
    job = await here.job(shown.key.id)
    attempt = Attempt("try_1", job.id, 1, token_id, None, here.clock(), "idle longest")
    await here.database.write(jobs.begin, jobs.Beginning(attempt, job.fence))


def is_leasable(here: House) -> bool:
    return not isinstance(here.pool.lease(WANT, here.clock()), NotNow)


async def test_a_new_token_works_at_once_with_its_drivers_concurrency(here: House) -> None:
    shown = await here.tokens.add(OPERATOR, "xai", SECRET, {})
    assert shown.token.concurrency == 3
    assert shown.live.status is Status.READY
    assert is_leasable(here)
    assert here.catalog.secret_of(shown.token.id) == SECRET


async def test_its_secret_is_in_no_byte_of_the_database(here: House) -> None:
    await add(here, name="findable")
    files = [path.read_bytes() for path in here.folder.root.iterdir() if path.name.startswith("grokpool.db")]
    assert any(b"findable" in content for content in files)
    assert not any(SECRET.reveal().encode() in content for content in files)


async def test_the_same_secret_twice_is_a_conflict_that_names_the_first(here: House) -> None:
    first = await add(here)
    with pytest.raises(Conflict) as refused:
        await add(here)
    assert first in refused.value.reason
    second = await add(here, Secret("another"))
    with pytest.raises(Conflict):
        await here.tokens.update(OPERATOR, second, SECRET, {})


async def test_of_two_that_add_the_same_secret_at_once_one_is_refused(here: House) -> None:
    one, two = await asyncio.gather(add(here), add(here), return_exceptions=True)
    assert isinstance(one, str)
    assert isinstance(two, Conflict)


async def test_a_removed_tokens_secret_may_come_back(here: House) -> None:
    await here.tokens.remove(OPERATOR, await add(here), force=False)
    assert await add(here)


async def test_an_unknown_driver_or_proxy_is_named(here: House) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await here.tokens.add(OPERATOR, "telex", SECRET, {})
    assert refused.value.parameter == "driver"
    with pytest.raises(InvalidParameter) as refused:
        await add(here, proxy_id="nobody")
    assert refused.value.parameter == "proxy"


async def test_real_tokens_stay_out_of_the_sandbox(tmp_path: Path) -> None:
    async with house(tmp_path, sandbox=True) as here:
        with pytest.raises(Conflict):
            await add(here)
        assert (await here.tokens.add(OPERATOR, "sandbox", SECRET, {})).token.driver == "sandbox"


async def test_a_disabled_token_takes_no_work_until_it_is_enabled(here: House) -> None:
    token_id = await add(here)
    assert (await here.tokens.disable(OPERATOR, token_id)).live.status is Status.DISABLED
    assert not is_leasable(here)
    assert (await here.tokens.enable(OPERATOR, token_id)).live.status is Status.READY
    assert is_leasable(here)


async def test_clearing_ends_the_rests_of_a_token_and_its_team_here_and_in_the_rows(here: House) -> None:
    token_id = await add(here, team="team-1")
    await here.rest(SubjectKind.TOKEN, token_id, "forbidden")
    await here.rest(SubjectKind.TOKEN_MODEL, token_id, "throttled", scope=VIDEO)
    await here.rest(SubjectKind.TEAM, "team-1", "unpaid")
    assert (await here.tokens.show(token_id)).live.status is Status.COOLING
    assert not is_leasable(here)
    assert (await here.tokens.clear(OPERATOR, token_id)).live.status is Status.READY
    assert is_leasable(here)
    assert await here.kept_cooldowns() == []
    assert (await here.actions())[-1] == "token.clear"


async def test_a_new_secret_ends_the_tokens_own_rests_but_not_its_teams(here: House) -> None:
    token_id = await add(here, team="team-1")
    await here.rest(SubjectKind.TOKEN, token_id, "unauthorized")
    await here.rest(SubjectKind.TEAM, "team-1", "unpaid")
    shown = await here.tokens.update(OPERATOR, token_id, Secret("a newer one"), {})
    assert [row.cause for row in shown.live.cooldowns] == ["unpaid"]
    assert here.catalog.secret_of(token_id) == Secret("a newer one")


async def test_an_update_changes_what_it_names_and_nothing_else(here: House) -> None:
    token_id = await add(here, models=(VIDEO,), tier="gold")
    shown = await here.tokens.update(OPERATOR, token_id, None, {"models": ("other",), "base_url": "https://x.example"})
    assert shown.token.models == ("other",)
    assert shown.token.base_url == "https://x.example"
    assert shown.token.tier == "gold"
    assert here.catalog.secret_of(token_id) == SECRET
    assert not is_leasable(here)


async def test_a_look_shows_a_good_credential_and_learns_its_team(here: House, upstream: XaiServer) -> None:
    upstream.teams[SECRET.reveal()] = "team-7"
    token_id = await add(here)
    trial = await here.tokens.test(OPERATOR, token_id)
    assert (trial.outcome, trial.team) == (Outcome.OK, "team-7")
    assert (await here.tokens.show(token_id)).token.team == "team-7"
    assert len(upstream.calls("key")) == 1
    assert not upstream.calls("submit")


async def test_a_look_at_a_refused_credential_blames_nobody(here: House, upstream: XaiServer) -> None:
    upstream.script("key", Reply(401, {"code": "unauthenticated", "error": "no"}))
    token_id = await add(here)
    assert (await here.tokens.test(OPERATOR, token_id)).outcome is Outcome.UNAUTHORIZED
    assert (await here.tokens.show(token_id)).live.status is Status.READY


async def test_a_blocked_credential_is_not_ok(here: House, upstream: XaiServer) -> None:
    flags = {"team_id": "t", "api_key_blocked": True, "team_blocked": False}
    upstream.script("key", Reply(200, flags))
    assert (await here.tokens.test(OPERATOR, await add(here))).outcome is Outcome.FORBIDDEN


async def test_without_a_way_out_there_is_no_look(here: House) -> None:
    token_id = await add(here)
    await here.rest(SubjectKind.PROXY, "direct", "unreachable")
    with pytest.raises(Unavailable):
        await here.tokens.test(OPERATOR, token_id)


async def test_a_token_at_work_is_removed_by_force_alone(here: House) -> None:
    token_id = await add(here)
    await begin(here, token_id)
    with pytest.raises(Conflict):
        await here.tokens.remove(OPERATOR, token_id, force=False)
    await here.tokens.remove(OPERATOR, token_id, force=True)
    with pytest.raises(NotFound):
        await here.tokens.show(token_id)
    assert not is_leasable(here)
    assert here.catalog.secret_of(token_id) == SECRET  # its jobs are still to be looked at


async def test_a_drained_tokens_secret_goes_with_it(here: House) -> None:
    token_id = await add(here)
    await here.tokens.disable(OPERATOR, token_id)
    await here.tokens.remove(OPERATOR, token_id, force=False)
    assert here.catalog.secret_of(token_id) == Secret("")


async def test_a_removed_token_frees_not_its_team(here: House) -> None:
    token_id = await add(here, team="team-1")
    await here.rest(SubjectKind.TEAM, "team-1", "unpaid")
    await here.tokens.remove(OPERATOR, token_id, force=False)
    assert [row.cause for row in await here.kept_cooldowns()] == ["unpaid"]


def swap(connection: Connection, ids: tuple[str, str]) -> None:
    table = schema.tokens
    for one, other in (ids, ids[::-1]):
        value = connection.execute(select(table.c.secret_hash, table.c.sealed_secret).where(table.c.id == other)).one()
        connection.execute(update(table).where(table.c.id == one).values(models=value.sealed_secret.hex()))
    for id_ in ids:
        held = connection.execute(select(table.c.models).where(table.c.id == id_)).scalar_one()
        connection.execute(
            update(table).where(table.c.id == id_).values(sealed_secret=bytes.fromhex(held), models=None)
        )


async def test_sealed_secrets_swapped_between_rows_do_not_open(here: House) -> None:
    ids = (await add(here), await add(here, Secret("another")))
    await here.database.write(each(swap), ids)
    await here.catalog.load()
    for token_id in ids:
        with pytest.raises(Unsealable):
            here.catalog.secret_of(token_id)


async def test_what_one_process_adds_another_has_after_a_look(here: House) -> None:
    async with house(here.folder.root, again=True) as other:
        token_id = await add(here)
        await other.catalog.follow()
        assert other.catalog.secret_of(token_id) == SECRET
        assert is_leasable(other)
