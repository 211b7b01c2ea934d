"""Answers as bytes."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer; made of bytes, as `web.json_response` costs a tenth more."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")
