"""What a test needs of the machine: a missing server skips the test, or fails it under GROKPOOL_TEST_REQUIRE=all."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`; fail it where everything must be there."""
    if os.environ.get("GROKPOOL_TEST_REQUIRE") == "all":
        pytest.fail(f"{what} is required here and missing")
    pytest.skip(f"{what} is not on this machine")


def need_program(name: str) -> str:
    """Return the path of the program `name`."""
    return shutil.which(name) or missing(name)
