"""The tokens of the pool, and the indexes they are listed in."""

from collections.abc import Collection, Iterable

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.tokens import Token
from proxy.state.index import Index, Slot
from proxy.state.rests import Rests


class Roster:
    """Every token's slot, by id and by team. An index is built when its model is first asked for."""

    def __init__(self, rests: Rests) -> None:
        self._rests = rests
        self._slots: dict[str, Slot] = {}
        self._teams: dict[str, set[Slot]] = {}
        self._indexes: dict[tuple[str, str], dict[str, Index]] = {}  # driver and model, then tier
        self.enabled = 0  # how many tokens are

    def get(self, token_id: str) -> Slot | None:
        return self._slots.get(token_id)

    def team(self, team: str) -> Collection[Slot]:
        return self._teams.get(team, ())

    def put(self, token: Token, now: float) -> None:
        slot = self._slots.get(token.id)
        if slot is None:
            slot = self._slots[token.id] = Slot(token, self._rests.of(SubjectKind.TOKEN, token.id), now)
        else:
            self._unlist(slot)
            slot.become(token)
        slot.team_rests = self._rests.of(SubjectKind.TEAM, token.team) if token.team else None
        if token.team:
            self._teams.setdefault(token.team, set()).add(slot)
        if slot.is_enabled:
            self._list(slot)

    def drop(self, token_id: str) -> None:
        slot = self._slots.pop(token_id, None)
        if slot is not None:
            self._unlist(slot)
            slot.keep_to(None)
            self._rests.forget(SubjectKind.TOKEN, token_id)

    def indexes(self, drivers: Iterable[str], model: str) -> list[Index]:
        return [index for driver in drivers for index in self._tiers(driver, model).values()]

    def _tiers(self, driver: str, model: str) -> dict[str, Index]:
        tiers = self._indexes.get((driver, model))
        if tiers is not None:
            return tiers
        members: dict[str, list[Slot]] = {}
        for slot in self._slots.values():
            if slot.is_enabled and slot.token.driver == driver and slot.serves(model):
                members.setdefault(slot.token.tier, []).append(slot)
        tiers = self._indexes[driver, model] = {tier: Index(model, slots) for tier, slots in members.items()}
        for tier, index in tiers.items():
            for slot in members[tier]:
                slot.indexes.append(index)
        return tiers

    def _list(self, slot: Slot) -> None:
        self.enabled += 1
        for (driver, model), tiers in self._indexes.items():
            if driver != slot.token.driver or not slot.serves(model):
                continue
            index = tiers.get(slot.token.tier)
            if index is None:
                index = tiers[slot.token.tier] = Index(model)
            index.add(slot)
            slot.indexes.append(index)

    def _unlist(self, slot: Slot) -> None:
        if slot.is_enabled:
            self.enabled -= 1
        for index in slot.indexes:
            index.remove(slot)
        slot.indexes = []
        team = slot.token.team
        if team and team in self._teams:
            self._teams[team].discard(slot)
            if not self._teams[team]:
                del self._teams[team]
