"""The operator's brake."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.errors import Conflict, InvalidParameter
from proxy.domain.secret import Secret
from proxy.services.dispatcher import Rank
from proxy.state.leases import Want
from tests.services.house import OPERATOR, VIDEO, House, house

WANT = Want(drivers=("xai",), model=VIDEO)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as built:
        await built.tokens.add(OPERATOR, "xai", Secret("xai-1"), {})
        yield built


@pytest.mark.parametrize(("kind", "id_"), [("all", ""), ("driver", "xai"), ("model", VIDEO)])
async def test_what_is_paused_waits_and_goes_on_at_once_when_it_is_resumed(here: House, kind: str, id_: str) -> None:
    await here.pauses.pause(OPERATOR, kind, id_, "the invoice")
    waiting = here.tasks.start(here.dispatcher.lease(WANT, Rank(0, 0.0)), "lease")
    await asyncio.sleep(0)
    await here.status.page()  # time for anything that would give it a slot
    assert not waiting.done()
    await here.pauses.resume(OPERATOR, kind, id_)
    async with asyncio.timeout(5):
        here.dispatcher.release(await waiting)
    assert (await here.actions())[-2:] == ["pause", "resume"]


async def test_a_models_own_name_pauses_what_it_is_upstream(here: House) -> None:
    (pause,) = await here.pauses.pause(OPERATOR, "model", "grok-imagine-0.9", "why not")
    assert pause.id == VIDEO
    assert await here.pauses.resume(OPERATOR, "model", VIDEO) == []


async def test_a_pause_is_there_for_other_processes_and_after_a_restart(here: House) -> None:
    await here.pauses.pause(OPERATOR, "driver", "xai", "the invoice")
    async with house(here.folder.root, again=True) as other:
        assert [pause.reason for pause in other.catalog.pauses] == ["the invoice"]


@pytest.mark.parametrize(("kind", "id_"), [("all", "xai"), ("driver", "telex"), ("model", "nobody"), ("driver", "")])
async def test_what_is_not_there_is_not_paused(here: House, kind: str, id_: str) -> None:
    with pytest.raises(InvalidParameter):
        await here.pauses.pause(OPERATOR, kind, id_, "a slip of the finger")


async def test_what_is_not_paused_is_not_resumed(here: House) -> None:
    with pytest.raises(Conflict):
        await here.pauses.resume(OPERATOR, "all", "")
