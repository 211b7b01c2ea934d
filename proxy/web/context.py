"""What handlers find on the application and on the request, by typed keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from proxy.domain.errors import GatewayError
from proxy.domain.keys import Key
from proxy.domain.orders import Model
from proxy.services.access import Gatekeeper
from proxy.services.generations import Generations
from proxy.services.metrics import Metrics
from proxy.web.messages import Language


@dataclass(frozen=True, slots=True)
class WebOptions:
    """What the HTTP floor needs of the settings."""

    language: Language
    wait: float  # seconds a synchronous request is answered within
    max_body: int  # bytes
    body_grace: float  # seconds before the rate of a body counts
    body_rate: int  # bytes a second a body must come at


OPTIONS = web.AppKey("OPTIONS", WebOptions)
GENERATIONS = web.AppKey("GENERATIONS", Generations)
GATEKEEPER = web.AppKey("GATEKEEPER", Gatekeeper)
MODELS: web.AppKey[Mapping[str, Model]] = web.AppKey("MODELS")  # by the client's name; the first is the default
READY: web.AppKey[Callable[[], None]] = web.AppKey("READY")  # raises what keeps the gateway from taking work
METRICS = web.AppKey("METRICS", Metrics)
CLOCK: web.AppKey[Callable[[], float]] = web.AppKey("CLOCK")
ENTROPY: web.AppKey[Callable[[int], bytes]] = web.AppKey("ENTROPY")

CALLER = web.RequestKey("CALLER", Key)
ACTOR = web.RequestKey("ACTOR", str)  # who acts on the admin API, for the audit
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
REFUSAL = web.RequestKey("REFUSAL", GatewayError)  # why the request failed, for its line in the log
