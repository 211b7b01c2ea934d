"""`/healthz` (the process lives), `/readyz` (it takes work), `/metrics` (Prometheus)."""

from aiohttp import web

from proxy.domain.errors import GatewayError
from proxy.services.metrics import Metrics
from proxy.web.context import METRICS, READY
from proxy.web.responses import json_response
from proxy.web.routes import Audience, Route

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


async def get_health(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


async def get_ready(request: web.Request) -> web.Response:
    """503 while the gateway stops, or its disk is full."""
    try:
        request.app[READY]()
    except GatewayError as error:
        return json_response({"status": "not ready", "reason": error.code}, 503)
    return json_response({"status": "ready"})


async def get_metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[METRICS].render(), headers={"Content-Type": EXPOSITION})


def metrics_application(metrics: Metrics) -> web.Application:
    """Return what answers on `server.metrics_port`: /metrics, without a key."""
    app = web.Application()
    app[METRICS] = metrics
    app.router.add_get("/metrics", get_metrics)
    return app


ROUTES = [
    Route("GET", "/healthz", get_health, Audience.PUBLIC),
    Route("GET", "/readyz", get_ready, Audience.PUBLIC),
    Route("GET", "/metrics", get_metrics, Audience.ADMIN),
]
