"""Who gets the next slot: the first in rank of those it serves."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest

from proxy.domain.cooldowns import Cause, Cooldown, Policy, Subject, SubjectKind
from proxy.domain.tokens import Token, TokenState
from proxy.services.dispatcher import FULL, Dispatcher, NothingServes, Rank
from proxy.state.leases import Lease, Want
from proxy.state.pool import Pool
from proxy.storage.pauses import Pause

WANT = Want(drivers=("xai",), model="grok-imagine-video")
OTHER = Want(drivers=("xai",), model="grok-imagine-video-1.5")
SOON = 5.0  # seconds, at most


class House:
    """A dispatcher over a pool of real rules, in real time."""

    def __init__(self, tokens: int = 1, concurrency: int = 1) -> None:
        self.pool = Pool(Policy(), lambda: 0.5)
        self.pauses: list[Pause] = []
        self.dispatcher = Dispatcher(self.pool, time.monotonic, lambda: self.pauses)
        self.tokens = [Token(f"tok_{number}", "test", "xai", concurrency=concurrency) for number in range(tokens)]
        for token in self.tokens:
            self.put(token)
        self.served: list[str] = []

    def put(self, token: Token) -> None:
        self.pool.put_token(token, time.monotonic())

    def rest(self, token_id: str, seconds: float) -> None:
        now = time.monotonic()
        self.pool.rest(Cooldown(Subject(SubjectKind.TOKEN, token_id), now + seconds, now, 1, Cause.OPERATOR))

    def pause(self, kind: str, id_: str = "") -> None:
        self.pauses.append(Pause(kind, id_, 0.0, "test"))

    async def wait(self, name: str, rank: float, want: Want = WANT, priority: int = 0) -> Lease:
        lease = await self.dispatcher.lease(want, Rank(priority, rank))
        self.served.append(name)
        return lease

    async def queue(self, *names: str, ranks: list[float], want: Want = WANT) -> "list[asyncio.Task[Lease]]":
        """Let some begin to wait, in this order."""
        tasks = [asyncio.ensure_future(self.wait(name, rank, want)) for name, rank in zip(names, ranks, strict=True)]
        await asyncio.sleep(0)
        return tasks


async def settled() -> None:
    """Let those who were woken run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_go_by_rank_and_not_by_arrival() -> None:
    house = House()
    held = await house.wait("first", 0.0)
    waiting = await house.queue("c", "a", "b", ranks=[3.0, 1.0, 2.0])
    for task in (waiting[1], waiting[2], waiting[0]):
        house.dispatcher.release(held)
        held = await asyncio.wait_for(task, SOON)
    assert house.served == ["first", "a", "b", "c"]
    assert house.dispatcher.waiting == 0


async def test_equal_ranks_are_served_in_the_order_of_arrival_and_a_priority_before_all() -> None:
    house = House()
    held = await house.wait("first", 0.0)
    waiting = await house.queue("a", "b", ranks=[7.0, 7.0])
    urgent = asyncio.ensure_future(house.wait("urgent", 99.0, priority=-1))
    await settled()
    for task in (urgent, *waiting):
        house.dispatcher.release(held)
        held = await asyncio.wait_for(task, SOON)
    assert house.served == ["first", "urgent", "a", "b"]


async def test_of_several_lines_the_first_in_rank_is_served_for_each_slot() -> None:
    """Two slots come free at once: the heads of two lines have them, not the first two of one line."""
    house = House(concurrency=2)
    held = [await house.wait("x", 0.0), await house.wait("y", 0.0)]
    await house.queue("a1", "a5", ranks=[1.0, 5.0])
    await house.queue("b2", "b3", ranks=[2.0, 3.0], want=OTHER)
    house.pool.release(held[0], time.monotonic())
    house.dispatcher.release(held[1])
    await settled()
    assert house.served == ["x", "y", "a1", "b2"]


async def test_a_line_that_nothing_serves_now_does_not_hold_up_the_others() -> None:
    house = House()
    house.put(replace(house.tokens[0], models=("grok-imagine-video",)))
    (stuck,) = await house.queue("stuck", ranks=[1.0], want=OTHER)
    lease = await asyncio.wait_for(house.wait("served", 2.0), SOON)
    assert (house.served, stuck.done()) == (["served"], False)
    house.dispatcher.release(lease)
    house.put(house.tokens[0])
    house.dispatcher.match()
    await asyncio.wait_for(stuck, SOON)


