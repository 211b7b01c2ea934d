"""An upstream credential in the pool."""

from dataclasses import dataclass
from enum import StrEnum


class TokenState(StrEnum):
    """What the operator (or a confirmed fact) decided; whether an enabled token rests is the pool's to say."""

    ENABLED = "enabled"
    DISABLED = "disabled"  # takes no new work, finishes its own
    REMOVED = "removed"  # kept for the attempts that name it


@dataclass(frozen=True, slots=True)
class Token:
    """One upstream credential, without its secret."""

    id: str
    name: str
    driver: str
    state: TokenState = TokenState.ENABLED
    concurrency: int = 1
    tier: str = "default"
    team: str | None = None
    base_url: str | None = None  # another gateway can be a token too
    proxy_id: str | None = None  # pinned by the operator; None: the pool assigns one and keeps it
    models: tuple[str, ...] | None = None  # upstream models it serves; None: whatever its driver serves
    disabled_cause: str | None = None
    created_at: float = 0.0
