"""Input images: taken out of a data URI, and checked by decoding them once, where it can do no harm."""

import asyncio
import binascii
import multiprocessing
import queue
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from proxy.domain.errors import ImageTooLarge, InvalidImageUrl
from proxy.services.image_decoding import DEFAULT_LIMITS, MAX_BYTES, MEDIA_TYPES, READY, REFUSED, ImageLimits, serve
from proxy.upstream.driver import Image

START_SECONDS = 30.0  # a worker process of a machine under load
DATA_HEADER = re.compile(r"data:image/[a-z0-9][a-z0-9.+-]*(;[a-z0-9-]+=[a-z0-9._-]*)*;base64", re.IGNORECASE)
MAX_HEADER = 200  # characters before the comma
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


def decode_data_uri(url: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of `data:image/…;base64,…` (RFC 2397). The media type it claims is not believed, nor needed.

    The base64 is read strictly (RFC 4648, section 3.3): the standard alphabet, padded, no white space or line break.
    Raises ImageTooLarge before decoding more than `max_bytes`, InvalidImageUrl for everything else.
    """
    header, comma, _ = url[:MAX_HEADER].partition(",")
    if not comma or not DATA_HEADER.fullmatch(header):
        raise InvalidImageUrl("not a data:image/...;base64 URI")
    if len(url) - len(header) - 1 > (max_bytes + 2) // 3 * 4:
        raise ImageTooLarge(max_bytes)
    if url.endswith("==="):  # which Python's strict mode lets pass
        raise InvalidImageUrl("base64: excess padding")
    try:
        content = binascii.a2b_base64(url[len(header) + 1 :], strict_mode=True)
    except ValueError as broken:
        raise InvalidImageUrl(f"base64: {broken}") from None
    if len(content) > max_bytes:
        raise ImageTooLarge(max_bytes)
    return content


class ImageChecker:
    """Decodes images in worker processes; a decoder that crashes or hangs costs the one request whose image did it."""

    def __init__(self, limits: ImageLimits = DEFAULT_LIMITS, workers: int = 2) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(workers, "image-check")
        self._decoders = [Decoder(limits) for _ in range(workers)]
        self._idle: queue.LifoQueue[Decoder] = (
            queue.LifoQueue()
        )  # last used, first taken: one is enough when it is quiet
        for decoder in self._decoders:
            self._idle.put(decoder)

    async def start(self) -> None:
        """Start the first worker process now, so that the first request need not wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._warm)

    async def check(self, content: bytes) -> Image:
        """Return the image as the upstream takes it: the bytes as they came, or an animation's first frame as PNG.

        JPEG, PNG, GIF and WebP, by content alone. Raises ImageTooLarge, and InvalidImageUrl for all that is no such
        image, is beyond the limits, or does not decode to its end.
        """
        if len(content) > self._limits.max_bytes:
            raise ImageTooLarge(self._limits.max_bytes)
        if not has_signature(content):
            raise InvalidImageUrl("no signature of a JPEG, PNG, GIF or WebP")
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, content)
        media_type, _, replacement = answer.partition(b"\n")
        if media_type.decode() not in MEDIA_TYPES.values():
            raise InvalidImageUrl(replacement.decode(errors="replace"))
        return Image(media_type.decode(), replacement or content)

    async def close(self) -> None:
        """Let the images in hand finish, then end the worker processes."""
        await asyncio.to_thread(self._close)

    def _warm(self) -> None:
        decoder = self._idle.get()
        try:
            decoder.start()
        finally:
            self._idle.put(decoder)

    def _decode(self, content: bytes) -> bytes:
        decoder = self._idle.get()  # never waits: there is one for each thread
        try:
            return decoder.decode(content)
        finally:
            self._idle.put(decoder)

    def _close(self) -> None:
        self._threads.shutdown()
        for decoder in self._decoders:
            decoder.stop()


def has_signature(content: bytes) -> bool:
    """Sort out what does not even begin like an image, without troubling a worker process."""
    return content.startswith(SIGNATURES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


class Decoder:
    """One worker process at the other end of a pipe, started when needed and again after its death."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def decode(self, content: bytes) -> bytes:
        """Return the worker's answer about one image; a refusal where the worker died of it, or took too long."""
        pipe, process = self.start()
        alarm = threading.Timer(self._limits.seconds, process.kill)  # ends a hanging exchange at whatever point
        alarm.start()
        try:
            pipe.send_bytes(content)
            return pipe.recv_bytes(2 * self._limits.max_bytes + MAX_HEADER)
        except (EOFError, OSError):
            self.stop()
            return f"{REFUSED}\nthe decoder died of it, or took over {self._limits.seconds} s".encode()
        finally:
            alarm.cancel()

    def start(self) -> tuple[Connection, BaseProcess]:
        """Return the pipe to a living worker process. Raises ChildProcessError if there is none to be had."""
        if self._pipe and self._process and self._process.is_alive():
            return self._pipe, self._process
        self.stop()
        spawn = multiprocessing.get_context("spawn")  # a fork would carry our memory, secrets and all, into it
        pipe, far_end = spawn.Pipe()
        process = spawn.Process(target=serve, args=(far_end, self._limits), name="image-decoder", daemon=True)
        process.start()
        far_end.close()
        self._pipe, self._process = pipe, process
        if not is_ready(pipe):
            self.stop()
            raise ChildProcessError("the image decoder does not start")
        return pipe, process

    def stop(self) -> None:
        """End the worker process, if there is one."""
        if self._pipe:
            self._pipe.close()
        if self._process:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._pipe = self._process = None


def is_ready(pipe: Connection) -> bool:
    """Wait for the first word of a new worker process."""
    try:
        return pipe.poll(START_SECONDS) and pipe.recv_bytes() == READY
    except (EOFError, OSError):
        return False