async def test_who_left_is_passed_over() -> None:
    house = House()
    held = await house.wait("first", 0.0)
    leaver, stayer = await house.queue("leaver", "stayer", ranks=[1.0, 2.0])
    leaver.cancel()
    await settled()
    assert house.dispatcher.waiting == 1
    house.dispatcher.release(held)
    await asyncio.wait_for(stayer, SOON)


async def test_a_slot_given_to_one_who_leaves_at_that_moment_is_given_on() -> None:
    house = House()
    held = await house.wait("first", 0.0)
    leaver, stayer = await house.queue("leaver", "stayer", ranks=[1.0, 2.0])
    house.dispatcher.release(held)  # it is the leaver's now, who has not been woken yet
    leaver.cancel()
    await asyncio.wait_for(stayer, SOON)
    assert house.served == ["first", "stayer"]
    assert house.pool.token_view("tok_0", time.monotonic()).in_flight == 1


async def test_the_end_of_a_rest_wakes_the_queue() -> None:
    house = House()
    house.rest("tok_0", 0.05)
    began = time.monotonic()
    await asyncio.wait_for(house.wait("a", 1.0), SOON)
    assert 0.05 <= time.monotonic() - began < 1.0


async def test_a_retry_is_told_when_no_enabled_token_may_take_it() -> None:
    house = House(tokens=2)
    retry = replace(WANT, excluded_tokens=frozenset({"tok_0", "tok_1"}))
    with pytest.raises(NothingServes):
        await asyncio.wait_for(house.wait("retry", 1.0, retry), SOON)
    one_left = replace(WANT, excluded_tokens=frozenset({"tok_0"}))
    held = await asyncio.wait_for(house.wait("retry", 1.0, one_left), SOON)
    assert held.token_id == "tok_1"
    (waiting,) = await house.queue("waits", ranks=[1.0], want=one_left)  # it is full, not gone
    assert not waiting.done()
    house.put(replace(house.tokens[1], state=TokenState.DISABLED))
    house.dispatcher.match()
    with pytest.raises(NothingServes):
        await asyncio.wait_for(waiting, SOON)


async def test_an_order_that_was_not_tried_waits_for_a_token() -> None:
    house = House(tokens=0)
    assert house.dispatcher.outlook(WANT) is None
    (waiting,) = await house.queue("a", ranks=[1.0])
    assert not waiting.done()
    house.put(Token("tok_new", "test", "xai"))
    house.dispatcher.match()
    assert (await asyncio.wait_for(waiting, SOON)).token_id == "tok_new"


@pytest.mark.parametrize(("kind", "id_"), [("all", ""), ("driver", "xai"), ("model", "grok-imagine-video")])
async def test_what_is_paused_waits_and_goes_on_when_it_is_resumed(kind: str, id_: str) -> None:
    house = House()
    house.pause(kind, id_)
    (waiting,) = await house.queue("a", ranks=[1.0])
    assert not waiting.done()
    house.pauses.clear()
    house.dispatcher.match()
    await asyncio.wait_for(waiting, SOON)


async def test_a_pause_of_something_else_holds_nobody_up() -> None:
    house = House()
    house.pause("driver", "sandbox")
    house.pause("model", OTHER.model)
    await asyncio.wait_for(house.wait("a", 1.0), SOON)


async def test_the_outlook_says_when_a_slot_may_be_free() -> None:
    house = House()
    assert house.dispatcher.outlook(WANT) == 0
    lease = await house.wait("a", 1.0)
    assert house.dispatcher.outlook(WANT) == FULL
    house.dispatcher.release(lease)
    house.rest("tok_0", 100.0)
    assert house.dispatcher.outlook(WANT) == pytest.approx(100.0, abs=1.0)


async def test_the_token_that_is_idle_longest_comes_next_and_none_beyond_its_concurrency() -> None:
    house = House(tokens=5, concurrency=2)
    running: list[Lease] = []
    for number in range(50):
        if len(running) == 10:
            house.dispatcher.release(running.pop(0))
        running.append(await asyncio.wait_for(house.wait(str(number), float(number)), SOON))
        now = time.monotonic()
        assert max(house.pool.token_view(token.id, now).in_flight for token in house.tokens) <= 2
    assert Counter(lease.token_id for lease in running) == {token.id: 2 for token in house.tokens}
