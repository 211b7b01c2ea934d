import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from proxy.services.image_decoding import ImageLimits
from proxy.services.images import ImageChecker
from tests.services.image_cases import PHOTO, ROOT, cause, worker_of

BOUND = 30  # seconds


@pytest.fixture
async def checker() -> AsyncIterator[ImageChecker]:
    checker = ImageChecker()
    yield checker
    await checker.close()


async def test_a_decoder_that_hangs_costs_its_own_request_alone() -> None:
    checker = ImageChecker(ImageLimits(seconds=0.5), workers=1)
    await checker.start()
    stuck = worker_of(checker)
    os.kill(stuck, signal.SIGSTOP)
    assert "0.5 s" in await cause(checker, PHOTO)
    assert (await checker.check(PHOTO)).content == PHOTO
    assert worker_of(checker) != stuck
    await checker.close()


async def test_a_decoder_that_hangs_before_it_has_read_the_image_is_ended_too() -> None:
    checker = ImageChecker(ImageLimits(seconds=0.5), workers=1)
    await checker.start()
    os.kill(worker_of(checker), signal.SIGSTOP)
    assert "0.5 s" in await cause(checker, PHOTO + bytes(8_000_000))  # more than a pipe holds
    await checker.close()


async def test_a_decoder_that_crashes_costs_its_own_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = ImageChecker(workers=1)
    (decoder,) = checker._decoders
    pipe, process = decoder.start()
    process.kill()
    process.join()
    with monkeypatch.context() as patch:  # it was alive when it was last looked at
        patch.setattr(decoder, "start", lambda: (pipe, process))
        assert "died" in await cause(checker, PHOTO)
    assert (await checker.check(PHOTO)).content == PHOTO
    await checker.close()


async def test_a_decoder_that_died_idle_costs_nobody_anything() -> None:
    checker = ImageChecker(workers=1)
    await checker.start()
    idle = checker._decoders[0]._process
    assert idle
    idle.kill()
    idle.join()
    assert (await checker.check(PHOTO)).content == PHOTO
    await checker.close()


async def test_while_one_decoder_hangs_the_other_works() -> None:
    checker = ImageChecker(ImageLimits(seconds=BOUND), workers=2)
    await checker.start()
    stuck = worker_of(checker)
    os.kill(stuck, signal.SIGSTOP)
    waiting = asyncio.ensure_future(checker.check(PHOTO))
    await asyncio.sleep(0)  # it goes first, and takes the decoder that was used last
    for _ in range(3):
        assert (await checker.check(PHOTO)).content == PHOTO
    assert not waiting.done()
    os.kill(stuck, signal.SIGCONT)
    assert (await waiting).content == PHOTO
    await checker.close()


async def test_no_process_is_left_behind() -> None:
    checker = ImageChecker()
    await asyncio.gather(*(checker.check(PHOTO) for _ in range(8)))
    pids = [decoder._process.pid for decoder in checker._decoders if decoder._process]
    assert pids
    await checker.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)


KILLED = """
import asyncio
from proxy.services.images import ImageChecker

async def main():
    await ImageChecker().start()
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_process_does_not_outlive_a_killed_gateway() -> None:
    command = [sys.executable, "-c", KILLED]
    gateway = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout
    assert await gateway.stdout.readline() == b"started\n"
    gateway.kill()
    async with asyncio.timeout(BOUND):  # its output ends when the last process that inherited it does
        await gateway.communicate()


async def test_the_event_loop_runs_on_while_images_are_decoded(checker: ImageChecker) -> None:
    await checker.start()
    checks = asyncio.gather(*(checker.check(PHOTO) for _ in range(200)))
    longest, last = 0.0, time.monotonic()
    while not checks.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert len(await checks) == 200
    assert longest < 0.25
