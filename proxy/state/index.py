"""Tokens in the order in which they may be picked."""

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from urllib.parse import urlsplit

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.tokens import Token, TokenState
from proxy.state.proxies import Way
from proxy.state.rests import Rows, until


class Slot:
    """One token as the pool sees it: what it has in flight, since when it is idle, which way it keeps to."""

    __slots__ = (
        "doubted_at",
        "doubts",
        "host",
        "in_flight",
        "indexes",
        "last_used",
        "rests",
        "team_rests",
        "token",
        "way",
    )

    def __init__(self, token: Token, rests: Rows, now: float) -> None:
        self.rests = rests
        self.team_rests: Rows | None = None
        self.in_flight = 0
        self.last_used = now
        self.way: Way | None = None
        self.indexes: list[Index] = []
        self.doubts: tuple[str, ...] = ()  # the proxies through which a 401 came since the last success
        self.doubted_at = 0.0
        self.become(token)

    def become(self, token: Token) -> None:
        self.token = token
        # A driver has one host, so its name stands for it where the token has no address of its own.
        self.host = (urlsplit(token.base_url).hostname if token.base_url else None) or token.driver

    @property
    def is_enabled(self) -> bool:
        return self.token.state is TokenState.ENABLED

    @property
    def is_full(self) -> bool:
        return self.in_flight >= self.token.concurrency

    def serves(self, model: str) -> bool:
        return self.token.models is None or model in self.token.models

    def keep_to(self, way: Way | None) -> None:
        if self.way is not None:
            self.way.load -= 1
        if way is not None:
            way.load += 1
        self.way = way

    def rested_at(self, model: str) -> float:
        """Return the moment from which the token itself may be used for `model`: idle, and no rest of its own, of its
        team, or of it with its proxy."""
        moment = self.last_used
        if self.rests:
            pair = (SubjectKind.PAIR, self.way.key if self.way else "")
            own = until(self.rests, (SubjectKind.TOKEN, ""), (SubjectKind.TOKEN_MODEL, model), pair)
            moment = max(moment, own)
        if self.team_rests:
            team = until(self.team_rests, (SubjectKind.TEAM, ""), (SubjectKind.TEAM_MODEL, model))
            moment = max(moment, team)
        return moment


Entry = tuple[float, int, Slot]


class Index:
    """The tokens of one driver and tier that serve one model, by score: the moment from which each may be picked.

    A filed score is a lower bound. Whatever makes a token rest longer may leave it as it is, the pick corrects it;
    whatever makes it rest shorter files it anew. An entry that is no longer the filed one is skipped.
    """

    __slots__ = ("_filed", "_heap", "_number", "members", "model")

    def __init__(self, model: str, slots: Iterable[Slot] = ()) -> None:
        self.model = model
        self.members: set[Slot] = set()  # the enabled ones
        self._number = 0
        self._filed: dict[Slot, int] = {}
        self._heap: list[Entry] = []
        for slot in sorted(slots, key=lambda slot: (slot.last_used, slot.token.created_at, slot.token.id)):
            self.add(slot)

    def add(self, slot: Slot) -> None:
        self.members.add(slot)
        if not slot.is_full:
            self.file(slot, slot.rested_at(self.model))

    def remove(self, slot: Slot) -> None:
        self.members.discard(slot)
        self.strike(slot)

    def __contains__(self, slot: Slot) -> bool:
        return slot in self._filed

    def file(self, slot: Slot, score: float) -> None:
        self._number = number = self._number + 1
        self._filed[slot] = number
        heappush(self._heap, (score, number, slot))
        if len(self._heap) > 2 * len(self._filed) + 64:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapify(self._heap)

    def first(self) -> Entry | None:
        """Return the entry with the lowest score."""
        heap = self._heap
        while heap and not self._is_current(heap[0]):
            heappop(heap)
        return heap[0] if heap else None

    def pop(self) -> Entry:
        """Take the first entry off the heap, its filing left: `push` puts it back."""
        return heappop(self._heap)

    def push(self, entry: Entry) -> None:
        heappush(self._heap, entry)

    def strike(self, slot: Slot) -> None:
        """Take a token out. Its entry is skipped when it comes up."""
        self._filed.pop(slot, None)

    def has_full(self, excluded: Collection[str]) -> bool:
        """Tell whether some member is full and not one of `excluded`."""
        full = len(self.members) - len(self._filed)
        if full and excluded:
            full -= sum(slot.token.id in excluded for slot in self.members if slot not in self._filed)
        return full > 0

    def score(self, slot: Slot) -> None:
        """File a token anew after something of it healed."""
        if slot in self._filed:
            self.file(slot, slot.rested_at(self.model))

    def _is_current(self, entry: Entry) -> bool:
        return self._filed.get(entry[2]) == entry[1]
