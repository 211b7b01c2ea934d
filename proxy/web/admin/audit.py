"""`/admin/audit`: who did what, newest first."""

from typing import Any

from aiohttp import web

from proxy.domain.errors import InvalidParameter
from proxy.storage.changes import Act
from proxy.web.admin.context import AUDIT
from proxy.web.admin.requests import page
from proxy.web.routes import Audience, Route

MAX_SEQ = 2**63 - 1


async def list_audit(request: web.Request) -> web.Response:
    wanted = page(request)
    found = await request.app[AUDIT].page(read_seq(wanted.after), wanted.limit + 1)
    return wanted.cut(found, lambda line: str(line[0]), view)


def read_seq(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isdecimal() or int(after) > MAX_SEQ:
        raise InvalidParameter("cursor", "is none of ours")
    return int(after)


def view(line: tuple[int, Act]) -> dict[str, Any]:
    seq, act = line
    return {
        "seq": seq,
        "at": act.at,
        "actor": act.actor,
        "action": act.action,
        "subject": act.subject,
        "details": act.details,
    }


ROUTES = [Route("GET", "/admin/audit", list_audit, Audience.ADMIN)]
