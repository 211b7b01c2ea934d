import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.domain.errors import ImageTooLarge, InvalidImageUrl
from proxy.services.image_decoding import DEFAULT_LIMITS
from proxy.services.images import ImageChecker, decode_data_uri
from tests.services.image_cases import CORPUS, PHOTO, Make, load_generators


@pytest.fixture(scope="module")
def make() -> Make:
    return load_generators()


@pytest.fixture
async def checker() -> AsyncIterator[ImageChecker]:
    checker = ImageChecker()
    yield checker
    await checker.close()


@pytest.mark.parametrize(
    "header",
    [
        "data:image/jpeg;base64,",
        "DATA:image/jpeg;base64,",
        "data:IMAGE/JPEG;BASE64,",
        "data:image/svg+xml;base64,",
        "data:image/png;charset=utf-8;base64,",
    ],
)
def test_a_data_uri_is_decoded(header: str) -> None:
    assert decode_data_uri(header + base64.b64encode(PHOTO).decode()) == PHOTO


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,A",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AAAA=AAAA",
        "data:image/png;base64,AAAA====",
        "data:image/png;base64,AAA=AAA=",
        "data:image/png;base64,AAAA\nAAAA",
        "data:image/png;base64, AAAA",
        "data:image/png;base64,AA-_",
        "data:image/png;base64,AA%3D%3D",
        "data:image/png;base64,AAAAé",
        "data:image/png;base64 ,AAAA",
        "data:image/png,AAAA",
        "data:image/png;base65,AAAA",
        "data:image/;base64,AAAA",
        "data:;base64,AAAA",
        "data:text/plain;base64,AAAA",
        "data://image/png;base64,AAAA",
        "data:image/png\r\nX: y;base64,AAAA",
        "data:image/../../etc/passwd;base64,AAAA",
        "data:image/png;base64;base64,AAAA",
        "data:image/png;" + "a=b;" * 100 + "base64,AAAA",
        " data:image/png;base64,AAAA",
        "image/png;base64,AAAA",
        "x" * 1_000_000,
    ],
)
def test_what_is_no_data_uri_of_an_image_is_refused(uri: str) -> None:
    with pytest.raises(InvalidImageUrl):
        decode_data_uri(uri)


def test_a_data_uri_is_measured_before_it_is_decoded() -> None:
    limit = DEFAULT_LIMITS.max_bytes
    header = "data:image/png;base64,"
    assert len(decode_data_uri(header + base64.b64encode(bytes(limit)).decode())) == limit
    with pytest.raises(ImageTooLarge):
        decode_data_uri(header + "!" * (limit * 2))
    with pytest.raises(ImageTooLarge):
        decode_data_uri(header + base64.b64encode(bytes(1001)).decode(), 998)


async def test_the_corpus_of_data_uris_is_judged_as_it_says(checker: ImageChecker, make: Make) -> None:
    accepted = refused = 0
    for line in (CORPUS / "cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        uri = corpus_uri(case, make)
        if uri is None:
            continue
        try:
            await checker.check(decode_data_uri(uri))
            status, accepted = 200, accepted + 1
        except InvalidImageUrl:
            status, refused = 400, refused + 1
        except ImageTooLarge:
            status, refused = 413, refused + 1
        assert status in case["expect"]["status"], case["title"]
    assert accepted
    assert refused > 40


def corpus_uri(case: dict[str, Any], make: Make) -> str | None:
    """Return the `image_url` of a case about a data URI."""
    if case.get("gen", {}).get("name") == "data_uri":
        arguments = dict(case["gen"]["args"])
        mime, _ = arguments.pop("mime", "image/png"), arguments.pop("prompt", None)
        return f"data:{mime};base64,{base64.b64encode(make(arguments.pop('kind'), **arguments)).decode()}"
    if case["family"].startswith("data_uri") or (case["area"], case["family"]) == ("image", "positive"):
        url = json.loads(case["body"])["image_url"]
        return str(url) if "{{" not in url else None
    return None
