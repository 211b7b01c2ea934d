"""What a field of an operator's body may be."""

import re
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from proxy.domain.secret import Secret

FOREVER = 253_402_300_800.0  # Unix seconds: the year 10000
MAX_SECRET = 8192  # characters
MAX_TEXT = 200
TENANT = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
PRINTABLE = re.compile(r"[ -~]+", re.ASCII)  # what may stand in a header


def text(value: str) -> str:
    """Return a name or a reason without the space around it."""
    value = value.strip()
    if not value or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"must have 1 to {MAX_TEXT} printable characters")
    return value


def tenant_id(value: str) -> str:
    if not TENANT.fullmatch(value):
        raise ValueError("must have 1 to 64 letters, digits, dots, dashes or underscores")
    return value


def secret(value: object) -> Secret:
    """Return a credential without the space around it: the last line break of its file is none of it."""
    stripped = value.strip() if isinstance(value, str) else ""
    if not PRINTABLE.fullmatch(stripped) or len(stripped) > MAX_SECRET:
        raise ValueError(f"must be a text of 1 to {MAX_SECRET} printable ASCII characters")
    return Secret(stripped)


def header(value: str) -> str:
    if not PRINTABLE.fullmatch(value.strip()) or len(value) > 512:
        raise ValueError("must have 1 to 512 printable ASCII characters")
    return value.strip()


def url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or len(value) > 2048 or re.search(r"[^!-~]|[@?#\\]", value):
        raise ValueError("must be a URL like https://api.example.com/v1, without a login, a query or a fragment")
    return value.rstrip("/")


def moment(value: object) -> object:
    """Return ISO 8601 with its offset as Unix seconds; what is no text is left to the type."""
    if not isinstance(value, str):
        return value
    try:
        read: datetime | None = datetime.fromisoformat(value)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise ValueError("must be Unix seconds, or ISO 8601 with an offset, like 2030-01-31T00:00:00Z")
    return read.timestamp()


Text = Annotated[str, AfterValidator(text)]
TenantId = Annotated[str, AfterValidator(tenant_id)]
Moment = Annotated[float, BeforeValidator(moment), Field(gt=0, lt=FOREVER)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]
Credential = Annotated[Secret, PlainValidator(secret)]
HeaderText = Annotated[str, AfterValidator(header)]
BaseUrl = Annotated[str, AfterValidator(url)]
Models = Annotated[list[Text], Field(min_length=1, max_length=200)]
