import io
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from proxy.domain.errors import ImageTooLarge
from proxy.services.image_decoding import DEFAULT_LIMITS, ImageLimits, answer, count_gif_frames
from proxy.services.images import ImageChecker
from tests.requirements import missing
from tests.services.image_cases import PHOTO, Make, animation, cause, load_generators, picture, worker_of


@pytest.fixture(scope="module")
def make() -> Make:
    return load_generators()


@pytest.fixture
async def checker() -> AsyncIterator[ImageChecker]:
    checker = ImageChecker()
    yield checker
    await checker.close()


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PHOTO, "image/jpeg"),
        (picture("JPEG", progressive=True), "image/jpeg"),
        (picture("JPEG", mode="CMYK"), "image/jpeg"),
        (picture("JPEG", mode="L"), "image/jpeg"),
        (animation("MPO"), "image/jpeg"),  # a telephone's JPEG with a second picture in it
        (picture("PNG"), "image/png"),
        (picture("PNG", mode="RGBA"), "image/png"),
        (picture("PNG", mode="I;16"), "image/png"),
        (picture("PNG", mode="1"), "image/png"),
        (picture("WEBP"), "image/webp"),
        (picture("WEBP", mode="RGBA", lossless=True), "image/webp"),
    ],
)
async def test_a_still_image_is_sent_on_as_it_came(checker: ImageChecker, content: bytes, media_type: str) -> None:
    image = await checker.check(content)
    assert (image.media_type, image.content) == (media_type, content)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
async def test_of_an_animation_the_first_frame_is_sent_on_as_png(checker: ImageChecker, kind: str) -> None:
    image = await checker.check(animation(kind))
    assert image.media_type == "image/png"
    with Image.open(io.BytesIO(image.content)) as sent:
        assert (sent.format, sent.size, getattr(sent, "n_frames", 1)) == ("PNG", (40, 30), 1)
        assert sent.convert("RGB").getpixel((5, 5)) == (0, 0, 200)


async def test_a_gif_keeps_what_is_transparent(checker: ImageChecker) -> None:
    image = await checker.check(picture("GIF", mode="P", transparency=0))
    with Image.open(io.BytesIO(image.content)) as sent:
        assert sent.convert("RGBA").getpixel((5, 5)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("png", {}),
        ("jpeg", {}),
        ("gif", {}),
        ("webp", {}),
        ("png_html", {}),
        ("jpeg_html", {}),
        ("jpeg_exif_gps", {}),
        ("jpeg_app_flood", {}),
        ("png_trailing", {}),
        ("png_zip", {}),
        ("gif_frames", {"n": 200}),
        ("png_bomb", {"w": 8000, "h": 5000}),  # just 40 megapixels
        ("pad_png", {"n": 10 * 1024 * 1024}),
        ("real_png_noise", {"n": 3_000_000}),
        ("png_idat_bomb", {"mb": 100}),  # an eight by eight image with 100 MB behind it, which nobody inflates
    ],
)
async def test_what_decodes_within_the_limits_is_taken(
    checker: ImageChecker, make: Make, family: str, arguments: dict[str, int]
) -> None:
    content = make(family, **arguments)
    image = await checker.check(content)
    assert image.content == content or image.media_type == "image/png"


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("png_badcrc", {}),
        ("png_trunc", {"n": 40}),
        ("png_trunc", {"n": 8}),
        ("png_interlace", {}),
        ("png_dims", {"w": 100, "h": 100}),
        ("png_apng", {}),
        ("jpeg_trunc", {"n": 2}),
        ("jpeg_trunc", {"n": 300}),
        ("jpeg_trunc", {"n": 620}),
        ("gif_js", {}),
        ("gif_trunc", {"n": 12}),
        ("gif_trunc", {"n": 30}),
        ("webp_riff_lie", {}),
        ("bmp_dims", {"w": 8, "h": 8}),
        ("bmp_neg", {}),
        ("tiff_dims", {"w": 8, "h": 8}),
        ("ico", {}),
        ("fits_gz", {"mb": 1}),
        *(("svg", {"v": name}) for name in ("script", "xxe", "laughs", "image", "huge")),
        ("svgz", {"v": "laughs"}),
        *((kind, {}) for kind in ("html", "pdf", "eps", "psd", "mp4", "heic", "avif", "jp2", "hls", "elf", "zip")),
        ("text", {}),
        ("rand", {"n": 64}),
        ("rand", {"n": 1 << 20}),
        ("zeros", {"n": 0}),
        ("zeros", {"n": 1}),
    ],
)
async def test_what_is_no_image_is_refused(
    checker: ImageChecker, make: Make, family: str, arguments: dict[str, Any]
) -> None:
    assert await cause(checker, make(family, **arguments))


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("png_bomb", {"w": 8001, "h": 5000}),
        ("png_dims", {"w": 2**31 - 1, "h": 2**31 - 1}),
        ("png_bomb", {"w": 16_385, "h": 1}),
        ("png_bomb", {"w": 1, "h": 16_385}),
        ("jpeg_dims", {"w": 65_535, "h": 65_535}),
        ("gif_dims", {"w": 65_535, "h": 65_535}),
        ("png_apng", {"n": 201}),
        ("gif_frames", {"n": 201}),
        ("gif_frames", {"n": 400_000}),
        ("png_ztxt_bomb", {"mb": 60}),
        ("png_ztxt_bomb", {"mb": 1, "n": 200}),
        ("png_iccp_bomb", {"mb": 60}),
    ],
)
async def test_a_bomb_is_refused_at_once_by_a_worker_that_stays_small(
    checker: ImageChecker, make: Make, family: str, arguments: dict[str, int]
) -> None:
    await checker.start()
    content, worker = make(family, **arguments), worker_of(checker)
    began = time.monotonic()
    assert await cause(checker, content)
    assert time.monotonic() - began < 2
    assert worker_of(checker) == worker
    assert peak_memory_mb(worker) < 160


