"""An operator ends rests before their time: the rows, the pool, and those who wait for a slot."""

from collections.abc import Callable, Sequence

from proxy.domain.cooldowns import Cooldown
from proxy.services.dispatcher import Dispatcher
from proxy.state.pool import Pool
from proxy.storage import cooldowns
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each


class Rests:
    def __init__(self, database: Database, pool: Pool, dispatcher: Dispatcher, clock: Callable[[], float]) -> None:
        self._database = database
        self._pool = pool
        self._dispatcher = dispatcher
        self._clock = clock

    async def clear(self, actor: str, action: str, id_: str, rows: Sequence[Cooldown]) -> None:
        """End these rests of the token or proxy `id_`; without any, nothing is done and nothing audited."""
        if not rows:
            return
        now = self._clock()
        subjects = tuple(row.subject for row in rows)
        act = Act(now, actor, action, id_, {"causes": sorted({row.cause for row in rows})})
        await self._database.write(_CLEAR, cooldowns.Clearing(subjects, act))
        for subject in subjects:
            self._pool.clear(subject, now)
        self._dispatcher.match()


_CLEAR = each(cooldowns.clear)
