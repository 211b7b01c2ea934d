"""The words of every error, for people: Chinese and English, by code. `{…}` are the details an error carries."""

from typing import Literal

from proxy.domain.errors import EmptyImageUrl, GatewayError

Language = Literal["zh", "en"]

EMPTY_IMAGE = {"zh": "图片URL不能为空", "en": "The image URL must not be empty."}

MESSAGES: dict[str, dict[Language, str]] = {
    "invalid_json": {
        "zh": "请求体不是有效的JSON",
        "en": "The request body is not valid JSON: UTF-8, no NaN, nested at most 64 deep.",
    },
    "invalid_image_url": {
        "zh": "图片URL必须是http/https链接或base64格式（data:image/...）",
        "en": "The image URL must be a reachable http/https link to an image, or base64 (data:image/...).",
    },
    "invalid_prompt": {"zh": "提示词不能超过{limit}个字符", "en": "The prompt is longer than {limit} characters."},
    "invalid_model": {
        "zh": "模型 '{model}' 不是视频生成模型，请使用 {known}",
        "en": "The model '{model}' makes no videos; use {known}.",
    },
    "invalid_parameter": {"zh": "参数 '{parameter}' 无效：{reason}", "en": "The parameter '{parameter}' {reason}."},
    "body_too_large": {"zh": "请求体不能超过{limit}字节", "en": "The request body is larger than {limit} bytes."},
    "image_too_large": {"zh": "图片不能超过{limit}字节", "en": "The image is larger than {limit} bytes."},
    "unsupported_media_type": {
        "zh": "请求头 Content-Type 必须为 application/json，且不能使用 Content-Encoding",
        "en": "Content-Type must be application/json, without a Content-Encoding.",
    },
    "body_timeout": {"zh": "请求体发送过慢", "en": "The request body came too slowly."},
    "idempotency_mismatch": {
        "zh": "该 Idempotency-Key 已用于另一个请求",
        "en": "This Idempotency-Key was used for another request.",
    },
    "unauthorized": {"zh": "未授权访问", "en": "Missing or invalid key."},
    "permission_denied": {"zh": "没有权限", "en": "This key may not do that."},
    "not_found": {"zh": "资源不存在", "en": "There is nothing here."},
    "video_not_found": {"zh": "视频任务不存在", "en": "There is no such video."},
    "method_not_allowed": {"zh": "不支持该请求方法", "en": "This method is not allowed here."},
    "rate_limited": {
        "zh": "请求过于频繁：每分钟最多{limit}次",
        "en": "Rate limit reached: {limit} requests in any 60 s.",
    },
    "too_many_concurrent": {
        "zh": "并发生成数已达上限：最多{limit}个",
        "en": "Concurrency limit reached: {limit} unfinished generations.",
    },
    "queue_full": {"zh": "排队任务已满：最多{limit}个", "en": "The queue is full: {limit} jobs wait."},
    "no_token_available": {
        "zh": "暂时没有可用的生成能力，请稍后重试",
        "en": "No generation capacity is available for this model now.",
    },
    "draining": {"zh": "服务正在重启，请稍后重试", "en": "The gateway is shutting down; try again shortly."},
    "storage_full": {"zh": "存储空间不足，请稍后重试", "en": "The gateway's disk is full; try again later."},
    "storage_busy": {"zh": "服务繁忙，请稍后重试", "en": "The gateway's database is busy; try again shortly."},
    "overloaded": {"zh": "服务繁忙，请稍后重试", "en": "Too many request bodies are in flight; try again shortly."},
    "no_video_url": {"zh": "视频生成失败：未能获取视频URL", "en": "Generation failed: the upstream gave no video."},
    "HTTP_ERROR": {
        "zh": "请求失败: 403 - 您的IP被拦截，请尝试以下方法之一: 1.更换IP 2.使用代理 3.配置CF值",
        "en": "Request failed: 403 - the IP is blocked; try 1. another IP 2. a proxy 3. setting the CF value.",
    },
    "content_moderated": {
        "zh": "视频生成失败：内容未通过审核",
        "en": "Generation failed: the upstream's moderation refused the content.",
    },
    "upstream_rejected": {"zh": "视频生成失败：上游拒绝了请求参数", "en": "The upstream refused the arguments."},
    "upstream_failed": {
        "zh": "上游服务失败，请稍后重试",
        "en": "The upstream failed; all attempts are used up.",
    },
    "upstream_bad_response": {"zh": "上游服务返回了无效响应", "en": "The upstream's answer made no sense."},
    "submit_ambiguous": {
        "zh": "提交结果未知：上游可能已接受该任务，为避免重复计费不再自动重试",
        "en": "The upstream may or may not have accepted the job; it is not repeated, lest it be paid twice.",
    },
    "generation_timeout": {
        "zh": "视频生成超时，可稍后通过任务ID查询结果",
        "en": "The video is not done yet; fetch the job later.",
    },
    "job_cancelled": {"zh": "任务已取消", "en": "The job was cancelled."},
    "internal_server_error": {"zh": "服务器内部错误", "en": "Internal server error."},
    "stale_fence": {"zh": "服务器内部错误", "en": "Internal server error."},
    "bad_request": {"zh": "无效的HTTP请求", "en": "The HTTP request is broken."},
    "conflict": {"zh": "{reason}", "en": "{reason}"},
    "unavailable": {"zh": "{reason}", "en": "{reason}"},
}


def message(error: GatewayError, language: Language) -> str:
    """Return what to tell a person."""
    if isinstance(error, EmptyImageUrl):
        return EMPTY_IMAGE[language]
    return MESSAGES[error.code][language].format_map(error.details())


def language_of(accept: str | None, default: Language) -> Language:
    """Return the first language of an Accept-Language header (RFC 9110, section 12.5.4) that the gateway speaks."""
    for part in (accept or "").split(","):
        tag = part.split(";")[0].strip().lower()
        if tag.startswith("en"):
            return "en"
        if tag.startswith("zh"):
            return "zh"
    return default
