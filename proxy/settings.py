"""The settings: every section of `config.toml`, in its order, with every option, its type, bounds and default.

What an option does stands in the file. Durations are in seconds, sizes in bytes, prices in ticks.
"""

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, create_model, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from proxy.domain.cooldowns import Policy
from proxy.domain.keys import KeyLimits
from proxy.domain.money import Price
from proxy.domain.orders import MAX_DURATION, MIN_DURATION, Kind, Model
from proxy.options import (
    AccessKey,
    AspectRatio,
    Count,
    CountOrNone,
    GiB,
    KiB,
    MiB,
    Networks,
    Port,
    PortOrNone,
    ProxyUrl,
    Resolution,
    Seconds,
    Section,
    Size,
    Ticks,
    Url,
    is_loopback,
)

PREFIX = "GROKPOOL_"


class Server(Section):
    host: str = "127.0.0.1"
    port: PortOrNone = 8001
    public_url: Url | None = Field(default=None, validate_default=True)
    wait: Seconds = 110
    drain: Seconds = 30
    max_body: Size = 15 * MiB
    body_memory: Size = 256 * MiB
    body_grace: Seconds = 10
    body_rate: Size = 32 * KiB
    max_connections: Count = 20_000
    keepalive: Seconds = 15
    language: Literal["zh", "en"] = "zh"
    loop: Literal["auto", "asyncio", "uvloop"] = "auto"
    metrics_port: PortOrNone = 0

    @field_validator("public_url")
    @classmethod
    def know_the_public_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        host = info.data.get("host")
        if value is None and host is not None and not is_loopback(host):
            raise ValueError("is required where server.host is not a loopback address: links to videos begin with it")
        return value

    def url(self, port: int | None = None) -> str:
        """Return the public URL, without a slash at its end; `port` is the one really bound, where it was 0."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{port or self.port}"


class Log(Section):
    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = False


class Jobs(Section):
    deadline: Seconds = 900
    dedupe_window: Seconds = 600
    idempotency_window: Seconds = 86_400
    on_ambiguous: Literal["fail", "resubmit_once"] = "fail"
    max_in_flight: Count = 10_000


class Queue(Section):
    max_wait: Seconds = 600
    max_length: Count = 10_000


class Limits(Section):
    requests_per_minute: CountOrNone = 60
    concurrency: CountOrNone = 10

    def of_new_keys(self) -> KeyLimits:
        return KeyLimits(self.requests_per_minute, self.concurrency)


class Media(Section):
    url_lifetime: Annotated[float, Field(gt=0, le=86_400)] = 86_400
    retention: Seconds = 7 * 86_400
    min_free: Size = GiB


class Images(Section):
    max_size: Size = 10 * MiB
    max_pixels: Count = 40_000_000
    max_side: Count = 16_384
    max_frames: Count = 200
    decode_timeout: Seconds = 5
    decode_memory: Size = 768 * MiB


class Fetch(Section):
    proxy: ProxyUrl | None = None
    allow_networks: Networks = ()
    allow_ports: tuple[Port, ...] = (80, 443)
    timeout: Seconds = 20
    connect_timeout: Seconds = 5
    read_timeout: Seconds = 5
    resolve_timeout: Seconds = 3
    max_redirects: Annotated[int, Field(ge=0)] = 3


class Xai(Section):
    base_url: Url = "https://api.x.ai/v1"
    media_hosts: tuple[str, ...] = ("vidgen.x.ai", "imgen.x.ai")
    concurrency: Count = 1
    poll_min: Seconds = 0.5
    poll_max: Seconds = 10
    connect_timeout: Seconds = 15
    answer_timeout: Seconds = 120
    idle_timeout: Seconds = 30
    download_timeout: Seconds = 180
    ca_file: Path | None = None

    @field_validator("poll_max")
    @classmethod
    def order_the_bounds(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("poll_min", value):
            raise ValueError("must not be less than upstream.xai.poll_min")
        return value


class Sandbox(Section):
    seconds: Annotated[float, Field(ge=0)] = 5
    concurrency: Count = 10


class Upstream(Section):
    xai: Xai = Xai()
    sandbox: Sandbox = Sandbox()


SHARES = ("told_jitter", "ladder_jitter", "unexplained_token_others")
POLICY: dict[str, Any] = {
    rule.name: (Annotated[rule.type, Field(ge=0, le=1 if rule.name in SHARES else None)], rule.default)
    for rule in fields(Policy)
}
PolicyOptions = create_model("PolicyOptions", __base__=Section, **POLICY)


def read_policy(value: object) -> object:
    """Return the pool's rules with the options of the table `value` in place of their defaults."""
    return Policy(**dict(PolicyOptions.model_validate(value))) if isinstance(value, dict) else value


