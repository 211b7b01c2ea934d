"""What the operator asks of the attempts and the charges."""

from sqlalchemy import Connection, func, select

from proxy.domain.outcomes import Outcome
from proxy.storage.jobs import Money
from proxy.storage.schema import attempts, charges


def under_way(connection: Connection, token_id: str) -> int:
    """Return how many attempts of a token the upstream may still be at work on."""
    query = select(func.count()).where(attempts.c.token_id == token_id, attempts.c.ended_at.is_(None))
    return int(connection.execute(query).scalar_one())


def lost_since(connection: Connection, moment: float) -> list[str]:
    """Return the works with a submit since `moment` whose answer was lost: the upstream may have taken them."""
    query = select(attempts.c.work_id).where(attempts.c.outcome == Outcome.LOST, attempts.c.started_at > moment)
    return list(connection.execute(query.order_by(attempts.c.started_at)).scalars())


def money_of(connection: Connection, work_id: str) -> Money | None:
    """Return what a work has cost and was charged, once it was."""
    row = connection.execute(select(charges).where(charges.c.work_id == work_id)).one_or_none()
    return None if row is None else Money(row.cost, row.charge)