def peak_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        missing("/proc")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
async def test_an_image_cut_short_anywhere_is_refused(checker: ImageChecker, kind: str) -> None:
    out = io.BytesIO()
    noise = random.Random(7).randbytes(40 * 30 * 3)
    Image.frombytes("RGB", (40, 30), noise).save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
    whole = out.getvalue()
    assert (await checker.check(whole)).content
    for share in (0.1, 0.5, 0.9, 0.97):
        assert await cause(checker, whole[: int(len(whole) * share)])


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "TGA", "AVIF", "PDF", "JPEG2000"])
async def test_a_sound_image_of_another_kind_is_refused(checker: ImageChecker, kind: str) -> None:
    assert await cause(checker, picture(kind))
    assert answer(picture(kind), DEFAULT_LIMITS).startswith(b"refused\n")  # by the decoder too, had it come so far


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP"])
async def test_the_first_bytes_alone_make_no_image(checker: ImageChecker, start: bytes) -> None:
    assert await cause(checker, start)
    assert await cause(checker, start + b"<html><script>alert(1)</script>" * 10)


async def test_more_bytes_than_allowed_are_too_large(checker: ImageChecker) -> None:
    assert (await checker.check(PHOTO + bytes(DEFAULT_LIMITS.max_bytes - len(PHOTO)))).media_type == "image/jpeg"
    with pytest.raises(ImageTooLarge) as refused:
        await checker.check(PHOTO + bytes(DEFAULT_LIMITS.max_bytes - len(PHOTO) + 1))
    assert refused.value.limit == 10 * 1024 * 1024


async def test_a_worker_cannot_take_more_memory_than_it_is_given() -> None:
    checker = ImageChecker(ImageLimits(memory_bytes=96 << 20))
    assert "MemoryError" in await cause(checker, picture("PNG", (6000, 6000)))
    assert (await checker.check(PHOTO)).content == PHOTO
    await checker.close()


def test_frames_of_a_gif_are_counted_no_further_than_needed(make: Make) -> None:
    assert [count_gif_frames(animation("GIF", frames), 200) for frames in (1, 3)] == [1, 3]
    assert count_gif_frames(make("gif_frames", n=100_000), 200) == 201
    assert count_gif_frames(make("gif"), 200) == 1
    assert count_gif_frames(make("gif")[:20], 200) == 0
