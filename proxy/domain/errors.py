"""Every way a request can fail, by cause. The words for people, in both languages, and the status live in `web`."""

from typing import ClassVar


class GatewayError(Exception):
    """A failure with a name. `details()` are the values its message may show."""

    type: ClassVar[str]
    code: ClassVar[str]

    def details(self) -> dict[str, object]:
        return dict(vars(self))

    def __str__(self) -> str:
        return self.code


class Invalid(GatewayError):
    type = "validation_error"


class InvalidJson(Invalid):
    code = "invalid_json"


class EmptyImageUrl(Invalid):
    code = "invalid_image_url"


class InvalidImageUrl(Invalid):
    """One answer for every cause; `cause` is for the log alone."""

    code = "invalid_image_url"

    def __init__(self, cause: str) -> None:
        super().__init__()
        self.cause = cause


class InvalidPrompt(Invalid):
    """The prompt is longer than `limit` characters."""

    code = "invalid_prompt"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit


class InvalidModel(Invalid):
    """`model` makes no videos; `known` does."""

    code = "invalid_model"

    def __init__(self, model: str, known: str) -> None:
        super().__init__()
        self.model = model
        self.known = known


class InvalidParameter(Invalid):
    """A field of the body, a header or a query parameter; `reason` is a short English phrase."""

    code = "invalid_parameter"

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__()
        self.parameter = parameter
        self.reason = reason


class BodyTooLarge(Invalid):
    """The body is larger than `limit` bytes."""

    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit


class ImageTooLarge(Invalid):
    """The image is larger than `limit` bytes."""

    code = "image_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit


class UnsupportedMediaType(Invalid):
    code = "unsupported_media_type"


class BodyTooSlow(Invalid):
    """The body came too slowly, or stopped."""

    code = "body_timeout"


class IdempotencyMismatch(Invalid):
    code = "idempotency_mismatch"


class Unauthorized(GatewayError):
    type = "authentication_error"
    code = "unauthorized"


class PermissionDenied(GatewayError):
    type = "permission_error"
    code = "permission_denied"


class NotFound(GatewayError):
    type = "not_found_error"
    code = "not_found"


class VideoNotFound(NotFound):
    code = "video_not_found"


class MethodNotAllowed(GatewayError):
    type = "validation_error"
    code = "method_not_allowed"


class RateLimited(GatewayError):
    """The key has spent its allowance of `limit` requests in any 60 s."""

    type = "rate_limit_error"
    code = "rate_limited"

    def __init__(self, limit: int, retry_after: float) -> None:
        super().__init__()
        self.limit = limit
        self.retry_after = retry_after


class TooManyConcurrent(GatewayError):
    """The key has `limit` unfinished generations."""

    type = "rate_limit_error"
    code = "too_many_concurrent"

    def __init__(self, limit: int, retry_after: float) -> None:
        super().__init__()
        self.limit = limit
        self.retry_after = retry_after


class QueueFull(GatewayError):
    """`limit` jobs wait already."""

    type = "rate_limit_error"
    code = "queue_full"

    def __init__(self, limit: int, retry_after: float) -> None:
        super().__init__()
        self.limit = limit
        self.retry_after = retry_after


class Overloaded(GatewayError):
    type = "overloaded_error"

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class NoTokenAvailable(Overloaded):
    code = "no_token_available"


class Draining(Overloaded):
    code = "draining"


class StorageFull(Overloaded):
    code = "storage_full"


class StorageBusy(Overloaded):
    code = "storage_busy"


class BodyMemoryFull(Overloaded):
    code = "overloaded"


class JobError(GatewayError):
    """How a job ended without a video. It carries no values: a job's failure is stored as its code."""


class NoVideoUrl(JobError):
    type = "video_generation_error"
    code = "no_video_url"


class ExitBlocked(JobError):
    """Every allowed attempt met a 403 that blames the proxy; nothing was accepted upstream."""

    type = "HTTP_ERROR"
    code = "HTTP_ERROR"


class ContentModerated(JobError):
    type = "video_generation_error"
    code = "content_moderated"


class UpstreamRejected(JobError):
    type = "video_generation_error"
    code = "upstream_rejected"


class UpstreamFailure(JobError):
    type = "upstream_error"
    code = "upstream_failed"


class UpstreamBadResponse(JobError):
    type = "upstream_error"
    code = "upstream_bad_response"


class SubmitAmbiguous(JobError):
    type = "upstream_error"
    code = "submit_ambiguous"


class GenerationTimeout(JobError):
    type = "timeout_error"
    code = "generation_timeout"


class JobCancelled(JobError):
    type = "conflict_error"
    code = "job_cancelled"


class InternalError(JobError):
    type = "internal_error"
    code = "internal_server_error"


class Conflict(GatewayError):
    """What the operator asks does not fit the present state; `reason` is a short English sentence."""

    type = "conflict_error"
    code = "conflict"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Unavailable(GatewayError):
    """Something the operator asked for needs what is not there; `reason` is a short English sentence."""

    type = "unavailable_error"
    code = "unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class StaleFence(GatewayError):
    """A worker wrote under a fence that another claim has passed: its work is not its own any more."""

    type = "internal_error"
    code = "stale_fence"


def job_error(code: str) -> JobError:
    """Return the error of a job that failed with `code`."""
    for kind in JobError.__subclasses__():
        if kind.code == code:
            return kind()
    return InternalError()
