import io
import json
import shutil
import struct
import subprocess
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from proxy.domain.orders import ASPECT_RATIOS, RESOLUTIONS
from proxy.upstream.render import FPS, between, camera, frame_size, nearest_ratio, render

PHOTO = (Path(__file__).parents[2] / "proxy" / "assets" / "photo.jpg").read_bytes()
RED = (200, 40, 30)


def film(
    folder: Path,
    image: bytes | None = PHOTO,
    prompt: str = "a cat",
    *,
    duration_s: int = 1,
    resolution: str = "480p",
    aspect_ratio: str | None = None,
) -> Path:
    path = folder / "video.mp4"
    render(image, prompt, duration_s=duration_s, resolution=resolution, aspect_ratio=aspect_ratio, path=path)
    return path


def decoded(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        frames: Iterable[Any] = container.decode(video=0)
        return [frame.to_image() for frame in frames]


def picture(size: tuple[int, int], colour: Any, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind, **options)
    return out.getvalue()


def colour_at(image: Image.Image, box: tuple[int, int, int, int]) -> list[float]:
    return ImageStat.Stat(image.crop(box)).mean


def test_the_result_is_an_h264_file_of_the_promised_shape(tmp_path: Path) -> None:
    path = film(tmp_path, duration_s=2, resolution="480p", aspect_ratio="16:9")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 854, 480)
        assert stream.average_rate == FPS
        assert container.duration == 2 * av.time_base
        assert sum(1 for _ in container.decode(stream)) == 2 * FPS
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not on this machine; PyAV alone has looked")
def test_ffprobe_sees_the_same(tmp_path: Path) -> None:
    command = ["ffprobe", "-v", "error", "-of", "json", "-count_frames", "-show_streams", str(film(tmp_path))]
    answer = subprocess.run(command, check=True, capture_output=True)
    assert answer.stderr == b""
    (stream,) = json.loads(answer.stdout)["streams"]
    wanted = {"codec_name": "h264", "pix_fmt": "yuv420p", "width": 720, "height": 480, "nb_read_frames": "24"}
    assert {name: stream[name] for name in wanted} == wanted
    assert (stream["r_frame_rate"], float(stream["duration"])) == ("24/1", 1.0)


def test_the_index_comes_before_the_data_so_that_a_browser_can_begin_at_once(tmp_path: Path) -> None:
    content = film(tmp_path).read_bytes()
    names, position = [], 0
    while position < len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        names.append(name.decode())
        position += length
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")
    assert position == len(content)


def test_the_same_order_gives_the_same_bytes_and_another_prompt_other_ones(tmp_path: Path) -> None:
    first = film(tmp_path, prompt="a cat").read_bytes()
    assert film(tmp_path, prompt="a cat").read_bytes() == first
    assert film(tmp_path, prompt="a dog").read_bytes() != first


def test_the_picture_moves(tmp_path: Path) -> None:
    frames = decoded(film(tmp_path))
    assert max(ImageStat.Stat(ImageChops.difference(frames[0], frames[-1])).mean) > 5


def test_no_view_of_any_prompt_leaves_the_picture() -> None:
    for number in range(256):
        start, end = camera(bytes([number]) * 32)
        views = [between(start, end, step / 20) for step in range(21)]
        assert views[0] == start
        assert (views[-1].size, views[-1].x, views[-1].y) == pytest.approx((end.size, end.x, end.y))
        for view in views:
            assert 0 < view.size <= 1
            assert 0 <= view.x <= 1
            assert 0 <= view.y <= 1
        assert any(earlier != later for earlier, later in pairwise(views))


def test_colours_are_kept(tmp_path: Path) -> None:
    frame = decoded(film(tmp_path, picture((300, 200), RED)))[0]
    assert colour_at(frame, (10, 10, 300, 300)) == pytest.approx(RED, abs=6)


def test_every_frame_says_sandbox_in_the_lower_right_corner_and_nowhere_else(tmp_path: Path) -> None:
    frames = decoded(film(tmp_path, picture((300, 200), "black")))
    for frame in frames:
        bright = frame.convert("L").point(lambda level: 255 if level > 60 else 0)
        left, top, right, bottom = bright.getbbox() or (0, 0, 0, 0)
        assert left > frame.width * 0.8
        assert top > frame.height * 0.9
        assert right < frame.width
        assert bottom < frame.height
    assert len(frames) == FPS


def test_a_photograph_stands_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: to be turned by 90 degrees
    frame = decoded(film(tmp_path, picture((600, 400), RED, "JPEG", exif=exif)))[0]
    assert frame.size == (480, 720)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    frame = decoded(film(tmp_path, picture((64, 64), (255, 0, 0, 0), mode="RGBA")))[0]
    assert colour_at(frame, (0, 0, 200, 200)) == pytest.approx((255, 255, 255), abs=4)


def test_an_order_without_an_image_gets_colours_of_its_prompt(tmp_path: Path) -> None:
    one, two = (decoded(film(tmp_path, None, prompt))[0] for prompt in ("rain", "sun"))
    assert max(ImageStat.Stat(ImageChops.difference(one, two)).mean) > 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_smallest_picture_of_each_kind_fills_the_frame(kind: str, tmp_path: Path) -> None:
    frame = decoded(film(tmp_path, picture((1, 1), RED, kind)))[-1]
    assert frame.size == (480, 480)
    assert colour_at(frame, (0, 0, 300, 300)) == pytest.approx(RED, abs=8)


@pytest.mark.parametrize("aspect_ratio", ["3:2", "9:16"])  # 1620 and 1080: lines that are padded in memory, and not
def test_the_largest_size_is_made_too(aspect_ratio: str, tmp_path: Path) -> None:
    frames = decoded(film(tmp_path, picture((30, 30), RED), resolution="1080p", aspect_ratio=aspect_ratio))
    assert frames[0].size == frame_size("1080p", aspect_ratio)
    assert colour_at(frames[0], (0, 0, 1000, 900)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
def test_every_size_is_even_and_as_its_names_say(resolution: str, aspect_ratio: str) -> None:
    width, height = frame_size(resolution, aspect_ratio)
    across, down = map(int, aspect_ratio.split(":"))
    assert f"{min(width, height)}p" == resolution
    assert (width % 2, height % 2) == (0, 0)
    assert width / height == pytest.approx(across / down, rel=0.003)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [((1920, 1080), "16:9"), ((451, 300), "3:2"), ((1, 1), "1:1"), ((100, 5000), "9:16"), ((1000, 1340), "3:4")],
)
def test_an_order_without_an_aspect_ratio_takes_the_nearest_to_its_image(size: tuple[int, int], ratio: str) -> None:
    assert nearest_ratio(size) == ratio


def test_what_cannot_be_rendered_leaves_no_video(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="truncated"):
        film(tmp_path, PHOTO[:3000])
    assert not (tmp_path / "video.mp4").exists()
