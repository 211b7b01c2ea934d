from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.tenants import DEFAULT, Tenant
from proxy.storage import keys, migrate
from proxy.storage.database import Database
from proxy.storage.writer import each


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database file at the newest schema."""
    file = tmp_path / "grokpool.db"
    migrate.upgrade(file, tmp_path / "backups", 0.0)
    return file


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = Database(path)
    await opened.open()
    await opened.write(each(keys.ensure_tenant), (Tenant(DEFAULT, "Default"), 0.0))
    yield opened
    await opened.close()
