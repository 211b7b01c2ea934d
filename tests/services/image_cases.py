"""What the tests of the image checks share: images of every kind, and the corpus of hostile ones."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from proxy.domain.errors import InvalidImageUrl
from proxy.services.images import ImageChecker

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "bad_inputs"
PHOTO = (ROOT / "proxy" / "assets" / "photo.jpg").read_bytes()
Make = Callable[..., bytes]


def load_generators() -> Make:
    """Return the corpus's maker of images, `make(family, **arguments)`; skip the test where there is no corpus."""
    path = CORPUS / "generators.py"
    if not path.exists():
        pytest.skip("the corpus of bad inputs (../shared/bad_inputs) is not here")
    spec = importlib.util.spec_from_file_location("generators", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    img: Make = module.img
    return img


def picture(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def animation(kind: str, frames: int = 3) -> bytes:
    pictures = [Image.new("RGB", (40, 30), (10 * number, 0, 200)) for number in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, kind, save_all=True, append_images=pictures[1:], duration=50, lossless=True)
    return out.getvalue()


async def cause(checker: ImageChecker, content: bytes) -> str:
    with pytest.raises(InvalidImageUrl) as refused:
        await checker.check(content)
    return refused.value.cause


def worker_of(checker: ImageChecker) -> int:
    """The process id of the only decoder that runs."""
    (pid,) = [decoder._process.pid for decoder in checker._decoders if decoder._process]
    assert pid
    return pid
