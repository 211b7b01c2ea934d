"""One video by the public API, as any client makes it: the demo's, and the doctor's test."""

import base64
import io
import mimetypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.cli.command import Problem
from proxy.cli.http_client import Connect, Unreachable, send

PHOTO = Path(__file__).parents[1] / "assets" / "photo.jpg"
LOOK_AGAIN = 0.2  # seconds between two looks at a job
ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Film:
    id: str
    url: str
    content: bytes
    duration: float  # seconds
    frames: int


def request_body(image: Path, prompt: str, **options: Any) -> dict[str, Any]:
    """Return the body of a request for a video of the picture in a file. Raises `Problem`."""
    kind = mimetypes.guess_type(image)[0] or "image/jpeg"
    try:
        picture = base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise Problem(f"{image}: {error.strerror}") from None
    return {"image_url": f"data:{kind};base64,{picture}", "prompt": prompt, **options}


def make(connect: Connect, key: str, body: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> Film:
    """Order a video, look at the job until it ends, and fetch what it made; `show` is given every look.

    Raises `Problem`, `Refused`, `Unreachable`.
    """
    accepted = send(connect, "POST", "/v1/videos/generations", key=key, body=body, prefer="respond-async")
    job = accepted.json()
    place = accepted.headers.get("Location")
    if accepted.status != 202 or place is None:
        raise Problem(f"the gateway did not take the job asynchronously (HTTP {accepted.status})")
    while job["status"] not in ENDED:
        show(job)
        time.sleep(LOOK_AGAIN)
        job = send(connect, "GET", path_of(place), key=key).json()
    show(job)
    if job["status"] != "completed":
        raise Problem(f"{job['id']}: {job['error']['message'] if job.get('error') else job['status']}")
    return fetch(connect, job)


def fetch(connect: Connect, job: dict[str, Any]) -> Film:
    """Download a finished job's video, as its link allows: without a key. Raises `Problem`."""
    answer = send(connect, "GET", path_of(job["video_url"]), key=None)
    if answer.status != 200:
        raise Unreachable(f"{path_of(job['video_url'])} answers HTTP {answer.status}")
    duration, frames = measure(answer.content)
    return Film(job["id"], job["video_url"], answer.content, duration, frames)


def measure(content: bytes) -> tuple[float, int]:
    """Play an MP4 from end to end; return its seconds and its frames. Raises `Problem` when it cannot be played."""
    import av

    try:
        with av.open(io.BytesIO(content), "r") as container:
            frames = sum(1 for _ in container.decode(video=0))
            duration = (container.duration or 0) / av.time_base
    except (av.FFmpegError, IndexError) as error:
        raise Problem(f"the video cannot be played: {error}") from None
    if not frames:
        raise Problem("the video has no pictures")
    return duration, frames


def path_of(url: str) -> str:
    """Return what a request for `url` asks its server for."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")