class ModelOptions(Section):
    kind: Kind = Kind.VIDEO
    upstream: Annotated[str, Field(min_length=1)]
    duration: Annotated[int, Field(ge=MIN_DURATION, le=MAX_DURATION)] = 6
    resolution: Resolution = "480p"
    aspect_ratio: AspectRatio | None = None


class PriceOptions(Section):
    per_second: dict[Resolution, Ticks]
    per_image: Ticks = 0
    multiplier: Annotated[Decimal, Field(ge=0)] = Decimal(1)


class Proxies(Section):
    exit_check_url: Url = "https://www.cloudflare.com/cdn-cgi/trace"


MODELS: dict[str, dict[str, Any]] = {
    "grok-imagine-0.9": {"upstream": "grok-imagine-video"},
    "grok-imagine-video": {"upstream": "grok-imagine-video", "duration": 8},
    "grok-imagine-video-1.5": {"upstream": "grok-imagine-video-1.5", "duration": 8},
    "grok-imagine-video-1.5-lite": {"upstream": "grok-imagine-video-1.5-lite", "duration": 8},
}
PRICES: dict[str, dict[str, Any]] = {
    "grok-imagine-video": {"per_second": {"480p": 0.05, "720p": 0.07}, "per_image": 0.002},
    "grok-imagine-video-1.5": {"per_second": {"480p": 0.08, "720p": 0.14, "1080p": 0.25}, "per_image": 0.01},
    "grok-imagine-video-1.5-lite": {"per_second": {"480p": 0.02, "720p": 0.03, "1080p": 0.14}, "per_image": 0.01},
}


def merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `default` with the values of `given` put over it, table by table."""
    both = dict(default)
    for name, value in given.items():
        below = both.get(name)
        both[name] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both


class Settings(BaseSettings):
    """All settings. A name under `models`, `prices` keeps the options that the file does not give it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Path("grokpool-data")
    server: Server = Server()
    log: Log = Log()
    jobs: Jobs = Jobs()
    queue: Queue = Queue()
    limits: Limits = Limits()
    media: Media = Media()
    images: Images = Images()
    fetch: Fetch = Fetch()
    upstream: Upstream = Upstream()
    models: dict[str, ModelOptions] = Field(default=MODELS, validate_default=True)
    prices: dict[str, PriceOptions] = Field(default=PRICES, validate_default=True)
    policy: Annotated[Policy, BeforeValidator(read_policy)] = Policy()
    proxies: Proxies = Proxies()
    master_key: AccessKey | None = None
    admin_key: AccessKey | None = None

    @field_validator("models", "prices", mode="before")
    @classmethod
    def keep_the_defaults(cls, value: object, info: ValidationInfo) -> object:
        default = MODELS if info.field_name == "models" else PRICES
        return merged(default, value) if isinstance(value, dict) else value

    def catalogue(self) -> dict[str, Model]:
        """Return how each model name that a client may use is served."""
        return {name: Model(name, **dict(options)) for name, options in self.models.items()}

    def tariff(self) -> dict[str, Price]:
        """Return the price of each upstream model."""
        return {name: Price(**dict(options)) for name, options in self.prices.items()}
