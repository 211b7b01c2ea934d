"""The operator's brake: everything, a driver, or a model takes no new work until it is released."""

from collections.abc import Callable, Collection, Mapping

from proxy.domain.errors import Conflict, InvalidParameter
from proxy.domain.orders import Model
from proxy.services.catalog import Catalog
from proxy.storage import pauses
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.pauses import Pause, PauseChange
from proxy.storage.writer import each


class Pauses:
    """`models` are by the client's name; a pause holds the upstream's, as two names may be one model there."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        drivers: Collection[str],
        models: Mapping[str, Model],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._drivers = drivers
        self._upstream = {name: model.upstream for name, model in models.items()}
        self._clock = clock

    async def page(self) -> list[Pause]:
        """Return all there are, the oldest first."""
        return sorted(await self._database.read(pauses.load), key=lambda pause: (pause.since, pause.kind, pause.id))

    async def pause(self, actor: str, kind: str, id_: str, reason: str) -> list[Pause]:
        """Take no new work of that kind; running jobs go on. Raises `InvalidParameter`."""
        pause = Pause(kind, self._known(kind, id_), self._clock(), reason)
        return await self._change(actor, pause, True)

    async def resume(self, actor: str, kind: str, id_: str) -> list[Pause]:
        """Lift a pause; what waits goes on at once. Raises `InvalidParameter`, `Conflict` when there is none."""
        id_ = self._known(kind, id_)
        for pause in await self.page():
            if (pause.kind, pause.id) == (kind, id_):
                return await self._change(actor, pause, False)
        raise Conflict("It is not paused.")

    async def _change(self, actor: str, pause: Pause, on: bool) -> list[Pause]:
        action = "pause" if on else "resume"
        details = {"kind": pause.kind, "id": pause.id, "reason": pause.reason}
        act = Act(self._clock(), actor, action, f"{pause.kind} {pause.id}".strip()[:64], details)
        await self._database.write(_CHANGE, PauseChange(pause, on, act))
        await self._catalog.follow()
        return await self.page()

    def _known(self, kind: str, id_: str) -> str:
        """Return the id under which a pause of this is kept."""
        match kind:
            case "all" if not id_:
                return ""
            case "driver" if id_ in self._drivers:
                return id_
            case "model" if id_ in self._upstream or id_ in self._upstream.values():
                return self._upstream.get(id_, id_)
        raise InvalidParameter("id", "goes with a driver or a model" if kind == "all" else f"is no {kind} here")


_CHANGE = each(pauses.change)
