"""The dialect of the API document: its bodies, to the character."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.errors import EmptyImageUrl, GatewayError, InvalidModel, InvalidParameter, InvalidPrompt, job_error
from proxy.domain.jobs import Job, JobState
from proxy.domain.orders import (
    ASPECT_RATIOS,
    MAX_DURATION,
    MAX_PROMPT,
    MIN_DURATION,
    RESOLUTIONS,
    Kind,
    Model,
    Order,
)
from proxy.web.errors import body_of
from proxy.web.messages import Language

NAME = "document"
JOB_PREFIX = "video-"
ECHOED = 100  # characters of a wrong input that an error may repeat

STATUS = {
    JobState.QUEUED: "queued",
    JobState.SENDING: "running",
    JobState.RUNNING: "running",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


class SchemaError(Exception):
    """Fields are missing or of a wrong type: answered by 400 and the list of `detail`, as the document prints it."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__("schema")
        self.body = {"detail": detail}


@dataclass(frozen=True, slots=True)
class Read:
    order: Order
    image_url: str


def read_order(body: Any, models: Mapping[str, Model], default_model: str) -> Read:
    """Read a request body. Schema errors come before those of the model, the URL and the other fields.

    Raises `SchemaError`, `Invalid`.
    """
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise SchemaError([_detail("model_attributes_type", ["body"], message, body)])
    _check_schema(body)
    prompt, image_url = body["prompt"], body["image_url"]
    if len(prompt) > MAX_PROMPT:
        raise InvalidPrompt(MAX_PROMPT)
    name = default_model if body.get("model") is None else body["model"]
    model = models.get(name)
    if model is None or model.kind is not Kind.VIDEO:
        raise InvalidModel(name[:ECHOED], default_model)
    if not image_url:
        raise EmptyImageUrl
    order = Order(
        kind=model.kind,
        model=name,
        upstream_model=model.upstream,
        prompt=prompt,
        duration=_duration(body.get("duration"), model.duration),
        resolution=_choice(body, "resolution", RESOLUTIONS) or model.resolution,
        aspect_ratio=_choice(body, "aspect_ratio", ASPECT_RATIOS) or model.aspect_ratio,
    )
    return Read(order, image_url)


def _check_schema(body: dict[str, Any]) -> None:
    detail = []
    for name in ("image_url", "prompt"):
        if name not in body:
            detail.append(_detail("missing", ["body", name], "Field required", None))
        elif not isinstance(body[name], str):
            detail.append(_wrong_type(name, body[name]))
    if body.get("model") is not None and not isinstance(body["model"], str):
        detail.append(_wrong_type("model", body["model"]))
    prompt = body.get("prompt")
    if isinstance(prompt, str) and not prompt.strip():
        short = _detail("string_too_short", ["body", "prompt"], "String should have at least 1 character", "")
        detail.append(short | {"ctx": {"min_length": 1}})
    if detail:
        raise SchemaError(detail)


def _wrong_type(name: str, value: Any) -> dict[str, Any]:
    return _detail("string_type", ["body", name], "Input should be a valid string", value)


def _detail(kind: str, place: list[str], message: str, value: Any) -> dict[str, Any]:
    echoed = value[:ECHOED] if isinstance(value, str) else value if isinstance(value, bool | int | float) else None
    return {"type": kind, "loc": place, "msg": message, "input": echoed}


def _duration(value: Any, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not MIN_DURATION <= value <= MAX_DURATION:
        raise InvalidParameter("duration", f"must be a whole number of seconds from {MIN_DURATION} to {MAX_DURATION}")
    return value


def _choice(body: dict[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or value not in choices:
        raise InvalidParameter(name, f"must be one of {', '.join(choices)}")
    return value


def video_view(job: Job, video_url: str) -> dict[str, Any]:
    """Return the body of a finished video: these fields and no other."""
    return {
        "id": job.id,
        "model": job.order.model,
        "created": int(job.created_at),
        "video_url": video_url,
        "status": "completed",
        "prompt": job.order.prompt,
    }


def job_view(job: Job, progress: int, video_url: str | None, language: Language) -> dict[str, Any]:
    """Return the body of a job at any time of its life."""
    view: dict[str, Any] = {
        "id": job.id,
        "model": job.order.model,
        "created": int(job.created_at),
        "prompt": job.order.prompt,
        "status": STATUS[job.state],
        "progress": progress,
    }
    if video_url is not None:
        view["video_url"] = video_url
    if job.error is not None:
        view["error"] = body_of(failure(job), language)
    return view


def failure(job: Job) -> GatewayError:
    """Return the error of a job that ended without a video."""
    return job_error(job.error or "")
