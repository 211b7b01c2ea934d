"""Errors as HTTP answers: `{"error": {"message", "type", "code"}}`, save where the API document prints another body."""

import math
from typing import Any

from aiohttp import web

from proxy.domain import errors
from proxy.domain.errors import GatewayError
from proxy.web.messages import Language, message
from proxy.web.responses import json_response

STATUS: dict[type[GatewayError], int] = {
    errors.InvalidJson: 400,
    errors.EmptyImageUrl: 400,
    errors.InvalidImageUrl: 400,
    errors.InvalidPrompt: 400,
    errors.InvalidModel: 400,
    errors.InvalidParameter: 400,
    errors.ContentModerated: 400,
    errors.UpstreamRejected: 400,
    errors.Unauthorized: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.VideoNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.BodyTooSlow: 408,
    errors.Conflict: 409,
    errors.JobCancelled: 409,
    errors.BodyTooLarge: 413,
    errors.ImageTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.IdempotencyMismatch: 422,
    errors.RateLimited: 429,
    errors.TooManyConcurrent: 429,
    errors.QueueFull: 429,
    errors.NoVideoUrl: 500,
    errors.ExitBlocked: 500,
    errors.InternalError: 500,
    errors.StaleFence: 500,
    errors.UpstreamFailure: 502,
    errors.UpstreamBadResponse: 502,
    errors.SubmitAmbiguous: 502,
    errors.Unavailable: 503,
    errors.NoTokenAvailable: 503,
    errors.Draining: 503,
    errors.StorageFull: 503,
    errors.StorageBusy: 503,
    errors.BodyMemoryFull: 503,
    errors.GenerationTimeout: 504,
}

UNAUTHORIZED_BODY = {"detail": "未授权访问"}


def body_of(error: GatewayError, language: Language) -> dict[str, Any]:
    """Return the error object of the envelope."""
    return {"message": message(error, language), "type": error.type, "code": error.code}


def answer(error: GatewayError, language: Language, **more: str) -> web.Response:
    """Return the answer to a request that failed with `error`; `more` are further members of the error object."""
    body: dict[str, Any] = {"error": body_of(error, language) | more}
    headers = {}
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
        headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
    if isinstance(error, errors.JobError):
        headers["x-should-retry"] = "false"  # OpenAI's clients would pay for the job again
    return json_response(body, STATUS[type(error)], headers)
