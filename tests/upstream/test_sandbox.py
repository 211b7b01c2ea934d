import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import av
import pytest

from proxy.domain.classify import classify
from proxy.domain.cooldowns import Policy
from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Outcome, Step, UpstreamFailed
from proxy.domain.secret import Secret
from proxy.upstream.driver import Access, Done, Driver, Ended, Image, Running
from proxy.upstream.sandbox import KEPT_S, TICKS_PER_SECOND, SandboxDriver

ROOT = Path(__file__).parents[2]
PHOTO = Image("image/jpeg", (ROOT / "proxy" / "assets" / "photo.jpg").read_bytes())
ORDER = Order(Kind.VIDEO, "grok-imagine-0.9", "grok-imagine-video", "a cat", 1, "480p")
ACCESS = Access("tok_1", Secret("anything"), None, None)
BOUND = 60  # seconds; for a worker process to start and render, on a busy machine


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def driver(tmp_path: Path, clock: Clock) -> AsyncIterator[SandboxDriver]:
    driver = SandboxDriver(6.0, tmp_path / "sandbox", clock)
    yield driver
    await driver.close()


def asking(directive: str) -> Order:
    return replace(ORDER, prompt=f"a cat [sandbox:{directive}] in the sun")


def secret(value: str) -> Access:
    return replace(ACCESS, secret=Secret(value))


async def end_of(driver: Driver, upstream_id: str) -> Done | Ended:
    async with asyncio.timeout(BOUND):
        while True:
            look = await driver.poll(upstream_id, ACCESS)
            if not isinstance(look, Running):
                return look
            await asyncio.sleep(0.02)


async def video(driver: Driver, done: Done) -> bytes:
    async with driver.fetch(done, ACCESS) as pieces:
        return b"".join([piece async for piece in pieces])


async def refused(driver: Driver, order: Order, access: Access = ACCESS) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as failed:
        await driver.submit(order, PHOTO, access)
    return failed.value


async def outcome(driver: Driver, order: Order) -> Outcome:
    """How a submit ends, as the gateway's own rules judge it."""
    try:
        await driver.submit(order, PHOTO, ACCESS)
    except UpstreamFailed as failure:
        return classify(failure.signal, Step.SUBMIT, 0.0, Policy()).outcome
    return Outcome.OK


