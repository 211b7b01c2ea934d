"""Reading what an operator asks: JSON bodies by their models, query parameters, cursors."""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from proxy.domain.errors import InvalidParameter, UnsupportedMediaType
from proxy.web.bodies import body_of, json_object
from proxy.web.responses import json_response

M = TypeVar("M", bound="Body")
T = TypeVar("T")

JSON = "application/json"
MAX_PAGE = 500
PAGE = 100
ID = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
PREFIX = re.compile(r"Input |Value error, ")


class Body(BaseModel):
    """A JSON body. A field it does not know is refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that the body has, null ones included."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Change(Body):
    """A body whose fields are all optional, of which it has one at least."""


async def read(request: web.Request, model: type[M]) -> M:
    """Return the request's body. Raises `UnsupportedMediaType`, `InvalidJson`, `InvalidParameter`."""
    if request.content_type != JSON:
        raise UnsupportedMediaType
    async with body_of(request) as content:
        value = json_object(content)
    if not isinstance(value, dict):
        raise InvalidParameter("body", "must be a JSON object")
    try:
        body = model.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from None
    if isinstance(body, Change) and not body.model_fields_set:
        raise InvalidParameter("body", "names nothing to change")
    return body


async def read_optional(request: web.Request, model: type[M]) -> M:
    """Return the request's body, or an empty one where there is none. Raises as `read` does."""
    return await read(request, model) if request.can_read_body else model()


def query(request: web.Request, allowed: Collection[str]) -> dict[str, str]:
    """Return the query parameters. Raises `InvalidParameter` for an unknown one, and one that stands twice."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in allowed or name in found:
            raise InvalidParameter(name[:64], "stands twice" if name in found else "is not known here")
        found[name] = value
    return found


def flag(request: web.Request, name: str) -> bool:
    """Return a query parameter that is `true` or `false`; false where there is none. Raises `InvalidParameter`."""
    value = query(request, {name}).get(name, "false")
    if value not in ("true", "false"):
        raise InvalidParameter(name, "must be true or false")
    return value == "true"


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: what lies behind `after`. `filters` are the other query parameters."""

    after: str | None
    limit: int
    filters: dict[str, str]

    def cut(self, items: Sequence[T], place: Callable[[T], str], view: Callable[[T], Any]) -> web.Response:
        """Answer with one page of items, of which one more than `limit` was asked for."""
        shown = items[: self.limit]
        more = len(items) > self.limit
        return answer({"data": [view(item) for item in shown], "next": _cursor(place(shown[-1])) if more else None})


def page(request: web.Request, filters: Collection[str] = ()) -> Page:
    """Read `?cursor=&limit=` and the `filters`. Raises `InvalidParameter`."""
    found = query(request, {"cursor", "limit", *filters})
    cursor, limit = found.pop("cursor", None), found.pop("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,3}", limit, re.ASCII) or not 1 <= int(limit) <= MAX_PAGE:
        raise InvalidParameter("limit", f"must be a number from 1 to {MAX_PAGE}")
    return Page(None if cursor is None else _place(cursor), int(limit), found)


def answer(body: Any, status: int = 200) -> web.Response:
    """Answer an operator: nothing of it is for a cache, least of all a secret that is shown once."""
    return json_response(body, status, {"Cache-Control": "no-store"})


def _cursor(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(cursor: str) -> str:
    try:
        place = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        place = ""
    if ID.fullmatch(place) is None:
        raise InvalidParameter("cursor", "is none of ours")
    return place


def _invalid(error: ValidationError) -> InvalidParameter:
    """Return the first mistake of a body, without the value that it is about."""
    mistake = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in mistake["loc"])[:64] or "body"
    reasons = {"missing": "is required", "extra_forbidden": "is not known here"}
    return InvalidParameter(name, reasons.get(mistake["type"]) or PREFIX.sub("", mistake["msg"], count=1))
