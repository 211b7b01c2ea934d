"""How a rest looks to the operator."""

from typing import Any

from proxy.domain.cooldowns import Cooldown


def view(cooldown: Cooldown) -> dict[str, Any]:
    return {
        "kind": cooldown.subject.kind,
        "id": cooldown.subject.id,
        "scope": cooldown.subject.scope,
        "cause": cooldown.cause,
        "evidence": cooldown.evidence,
        "since": cooldown.since,
        "until": cooldown.until,
        "strikes": cooldown.strikes,
        "attempt_id": cooldown.attempt_id,
    }