async def test_an_order_becomes_a_playable_video_after_the_set_time(
    driver: SandboxDriver, clock: Clock, tmp_path: Path
) -> None:
    upstream_id = await driver.submit(ORDER, PHOTO, ACCESS)
    assert await driver.poll(upstream_id, ACCESS) == Running(0)
    clock.now += 3.0
    assert await driver.poll(upstream_id, ACCESS) == Running(50)
    clock.now += 2.999
    assert await driver.poll(upstream_id, ACCESS) == Running(99)
    clock.now += 0.001
    done = await end_of(driver, upstream_id)
    assert isinstance(done, Done)
    assert (done.duration, done.cost) == (1.0, TICKS_PER_SECOND)
    (tmp_path / "got.mp4").write_bytes(await video(driver, done))
    with av.open(str(tmp_path / "got.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24


async def test_the_same_order_gives_the_same_video_and_can_be_fetched_again(
    driver: SandboxDriver, clock: Clock
) -> None:
    ids = [await driver.submit(ORDER, PHOTO, ACCESS) for _ in range(2)]
    clock.now += 6
    ends = [await end_of(driver, upstream_id) for upstream_id in ids]
    videos = [await video(driver, done) for done in [*ends, ends[0]] if isinstance(done, Done)]
    assert len(videos) == 3
    assert len(set(videos)) == 1
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("name", "judged", "cost"),
    [
        ("moderated", Outcome.MODERATED, TICKS_PER_SECOND),
        ("no-result", Outcome.NO_RESULT, TICKS_PER_SECOND),
        ("failed", Outcome.FAILED, None),
    ],
)
async def test_a_job_may_be_taken_and_end_without_a_video(
    driver: SandboxDriver, clock: Clock, name: str, judged: Outcome, cost: int | None
) -> None:
    upstream_id = await driver.submit(asking(name), PHOTO, ACCESS)
    assert isinstance(await driver.poll(upstream_id, ACCESS), Running)
    clock.now += 6
    for _ in range(2):  # a second look finds the same
        ended = await driver.poll(upstream_id, ACCESS)
        assert isinstance(ended, Ended)
        assert (ended.outcome, ended.cost) == (judged, cost)


async def test_never_is_never(driver: SandboxDriver, clock: Clock) -> None:
    upstream_id = await driver.submit(asking("never"), PHOTO, ACCESS)
    clock.now += 1_000_000
    assert await driver.poll(upstream_id, ACCESS) == Running(99)


async def test_a_row_of_days_is_used_up_by_the_submits_of_one_order(driver: SandboxDriver) -> None:
    order, other = asking("throttled, challenge,failed"), replace(asking("throttled, challenge,failed"), duration=2)
    days = [await outcome(driver, order), await outcome(driver, other), await outcome(driver, order)]
    assert days == [Outcome.THROTTLED, Outcome.THROTTLED, Outcome.CHALLENGED]
    assert [await outcome(driver, order) for _ in range(2)] == [Outcome.OK, Outcome.OK]
    assert await outcome(driver, other) == Outcome.CHALLENGED


async def test_a_prompt_may_set_the_time_beside_the_days(driver: SandboxDriver, clock: Clock) -> None:
    order = asking("seconds=100,broken,failed")
    assert await outcome(driver, order) is Outcome.BROKEN
    upstream_id = await driver.submit(order, PHOTO, ACCESS)
    clock.now += 50
    assert await driver.poll(upstream_id, ACCESS) == Running(50)
    clock.now += 50
    assert isinstance(await driver.poll(upstream_id, ACCESS), Ended)


async def test_a_refusal_is_raised_by_the_prompts_word_and_by_the_tokens(driver: SandboxDriver) -> None:
    by_prompt = await refused(driver, asking("throttled=30"))
    by_token = await refused(driver, ORDER, secret("sandbox-throttled=30"))
    assert by_prompt.signal == by_token.signal
    assert by_prompt.signal.headers["retry-after"] == "30"
    assert await outcome(driver, asking("nonsense")) is Outcome.REJECTED


async def test_a_token_with_bad_days_shows_them_when_it_is_verified_too(driver: SandboxDriver) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await driver.verify(secret("sandbox-unauthorized"))
    assert failed.value.signal.status == 401
    for innocent in ("sandbox", "sandbox-main", "sandbox-rejected", "sandbox-moderated", "sandbox-never"):
        assert not (await driver.verify(secret(innocent))).blocked


@pytest.mark.parametrize("upstream_id", ["sandbox-" + "0" * 32, "../../etc", "", "sandbox-../x"])
async def test_a_job_it_never_had_is_gone(driver: SandboxDriver, upstream_id: str) -> None:
    look = await driver.poll(upstream_id, ACCESS)
    assert isinstance(look, Ended)
    assert look.outcome is Outcome.GONE


@pytest.mark.parametrize("url", ["https://vidgen.x.ai/a.mp4", "sandbox:../../etc/passwd", "sandbox-" + "0" * 32])
async def test_it_fetches_from_no_other_address(driver: SandboxDriver, url: str) -> None:
    with pytest.raises(UpstreamFailed, match="malformed"):
        await video(driver, Done(url))


async def test_a_video_that_is_not_there_is_a_404(driver: SandboxDriver) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await video(driver, Done("sandbox:sandbox-" + "0" * 32))
    assert failed.value.signal.status == 404


async def test_a_restarted_gateway_goes_on_where_the_old_one_stopped(tmp_path: Path, clock: Clock) -> None:
    first = SandboxDriver(6.0, tmp_path, clock)
    upstream_id = await first.submit(ORDER, PHOTO, ACCESS)
    await first.close()
    clock.now += 3
    second = SandboxDriver(99.0, tmp_path, clock)
    assert await second.poll(upstream_id, ACCESS) == Running(50)
    clock.now += 3
    assert isinstance(await end_of(second, upstream_id), Done)
    await second.close()


async def test_a_machine_that_was_started_anew_starts_the_jobs_time_anew(tmp_path: Path, clock: Clock) -> None:
    first = SandboxDriver(6.0, tmp_path, clock)
    upstream_id = await first.submit(asking("failed"), PHOTO, ACCESS)
    clock.now = 10.0  # long before the job's start
    second = SandboxDriver(6.0, tmp_path, clock)
    assert await second.poll(upstream_id, ACCESS) == Running(0)
    clock.now = 16.0
    assert isinstance(await second.poll(upstream_id, ACCESS), Ended)


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.upstream.test_sandbox import ACCESS, ORDER, PHOTO, SandboxDriver

async def main():
    print(await SandboxDriver(0.0, Path(sys.argv[1])).submit(ORDER, PHOTO, ACCESS), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_job_survives_kill_9_and_no_worker_process_does(tmp_path: Path, driver: SandboxDriver) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "sandbox")]
    gateway = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout
    upstream_id = (await gateway.stdout.readline()).decode().strip()
    gateway.kill()
    async with asyncio.timeout(BOUND):  # its output ends when the last process that inherited it does: the worker
        await gateway.communicate()
    done = await end_of(driver, upstream_id)
    assert isinstance(done, Done)
    assert (await video(driver, done))[4:8] == b"ftyp"


