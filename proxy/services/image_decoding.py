"""The part of the image check that touches hostile bytes. It runs in a worker process of few means."""

import io
import resource
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection

from PIL import Image, UnidentifiedImageError, WebPImagePlugin

FORMATS = ("JPEG", "PNG", "GIF", WebPImagePlugin.WebPImageFile.format)
MEDIA_TYPES = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
MAX_BYTES = 10 * 1024 * 1024
READY = b"ready"
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an input image may cost us."""

    max_bytes: int = MAX_BYTES
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    max_frames: int = 200
    memory_bytes: int = 768 * 1024 * 1024  # address space of a worker process; the largest WebP needs 650 MB
    seconds: float = 5.0  # for one image, on the wall's clock


DEFAULT_LIMITS = ImageLimits()


class Refused(Exception):
    """The bytes are no image for us; the message says why, for the log."""


def serve(pipe: Connection, limits: ImageLimits) -> None:
    """Answer each image that comes through `pipe`, until its other end is closed."""
    confine(limits)
    pipe.send_bytes(READY)
    try:
        while True:
            pipe.send_bytes(answer(pipe.recv_bytes(limits.max_bytes), limits))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the gateway is gone


def confine(limits: ImageLimits) -> None:
    """Take from this process what a decoder does not need, before it sees the first byte."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the gateway's to answer; it closes the pipe
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    warnings.simplefilter("ignore")  # a crooked EXIF block is no reason to refuse a picture
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def answer(content: bytes, limits: ImageLimits) -> bytes:
    """Return a line that names the media type and, after it, the image where it had to be made anew.

    An image that is not taken is answered by the line `refused` and the cause. Plain bytes, no pickle: nothing
    that a hijacked decoder writes is ever executed.
    """
    try:
        media_type, replacement = decode(content, limits)
    except Refused as refusal:
        return f"{REFUSED}\n{refusal}".encode()
    except UnidentifiedImageError:
        return f"{REFUSED}\nno JPEG, PNG, GIF or WebP, whatever its first bytes say".encode()
    except Exception as failure:  # a decoder may raise anything at all over bytes made to break it
        return f"{REFUSED}\n{type(failure).__name__}: {failure}"[:300].encode()
    return media_type.encode() + b"\n" + replacement


def decode(content: bytes, limits: ImageLimits) -> tuple[str, bytes]:
    """Decode an image once, wholly, within the limits. Raises Refused, or whatever the decoder raises."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        frames = count_gif_frames(content, limits.max_frames) if image.format == "GIF" else image_frames(image)
        check_size(image.size, frames, limits)
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (1, 1))  # reads every bit of the scans as a full decode does, but draws an eighth
        image.load()
        if image.format == "GIF" or (frames > 1 and image.format != "MPO"):
            return "image/png", first_frame(image, 2 * limits.max_bytes)
        return MEDIA_TYPES[image.format or ""], b""


def check_size(size: tuple[int, int], frames: int, limits: ImageLimits) -> None:
    """Judge what the header claims, before a pixel is decoded."""
    if size[0] * size[1] > limits.max_pixels or max(size) > limits.max_side:
        raise Refused(f"{size[0]}x{size[1]} pixels")
    if frames > limits.max_frames:
        raise Refused(f"more than {limits.max_frames} frames")


def image_frames(image: Image.Image) -> int:
    """Return the number of frames that the header names."""
    return int(getattr(image, "n_frames", 1))


def first_frame(image: Image.Image, max_bytes: int) -> bytes:
    """Return the frame just loaded as a PNG: the upstream takes no GIF, and says nothing of animations."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    if out.tell() > max_bytes:
        raise Refused(f"its first frame makes a PNG of {out.tell()} bytes")
    return out.getvalue()


def count_gif_frames(content: bytes, enough: int) -> int:
    """Return the number of frames, counting no further than one past `enough`; a GIF does not say it anywhere.

    Pillow's own count of a crowd takes seconds. What breaks the block structure ends the count: decoding will tell.
    """
    position = 13 + colour_table(content, 10)
    frames = 0
    try:
        while frames <= enough and content[position] != 0x3B:
            if content[position] == 0x2C:  # an image: descriptor, perhaps colours, code size, data
                frames += 1
                position += 10 + colour_table(content, position + 9) + 1
            else:  # an extension: marker, label, data
                position += 2
            while content[position]:
                position += 1 + content[position]
            position += 1
    except IndexError:
        pass
    return frames


def colour_table(content: bytes, flags_at: int) -> int:
    """Return the length of the colour table that the flags at a position announce, in bytes."""
    flags = content[flags_at]
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
