"""An order: one validated request for a generation, in no client's and no upstream's wire shape."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    VIDEO = "video"
    IMAGE = "image"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made. `model` is the client's name for it, `upstream_model` what the upstream is asked for."""

    kind: Kind
    model: str
    upstream_model: str
    prompt: str
    duration: int  # seconds
    resolution: str  # "480p", "720p", "1080p"
    aspect_ratio: str | None = None
    user: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # fields the gateway does not know, passed on


@dataclass(frozen=True, slots=True)
class Model:
    """How a client's model name is served, from the settings."""

    name: str
    kind: Kind
    upstream: str
    duration: int = 6
    resolution: str = "480p"
    aspect_ratio: str | None = None


RESOLUTIONS = ("480p", "720p", "1080p")
ASPECT_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
MAX_PROMPT = 4096  # characters
MIN_DURATION, MAX_DURATION = 1, 15  # seconds