async def test_a_worker_process_that_dies_is_replaced(driver: SandboxDriver, clock: Clock) -> None:
    first = await driver.submit(ORDER, PHOTO, ACCESS)
    assert driver._renderer
    (worker,) = driver._renderer._processes
    os.kill(worker, signal.SIGKILL)
    clock.now += 6
    assert isinstance(await end_of(driver, first), Done)
    second = await driver.submit(ORDER, PHOTO, ACCESS)
    clock.now += 6
    assert isinstance(await end_of(driver, second), Done)


async def test_an_image_that_cannot_be_rendered_fails_its_job_alone(driver: SandboxDriver, clock: Clock) -> None:
    broken = await driver.submit(ORDER, Image("image/png", b"no image"), ACCESS)
    clock.now += 6
    ended = await end_of(driver, broken)
    assert isinstance(ended, Ended)
    assert ended.outcome is Outcome.FAILED


async def test_old_jobs_are_swept_and_young_ones_kept(tmp_path: Path, clock: Clock) -> None:
    workdir = tmp_path / "sandbox"
    before = SandboxDriver(6.0, workdir, clock)
    old, young = [await before.submit(asking("never"), PHOTO, ACCESS) for _ in range(2)]
    (workdir / "not-a-job").mkdir()
    for name, age in ((old, KEPT_S + 60), (young, KEPT_S - 60), ("not-a-job", KEPT_S * 2)):
        moment = (workdir / name).stat().st_mtime - age
        os.utime(workdir / name, (moment, moment))
    newest = await SandboxDriver(6.0, workdir, clock).submit(asking("never"), PHOTO, ACCESS)
    assert {entry.name for entry in workdir.iterdir()} == {young, newest, "not-a-job"}


async def test_a_folder_that_cannot_be_written_is_a_broken_upstream(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert await outcome(SandboxDriver(6.0, tmp_path / "file" / "x"), ORDER) is Outcome.BROKEN


async def test_the_folder_is_for_the_gateway_alone(driver: SandboxDriver, tmp_path: Path) -> None:
    upstream_id = await driver.submit(asking("never"), PHOTO, ACCESS)
    assert (tmp_path / "sandbox" / upstream_id).stat().st_mode & 0o077 == 0
