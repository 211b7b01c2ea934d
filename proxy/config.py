"""Reads the settings: `config.toml`, over it `GROKPOOL_SECTION__OPTION`, over it flags.

They are checked as a whole: whoever mistyped three options is told of three.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, InitSettingsSource

from proxy.settings import PREFIX, Settings

FOR_TESTS = "grokpool_test_"  # names that steer a test run; no options
FROM_ENVIRONMENT = ("master_key", "admin_key")
PACKAGED = Path(__file__).with_name("_default.toml")  # in an installed wheel
CHECKOUT = Path(__file__).parents[1] / "config.toml"

BARE = re.compile(r"[A-Za-z0-9_-]+")
UNKNOWN = "there is no such option"
PLAIN = {  # what the validation says, in the file's words
    "extra_forbidden": UNKNOWN,
    "unexpected_keyword_argument": UNKNOWN,
    "missing": "is required",
    "model_type": "must be a table",
    "dataclass_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list; in the environment, JSON",
}


class InvalidSettings(Exception):
    """The settings cannot be used; `lines` names every mistake, as `section.option: what is wrong`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Environment(EnvSettingsSource):
    """The options named in `environ`. A name with our prefix that is no option is handed on too, to be refused."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.env_vars = {name.lower(): value for name, value in environ.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value  # the validation says so, with the option's name and all other mistakes

    def __call__(self) -> dict[str, Any]:
        options = super().__call__()
        for name in self.env_vars:
            if name.startswith(PREFIX.lower()) and not name.startswith(FOR_TESTS):
                options.setdefault(name.removeprefix(PREFIX.lower()).split("__")[0], None)
        return options


def load(path: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings of the file, over them those of `environ`, over them `flags` (dotted names; None: not given).

    The file is `path`; without one, `config.toml` in the working folder where there is one.

    Raises `InvalidSettings` with every mistake of all three.
    """
    table, mistakes = read(path)
    sources = (
        InitSettingsSource(Settings, nested(flags)),
        Environment(environ),
        InitSettingsSource(Settings, table),
    )
    try:
        settings = Settings(_build_sources=(sources, {}))
    except ValidationError as invalid:
        mistakes += [describe(error) for error in invalid.errors(include_url=False)]
    if mistakes:
        raise InvalidSettings(mistakes)
    return settings


def read(path: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Return the file's tables and what is wrong with the file itself."""
    if path is None:
        path = Path("config.toml")
        if not path.exists():
            return {}, []
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        return {}, [f"{path}: cannot be read: {error.strerror}"]
    except UnicodeDecodeError:
        return {}, [f"{path}: is not UTF-8"]
    except tomllib.TOMLDecodeError as error:
        return {}, [f"{path}: is not valid TOML: {error}"]
    secret = [name for name in FROM_ENVIRONMENT if table.pop(name, None) is not None]
    return table, [f"{name}: is read from {PREFIX}{name.upper()} alone, never from a file" for name in secret]


def template() -> str:
    """Return the text of the `config.toml` that has every option, commented out."""
    return (PACKAGED if PACKAGED.exists() else CHECKOUT).read_text("utf-8")


def nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flags.items():
        if value is not None:
            *sections, option = name.split(".")
            table = tree
            for section in sections:
                table = table.setdefault(section, {})
            table[option] = value
    return tree


def describe(error: ErrorDetails) -> str:
    """Return one mistake as `section.option: what is wrong`. No value is repeated but a number: it may be a secret."""
    path = [part for part in error["loc"] if part != "[key]"]
    message = PLAIN.get(error["type"]) or error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if message == UNKNOWN:
        near = get_close_matches(str(path[-1]), options_at(path[:-1]), 1)
        message += f"; did you mean {near[0]}?" if near else ""
    elif isinstance(error["input"], int | float) and not isinstance(error["input"], bool):
        message += f" (is {error['input']})"
    return f"{dotted(path)}: {message}"


def options_at(path: list[int | str]) -> list[str]:
    table: Any = Settings
    for name in path:
        table = table.model_fields[name].annotation if hasattr(table, "model_fields") else get_args(table)[-1]
    return [field.name for field in fields(table)] if is_dataclass(table) else list(table.model_fields)


def dotted(path: list[int | str]) -> str:
    """Return the option's name as the file spells it: `models."grok-imagine-0.9".duration`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE.fullmatch(part) else f'"{part}"')
    return text
