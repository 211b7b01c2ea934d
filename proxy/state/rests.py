"""The live cooldowns, by what rests."""

from proxy.domain.cooldowns import Cooldown, Penalty, Policy, Subject, SubjectKind, is_spent, settle, succeed

Part = tuple[SubjectKind, str]  # what of a unit rests: the kind and scope of the subject
Rows = dict[Part, Cooldown]

UNIT = {  # the parts of one unit are kept together, so that a pick looks in one place
    SubjectKind.TOKEN_MODEL: SubjectKind.TOKEN,
    SubjectKind.PAIR: SubjectKind.TOKEN,
    SubjectKind.TEAM_MODEL: SubjectKind.TEAM,
    SubjectKind.PROXY_HOST: SubjectKind.PROXY,
}
SWEEP = 1024  # units with cooldowns before the first sweep


def until(rows: Rows, *parts: Part) -> float:
    """Return when the longest of these rests ends; 0 if there is none."""
    return max((rows[part].until for part in parts if part in rows), default=0.0)


class Rests:
    """Every cooldown, and the rows of each unit as a dict that stays the same object, for its user to hold."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._units: dict[tuple[SubjectKind, str], Rows] = {}
        self._marked: set[tuple[SubjectKind, str]] = set()  # units that have rows
        self._sweep_at = SWEEP

    def of(self, kind: SubjectKind, unit_id: str) -> Rows:
        return self._units.setdefault((kind, unit_id), {})

    def forget(self, kind: SubjectKind, unit_id: str) -> None:
        self._units.pop((kind, unit_id), None)
        self._marked.discard((kind, unit_id))

    def get(self, subject: Subject) -> Cooldown | None:
        return self._rows(subject).get((subject.kind, subject.scope))

    def put(self, row: Cooldown) -> None:
        """Take over a row. One that ends later than `row` stays."""
        known = self.get(row.subject)
        self._keep(row if known is None or row.until >= known.until else known)

    def penalise(self, penalty: Penalty, began_at: float, now: float, jitter: float) -> Cooldown:
        known = self.get(penalty.subject)
        row = settle(known, penalty, began_at=began_at, now=now, jitter=jitter, policy=self._policy)
        self._keep(row)
        if len(self._marked) > self._sweep_at:
            self.sweep(now)
        return row

    def succeed(self, subject: Subject, now: float) -> Cooldown | None:
        """Count one success; return the cooldown if it lost a strike by it."""
        row = self.get(subject)
        if row is None:
            return None
        better = succeed(row, now, self._policy)
        self._keep(better)
        return better if better.strikes < row.strikes else None

    def clear(self, subject: Subject) -> bool:
        """Forget one cooldown; tell whether there was one."""
        return self._rows(subject).pop((subject.kind, subject.scope), None) is not None

    def all(self, now: float) -> list[Cooldown]:
        """Return what still means something, the sweep done with it."""
        self.sweep(now)
        return [row for unit in self._marked for row in self._units[unit].values()]

    def sweep(self, now: float) -> None:
        """Forget the spent rows: a sweep for every doubling, so that its cost is spread."""
        for unit in tuple(self._marked):
            rows = self._units[unit]
            for part, row in tuple(rows.items()):
                if is_spent(row, now, self._policy):
                    del rows[part]
            if not rows:
                self._marked.discard(unit)
        self._sweep_at = max(SWEEP, 2 * len(self._marked))

    def _rows(self, subject: Subject) -> Rows:
        return self._units.get((UNIT.get(subject.kind, subject.kind), subject.id), {})

    def _keep(self, row: Cooldown) -> None:
        subject = row.subject
        unit = UNIT.get(subject.kind, subject.kind), subject.id
        self._units.setdefault(unit, {})[subject.kind, subject.scope] = row
        self._marked.add(unit)
