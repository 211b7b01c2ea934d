"""What is looked up in memory follows the rows, whoever changed them."""

import asyncio
from pathlib import Path

from tests.crash import books
from tests.gateway import Running, running, until


async def test_changes_made_at_once_are_all_in_force_when_they_are_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:

        async def make_and_use(number: int) -> int:
            key = await gateway.api.key(name=f"key {number}")
            return (await gateway.api.video(key, "video-nothing")).status

        assert await asyncio.gather(*(make_and_use(number) for number in range(40))) == [404] * 40


async def test_looks_at_the_same_time_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        catalog = gateway.gateway._catalog
        for _ in range(10):
            await gateway.api.key()
            await asyncio.gather(*(catalog.follow() for _ in range(20)))


async def test_a_change_by_another_process_is_in_force_within_a_second(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        key = await gateway.api.key()
        assert (await gateway.api.video(key, "video-nothing")).status == 404
        with books.database(tmp_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE keys SET revoked_at = 1.0")
            connection.execute("INSERT INTO changes (kind, id) SELECT 'key', id FROM keys")
            connection.execute("COMMIT")
        await until(lambda: is_refused(gateway, key), within=1.0)


async def is_refused(gateway: Running, key: str) -> bool:
    return (await gateway.api.video(key, "video-nothing")).status == 401
