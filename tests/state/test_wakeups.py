"""Who waits for the end of a job, and the word that wakes them."""

from proxy.domain.jobs import Job, JobState
from proxy.domain.orders import Kind, Order
from proxy.state.wakeups import Wakeups

ENDED = Job(
    id="video-1",
    dialect="document",
    tenant_id="default",
    key_id="key_1",
    state=JobState.COMPLETED,
    order=Order(Kind.VIDEO, "model", "upstream-model", "a wave", 6, "480p"),
    body_hash=b"",
    created_at=0.0,
    deadline=900.0,
)


async def test_all_who_wait_for_a_job_are_woken_with_its_end_and_nobody_else() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("video-1") as one, wakeups.waiter("video-1") as two, wakeups.waiter("video-2") as other:
        wakeups.wake("video-1", ENDED)
        assert (await one, await two) == (ENDED, ENDED)
        assert not other.done()


async def test_a_second_word_changes_nothing() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("video-1") as woken:
        wakeups.wake("video-1")
        wakeups.wake("video-1", ENDED)
        assert await woken is None


async def test_nobody_is_remembered_who_waits_no_more() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("video-1"):
        with wakeups.waiter("video-1"), wakeups.waiter("video-2"):
            assert sorted(wakeups.awaited()) == ["video-1", "video-2"]
        assert wakeups.awaited() == ["video-1"]
    assert wakeups.awaited() == []
    wakeups.wake("video-1", ENDED)


async def test_who_was_cancelled_does_not_spoil_the_word_for_the_others() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("video-1") as leaver, wakeups.waiter("video-1") as stayer:
        leaver.cancel()
        wakeups.wake("video-1", ENDED)
        assert await stayer is ENDED
