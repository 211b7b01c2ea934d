"""The sandbox's video: a slow zoom and pan over one picture, as a real H.264 file. It runs in a worker process."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps

from proxy.domain.orders import ASPECT_RATIOS

FPS = 24
ZOOM = 1.25  # from the widest view to the closest one
MARK = "SANDBOX"
INPUT_FORMATS = ("JPEG", "PNG", "WEBP")
ENCODER = {"preset": "veryfast", "crf": "22"}
BT601, LIMITED_RANGE = 6, 1  # as H.264 and libavutil number them
LUMA = [16 + round(level * 219 / 255) for level in range(256)]
CHROMA = [16 + round(level * 224 / 255) for level in range(256)]
WHITE, BLACK, GREY = 235, 16, 128  # in those levels
MARK_OPACITY = 170

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A window on the picture: its size, and where it lies in the room that size leaves (all 0 to 1)."""

    size: float
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """What is put on every frame of one plane."""

    tile: Image.Image
    mask: Image.Image
    corner: tuple[int, int]


def render(
    image: bytes | None, prompt: str, *, duration_s: int, resolution: str, aspect_ratio: str | None, path: Path
) -> None:
    """Write an order's video to `path`, whole or not at all; the same order gives the same bytes.

    `image` is a JPEG, PNG or WebP (None: colours made from the prompt), `resolution` names the shorter side ("480p"),
    `aspect_ratio` is one of `ASPECT_RATIOS` (None: the one nearest to the image's). Raises OSError for a broken image.
    """
    seed = hashlib.sha256(prompt.encode()).digest()
    picture = open_picture(image) if image else paint(seed)
    size = frame_size(resolution, aspect_ratio or nearest_ratio(picture.size))
    part = path.with_name(path.name + ".part")  # faststart moves the index to the front, which needs a real file
    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1  # with more, the bytes depend on the machine
        codec.colorspace = codec.color_primaries = codec.color_trc = BT601
        codec.color_range = LIMITED_RANGE
        for frame in film(picture, size, seed, duration_s * FPS):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(part, path)


def frame_size(resolution: str, aspect_ratio: str) -> Size:
    """Return width and height for a "480p" and a "16:9": the shorter side as named, both even, as yuv420p wants."""
    short = int(resolution.removesuffix("p"))
    across, down = map(int, aspect_ratio.split(":"))
    long = even(short * max(across, down) / min(across, down))
    return (long, short) if across >= down else (short, long)


def nearest_ratio(size: Size) -> str:
    """Return the supported aspect ratio that cuts least from a picture of `size`."""

    def kept(ratio: str) -> float:
        across, down = map(int, ratio.split(":"))
        relation = size[0] * down / (size[1] * across)
        return min(relation, 1 / relation)

    return max(ASPECT_RATIOS, key=kept)


def open_picture(content: bytes) -> Image.Image:
    """Decode, turn as its EXIF says, and put what is transparent on white."""
    with Image.open(io.BytesIO(content), formats=INPUT_FORMATS) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def paint(seed: bytes) -> Image.Image:
    """Two colours of the seed, one running into the other."""
    gradient = Image.linear_gradient("L").resize((1600, 900)).rotate(seed[6] / 255 * 40 - 20)
    return ImageOps.colorize(gradient, tuple(seed[0:3]), tuple(seed[3:6]))


def film(picture: Image.Image, size: Size, seed: bytes, count: int) -> Iterator[av.VideoFrame]:
    """Yield `count` frames of `size`: the camera moves from one view of the picture to another."""
    sharp = (even(size[0] * ZOOM), even(size[1] * ZOOM))
    planes = split(ImageOps.fit(picture, sharp, Image.Resampling.LANCZOS))
    start, end = camera(seed)
    stamps = draw_mark(size)
    for number in range(count):
        frame = av.VideoFrame(*size, "yuv420p")
        view = between(start, end, number / max(1, count - 1))
        for target, plane, stamp in zip(frame.planes, planes, stamps, strict=True):
            look = look_at(plane, view, (target.width, target.height))
            look.paste(stamp.tile, stamp.corner, stamp.mask)
            target.update(look.crop((0, 0, target.line_size, target.height)).tobytes())  # lines are padded in memory
        yield frame


def split(picture: Image.Image) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Return luma, and both chroma planes at half the size: far cheaper to move about than RGB, frame by frame."""
    luma, blue, red = picture.convert("YCbCr").split()
    half = (picture.width // 2, picture.height // 2)
    return luma.point(LUMA), blue.point(CHROMA).resize(half), red.point(CHROMA).resize(half)


def camera(seed: bytes) -> tuple[View, View]:
    """Return the first and the last view: in or out, from one side to the other, as the seed says."""
    left, top = seed[8] / 255, seed[9] / 255
    wide, close = View(1.0, 0.5, 0.5), View(1 / ZOOM, left, top)
    across = View(1 / ZOOM * 1.08, 1 - left, 1 - top)
    start, end = (wide, close) if seed[10] % 3 else (across, close)
    return (start, end) if seed[11] % 2 else (end, start)


def between(start: View, end: View, part: float) -> View:
    """Return the view at `part` (0 to 1) of the way, which begins and ends gently."""
    eased = part * part * (3 - 2 * part)
    size, x, y = (a + (b - a) * eased for a, b in ((start.size, end.size), (start.x, end.x), (start.y, end.y)))
    return View(size, x, y)


def look_at(plane: Image.Image, view: View, size: Size) -> Image.Image:
    """Return what `view` shows of a plane. Window edges are fractions of pixels: whole ones would make it tremble."""
    width, height = plane.width * view.size, plane.height * view.size
    left, top = (plane.width - width) * view.x, (plane.height - height) * view.y
    box = (left, top, min(left + width, plane.width), min(top + height, plane.height))
    return plane.resize(size, Image.Resampling.BICUBIC, box)


def draw_mark(size: Size) -> list[Stamp]:
    """Return the word in the lower right corner, plane by plane: nobody shall take the stand-in for the real thing."""
    height = min(size) // 26
    font = ImageFont.load_default(height)
    width = even(font.getlength(MARK) + height)
    tile, mask = Image.new("L", (width, even(height * 2)), BLACK), Image.new("L", (width, even(height * 2)))
    place = (tile.width // 2, tile.height // 2)
    ImageDraw.Draw(tile).text(place, MARK, WHITE, font, anchor="mm")
    ImageDraw.Draw(mask).text(place, MARK, MARK_OPACITY, font, anchor="mm", stroke_width=max(1, height // 16))
    corner = (size[0] - tile.width - even(height / 2), size[1] - tile.height)
    half = (tile.width // 2, tile.height // 2)
    colourless = Stamp(Image.new("L", half, GREY), mask.resize(half), (corner[0] // 2, corner[1] // 2))
    return [Stamp(tile, mask, corner), colourless, colourless]


def even(length: float) -> int:
    """Return the nearest even number: chroma has half the resolution of luma."""
    return round(length / 2) * 2
