"""The route table. Every route says whom it is for: what no route allows is refused."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Audience(StrEnum):
    PUBLIC = "public"
    CLIENT = "client"  # an API key
    ADMIN = "admin"  # the admin key, or whoever may open the socket in the data folder


# An id has a prefix: /admin/tokens/import is nobody's path, and no token of that name.
ADMIN_ID = "{id:[0-9a-z]+[_-][0-9a-z_-]+}"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    audience: Audience


AUDIENCES = web.AppKey("AUDIENCES", dict[tuple[str, str], Audience])


def add(app: web.Application, routes: Iterable[Route]) -> None:
    """Add routes; a GET answers HEAD too."""
    audiences: dict[tuple[str, str], Audience] = {}
    for route in routes:
        path = route.path.replace("{id}", ADMIN_ID) if route.audience is Audience.ADMIN else route.path
        added = app.router.add_route(route.method, path, route.handler)
        canonical = added.resource.canonical if added.resource is not None else route.path
        audiences[route.method, canonical] = route.audience
        if route.method == "GET":
            app.router.add_route("HEAD", path, route.handler)
            audiences["HEAD", canonical] = route.audience
    app[AUDIENCES] = audiences


def audience_of(request: web.Request) -> Audience | None:
    """Return whom the matched route is for; None where nothing matched."""
    resource = request.match_info.route.resource
    if resource is None:
        return None
    return request.app[AUDIENCES].get((request.method, resource.canonical))
