"""What an option of the settings may be: a size, a price, an address, a key."""

import re
from collections.abc import Callable, Collection
from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from proxy.domain.money import TICKS_PER_USD
from proxy.domain.orders import ASPECT_RATIOS, RESOLUTIONS
from proxy.domain.proxies import parse
from proxy.domain.secret import Secret

KiB, MiB, GiB = 1024, 1024**2, 1024**3
UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": KiB, "MiB": MiB, "GiB": GiB}
SIZE = re.compile(rf"(\d+) *({'|'.join(UNITS)})", re.ASCII)

DEAREST = 1_000_000 * TICKS_PER_USD

MIN_KEY = 43  # characters: 256 bits in base 64
MIN_VARIETY = 12  # different characters
WELL_KNOWN = re.compile(
    r"change.?me|password|passw0rd|secret|admin|default|example|master|grok2api|grokpool|sk-1234|0?1234567890?|abcdefgh[a-z]*",
    re.IGNORECASE,
)


def read_size(value: object) -> object:
    """Return the bytes of a text like "256 MiB"; what is no text is left to the validation."""
    if not isinstance(value, str):
        return value
    found = SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError('must be a number of bytes, or a size like "256 MiB"')
    return int(found[1]) * UNITS[found[2]]


def read_none(value: object) -> object:
    return None if value == "none" else value  # TOML has no null


def to_ticks(usd: object) -> int:
    """Return an amount of US dollars, a number or its text, in ticks."""
    try:
        ticks = Decimal(str(usd)) * TICKS_PER_USD
        exact = 0 <= ticks <= DEAREST and ticks == int(ticks)
    except (ArithmeticError, ValueError):
        exact = False
    if not exact:
        raise ValueError("must be an amount of US dollars with at most 10 decimals, like 0.05")
    return int(ticks)


def one_of(options: Collection[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value

    return check


def check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[^!-~]|[@?#\\]", value):
        raise ValueError("must be a URL like https://video.example.com, without a login, a query or a fragment")
    return value.rstrip("/")


def check_proxy(value: object) -> Secret:
    parse(str(value))  # its error says what is wrong and repeats nothing
    return Secret(str(value))


def check_key(value: object) -> Secret:
    """Return the key, unless it is short, or little more than a word that everybody tries first."""
    text = str(value)
    if len(text) < MIN_KEY:
        raise ValueError(f"must have at least {MIN_KEY} characters")
    if len(set(WELL_KNOWN.sub("", text))) < MIN_VARIETY:
        raise ValueError("is a well-known default, or nearly one: take a random one")
    return Secret(text)


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[Count | None, BeforeValidator(read_none)]
Size = Annotated[int, BeforeValidator(read_size), Field(ge=1)]
Ticks = Annotated[int, BeforeValidator(to_ticks)]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrNone = Annotated[int, Field(ge=0, le=65_535)]
Networks = tuple[IPvAnyNetwork, ...]
Url = Annotated[str, AfterValidator(check_url)]
ProxyUrl = Annotated[Secret, PlainValidator(check_proxy)]
AccessKey = Annotated[Secret, PlainValidator(check_key)]
Resolution = Annotated[str, AfterValidator(one_of(RESOLUTIONS))]
AspectRatio = Annotated[str, AfterValidator(one_of(ASPECT_RATIOS))]


class Section(BaseModel):
    """A table of the file. An option it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def refuse_bool(cls, value: object, info: ValidationInfo) -> object:
        """`port = true` is a mistake, not port 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("must not be true or false")
        return value
