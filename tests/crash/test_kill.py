"""`kill -9` at every named step between acceptance and answer: no job is lost, none is paid twice."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.crash import books
from tests.crash.clients import Client
from tests.crash.processes import KILLED, DiedAtStart, Processes
from tests.gateway import Api, until
from tests.upstream.xai_script import Hang, mp4
from tests.upstream.xai_server import XaiServer

MIB = 1024 * 1024
STEPS = (
    "synced",
    "renamed",
    "accepted",
    "claimed",
    "leased",
    "sending",
    "submit_answered",
    "submitted",
    "polled",
    "downloading",
    "kept",
    "finished",
    "answered",
)
INSIDE_SUBMIT = ("sending", "submit_answered")


async def furnish(api: Api, clients: list[Client]) -> None:
    """Put tokens into the pool, and give the clients a key."""
    for number in range(2):
        await api.token(f"xai-{number}", concurrency=2)
    key = await api.key()
    for client in clients:
        client.key = key


async def rest(api: Api) -> None:
    """Wait until no token has anything in flight."""

    async def idle() -> bool:
        return all(token["in_flight"] == 0 for token in (await api.admin("GET", "/tokens"))["data"])

    await until(idle)


async def live(
    gateways: Processes, folder: Path, lives: list[tuple[str | None, int]], clients: list[Client], **options: Any
) -> None:
    """Let the clients have their orders done by a gateway that dies at each `(step, nth)` in turn; None: it lives."""
    for step, nth in lives:
        try:
            async with gateways.running(folder, step=step, nth=nth, **options) as process:
                if not clients[0].key:
                    await furnish(process.api, clients)
                await asyncio.gather(*(client.live(process.api) for client in clients))
                if step is None:
                    await rest(process.api)
                elif not all(client.result for client in clients):
                    assert await process.ended() == KILLED
        except DiedAtStart as death:
            if step is None or death.status != KILLED:
                raise


@pytest.mark.parametrize("step", STEPS)
async def test_one_order_survives_a_kill(step: str, tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=0.05, result=mp4(2 * MIB)) as xai:
        client = Client("one order")
        await live(gateways, tmp_path, [(step, 1), (None, 1)], [client], upstream__xai__base_url=xai.base_url)
        accepted = [call for call in xai.calls("submit") if call.request_id]
        assert client.error == ("submit_ambiguous" if step in INSIDE_SUBMIT else None)
        assert len(accepted) == (0 if step == "sending" else 1)
        books.audit(tmp_path, xai)


@pytest.mark.parametrize("step", STEPS)
async def test_orders_at_the_same_time_survive_kills(step: str, tmp_path: Path, gateways: Processes) -> None:
    """The second life ends by a kill too, somewhere on the way back; where it does not come there, it ends well."""

    async def seeded(seed: int) -> None:
        dice = random.Random(f"{step} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        clients = [Client(f"order {number}", is_async=dice.random() < 0.3) for number in range(dice.randint(2, 5))]
        nth = 1 if step == "claimed" else dice.randint(1, len(clients))
        lives = [(step, nth), (dice.choice(STEPS), dice.randint(1, 3)), (None, 1)]
        async with XaiServer(seconds=dice.uniform(0.0, 0.15), result=mp4(dice.randint(MIB, 3 * MIB))) as xai:
            await live(gateways, folder, lives, clients, upstream__xai__base_url=xai.base_url)
            assert all(client.error in (None, "submit_ambiguous") for client in clients)
            ended = books.audit(folder, xai).states()
            assert ended["completed"] + ended["submit_ambiguous"] == len(clients)

    await asyncio.gather(*(seeded(seed) for seed in (1, 2)))


async def test_orders_whose_submit_has_no_answer_yet_are_not_sent_again(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=0.0) as xai:
        clients = [Client(f"order {number}", is_async=number == 3) for number in range(4)]
        await killed_inside_submits(gateways, tmp_path, xai, clients)
        await live(gateways, tmp_path, [(None, 1)], clients, upstream__xai__base_url=xai.base_url)
        assert [client.error for client in clients] == ["submit_ambiguous"] * 4
        assert len(xai.calls("submit")) == 4
        books.audit(tmp_path, xai)


async def test_a_lost_submit_is_sent_once_more_where_the_setting_says_so(tmp_path: Path, gateways: Processes) -> None:
    async with XaiServer(seconds=0.0) as xai:
        clients = [Client(f"order {number}", is_async=number == 3) for number in range(4)]
        options: dict[str, Any] = {"upstream__xai__base_url": xai.base_url, "jobs__on_ambiguous": "resubmit_once"}
        await killed_inside_submits(gateways, tmp_path, xai, clients)
        xai.script("submit", Hang(accepted=True))  # one of them is lost a second time
        async with gateways.running(tmp_path, **options) as process:
            retries = asyncio.gather(*(client.live(process.api) for client in clients))
            await xai.called("submit", 8)
            await until(lambda: all_but(1, clients))
            process.send(signal.SIGKILL)
            await retries
        await live(gateways, tmp_path, [(None, 1)], clients, **options)
        assert sorted(str(client.error) for client in clients) == ["None", "None", "None", "submit_ambiguous"]
        assert Counter(call.body["prompt"] for call in xai.calls("submit")) == {client.prompt: 2 for client in clients}
        books.audit(tmp_path, xai, submits=2)


async def killed_inside_submits(gateways: Processes, folder: Path, xai: XaiServer, clients: list[Client]) -> None:
    """Kill a gateway when all orders have been taken by the upstream and none of its answers has come."""
    for _ in clients:
        xai.script("submit", Hang(accepted=True))
    async with gateways.running(folder, upstream__xai__base_url=xai.base_url) as process:
        await furnish(process.api, clients)
        orders = asyncio.gather(*(client.live(process.api) for client in clients))
        await xai.called("submit", len(clients))
        await until(lambda: all_accepted(xai, len(clients)))
        process.send(signal.SIGKILL)
        await orders


async def all_accepted(xai: XaiServer, count: int) -> bool:
    return sum(call.request_id is not None for call in xai.calls("submit")) == count


async def all_but(count: int, clients: list[Client]) -> bool:
    return sum(not client.result for client in clients) == count
