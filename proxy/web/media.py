"""Kept files by signed link: `/media/{file}.mp4?exp=…&kid=…&sig=…`. No key is needed, the signature speaks."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from proxy.domain.errors import InvalidParameter, NotFound, PermissionDenied
from proxy.domain.jobs import File
from proxy.domain.signing import Link, is_signed, key_id, read_expiry, sign
from proxy.storage.media import MediaStore
from proxy.web.context import CLOCK, GENERATIONS, OPTIONS
from proxy.web.routes import Audience, Route
from proxy.web.server import reset

EXTENSIONS = {"video/mp4": ".mp4", "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
PARAMETERS = ("exp", "kid", "sig")


@dataclass(frozen=True, slots=True)
class Links:
    """Makes links to files; `public_url` is the gateway's own address, never the Host header."""

    public_url: str
    key: bytes
    lifetime: float  # seconds
    clock: Callable[[], float]
    store: MediaStore

    def link(self, file_id: str, tenant_id: str, media_type: str = "video/mp4") -> str:
        expires = int(self.clock() + self.lifetime)
        signature = sign(self.key, Link(file_id, tenant_id, expires))
        name = file_id + EXTENSIONS[media_type]
        return f"{self.public_url}/media/{name}?exp={expires}&kid={key_id(self.key)}&sig={signature}"


LINKS = web.AppKey("LINKS", Links)


class Download(web.FileResponse):
    """A file that its client must take within `seconds`; a link needs no key, and a file sent is a file held open."""

    def __init__(self, path: Path, headers: Mapping[str, str], seconds: float) -> None:
        super().__init__(path, headers=headers)
        self._seconds = seconds

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            async with asyncio.timeout(self._seconds):
                return await super().prepare(request)
        except TimeoutError:
            reset(request)
            raise ConnectionResetError("the client reads too slowly") from None


async def get_media(request: web.Request) -> web.StreamResponse:
    """Answer with the file: ranges, HEAD and conditional requests as RFC 9110 has them."""
    links = request.app[LINKS]
    values = [_parameter(request, name) for name in PARAMETERS]
    file_id, _, extension = request.match_info["name"].partition(".")
    file = await request.app[GENERATIONS].file(file_id)
    if file is None or EXTENSIONS.get(file.media_type) != "." + extension:
        raise NotFound
    expires, (_, kid, signature) = read_expiry(values[0]), values
    if expires is None or kid != key_id(links.key):
        raise PermissionDenied
    if not is_signed(links.key, Link(file.id, file.tenant_id, expires), signature, request.app[CLOCK]()):
        raise PermissionDenied
    path = links.store.path(file.id)
    if not path.is_file():
        raise NotFound
    options = request.app[OPTIONS]
    seconds = options.body_grace + file.size / options.body_rate
    return Download(path, _headers(file, expires, extension), seconds)


def _parameter(request: web.Request, name: str) -> str:
    """Return the one value of a query parameter. Raises `InvalidParameter`."""
    values = request.query.getall(name, [])
    if len(values) != 1:
        raise InvalidParameter(name, "must be there once")
    return values[0]


def _headers(file: File, expires: int, extension: str) -> dict[str, str]:
    return {
        hdrs.CONTENT_TYPE: file.media_type,
        hdrs.CONTENT_DISPOSITION: f'inline; filename="{file.work_id}.{extension}"',
        hdrs.EXPIRES: formatdate(expires, usegmt=True),
        hdrs.CACHE_CONTROL: "private, immutable",
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: "Content-Length, Content-Range, Accept-Ranges, ETag",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'",
    }


ROUTES = [Route("GET", "/media/{name}", get_media, Audience.PUBLIC)]
