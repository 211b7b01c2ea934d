"""A client that wants one video and does not give up: its connection breaks, it comes back with the same request."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError

from tests.gateway import Api


@dataclass(slots=True)
class Client:
    """It waits for its answer; or, async, takes a 202 and looks at the job. `result` is the body that told its end."""

    prompt: str  # no other client has it
    is_async: bool = False
    key: str = ""
    job_id: str = ""  # that it was given
    result: dict[str, Any] = field(default_factory=dict)

    async def live(self, api: Api) -> None:
        """Go on with the order until it has ended, or the gateway has."""
        if not self.result:
            with suppress(ClientError):
                self.result = await self._ask(api)

    @property
    def error(self) -> str | None:
        """The code of the failure that it was told of."""
        error = self.result.get("error")
        return None if error is None else str(error["code"])

    async def _ask(self, api: Api) -> dict[str, Any]:
        if not self.job_id:
            headers = {"Prefer": "respond-async", "Idempotency-Key": self.prompt} if self.is_async else {}
            answer = await api.generate(self.key, self.prompt, headers)
            if answer.status != 202:
                assert answer.status in (200, 502), answer
                return dict(answer.body)
            self.job_id = answer.body["id"]
        body: dict[str, Any] = await api.ended(self.key, self.job_id)
        return body
