from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Grokpool


@pytest.fixture
def grokpool(tmp_path: Path) -> Grokpool:
    """The command in a folder where nothing is yet."""
    return Grokpool(tmp_path)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grokpool]:
    """The command beside a running server, which all tests share: each makes its own things."""
    beside = Grokpool(tmp_path_factory.mktemp("served"))
    with beside.serving():
        yield beside


@pytest.fixture(params=["beside a server", "without a server"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Grokpool:
    """The command beside a running server, and where none runs."""
    if request.param == "beside a server":
        served: Grokpool = request.getfixturevalue("served")
        return served
    return Grokpool(tmp_path)
