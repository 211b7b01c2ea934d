"""The settings of a command that needs a data folder, and what keeps a gateway from opening, in one line."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proxy.cli.command import Misused, Problem, Where

if TYPE_CHECKING:
    from proxy.settings import Settings


class Busy(Problem):
    """Another process runs on the data folder."""


def read_settings(where: Where, flags: Mapping[str, Any] | None = None) -> "Settings":
    """Return the settings of the file, the environment and the flags. Raises `Misused` with every mistake."""
    from proxy.config import InvalidSettings, load

    data_dir = None if where.data_dir is None else str(where.data_dir)
    try:
        return load(where.config, {"data_dir": data_dir, **(flags or {})}, os.environ)
    except InvalidSettings as invalid:
        raise Misused("\n".join(invalid.lines)) from None


@contextmanager
def explained() -> Iterator[None]:
    """Tell in one line what keeps a gateway from opening. Raises `Busy`, `Problem`."""
    from proxy.services.first_start import RealTokens
    from proxy.storage.folder import FolderInUse
    from proxy.storage.migrate import BrokenReferences, UnknownRevision
    from proxy.storage.seal import Unsealable

    try:
        yield
    except FolderInUse as error:
        raise Busy(str(error)) from None
    except (RealTokens, UnknownRevision, BrokenReferences, Unsealable) as error:
        raise Problem(str(error)) from None
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        raise Problem(f"{subject}{error.strerror or error}") from None
