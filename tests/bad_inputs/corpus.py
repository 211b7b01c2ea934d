"""Where the corpus of bad inputs is, and what is in it. It lies beside the repository, not inside."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "bad_inputs"
Case = dict[str, Any]

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="the corpus of bad inputs (../shared/bad_inputs) is not here")


@cache
def generators() -> ModuleType | None:
    """Return the corpus's own maker of bodies and images, if it is here."""
    path = FOLDER / "generators.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("bad_input_generators", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(*kinds: str) -> Iterator[Case]:
    """Yield the cases of these kinds; none where the corpus is not here."""
    path = FOLDER / "cases.jsonl"
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            case = json.loads(line)
            if case["kind"] in kinds:
                yield case


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def request(case: Case, ctx: Mapping[str, str]) -> Request:
    """Return the request of a case of kind `http`, with its placeholders filled in."""
    made = _maker().build(case, ctx)
    return Request(made["method"], made["path"], dict(made["headers"]), made["body"])


def raw(case: Case, ctx: Mapping[str, str]) -> bytes:
    """Return the bytes of a case of kind `raw`."""
    made = _maker().build(case, ctx)["raw"]
    assert isinstance(made, bytes)
    return made


def _maker() -> ModuleType:
    module = generators()
    assert module, "there are cases, and no generators beside them"
    return module
