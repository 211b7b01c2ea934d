"""What hypothesis draws hostile requests from."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

MARK = "zqxj7"  # nothing that a stranger sends comes back to him
URL_SAFE = "ABCXYZabcxyz0189_-"

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
ROOMS = ["/", "/media/", "/v1/", "/v1/videos/", "/v1/videos/generations/", "/admin/", "/admin/keys/", "/admin/jobs/"]
PIECES = [
    *("..", "%2e%2e", "/", "//", "\\", "%5c", "%2f", "%00", "%ff", "%ed%a0%80", "%c0%ae", "%", "%zz", "%u002e", "é"),
    *("%e2%80%ae", ";x=1", "*", "'", '"', "<x>", "%0d%0aX-Injected:1", "~", ":", "@", "[", "{id}", ".mp4", "file_"),
    *("video-", "tok_", "etc/passwd", "a" * 300, MARK),
]
"""Of paths."""

NAMES = [
    *("Accept", "Accept-Encoding", "Accept-Language", "Content-Disposition", "Content-Encoding", "Content-Type"),
    *("Cookie", "Date", "Expect", "Forwarded", "Idempotency-Key", "If-Match", "If-Modified-Since", "If-None-Match"),
    *("If-Range", "Keep-Alive", "Origin", "Prefer", "Range", "TE", "Trailer", "Upgrade", "Via", "X-Forwarded-For"),
    *("X-Forwarded-Host", "X-HTTP-Method-Override", "X-Request-ID"),
]
VALUES = [
    *("gzip", "identity", "100-continue", "wait=9", "respond-async", "bytes=", "0-", "-1", '"', "W/", "*", ",", ";"),
    *("=", "q=nan", "utf-8", "application/json", "websocket", "h2c", "-9999", "\x1b[31m", "9" * 30, "a" * 1000),
    *("Mon, 01 Jan 99999 00:00:00 GMT", MARK),
]
"""Of headers."""

BITS = [
    *("\r\n", "\n", "\r", "\x00", " ", "\t", ":", "\xff", "HTTP/2.0", "HTTP/1.0", "Upgrade: h2c\r\n", "Host: b\r\n"),
    *("0\r\n\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n", "GET / HTTP/1.1\r\n\r\n", "X" * 9000),
    "X: y\r\n" * 200,
]
"""Of what no head has, or not there."""

WORDS = st.sampled_from(["image_url", "prompt", "model", "duration", "aspect_ratio", "resolution", "user", "x", ""])
_known = ["grok-imagine-0.9", "480p", "16:9", "6", " \u3000", "\x00", "x" * 300, "data:image/png;base64,AAAA"]
_numbers = st.integers(-(2**65), 2**65) | st.floats(allow_nan=False, allow_infinity=False)
_leaves = st.none() | st.booleans() | _numbers | st.sampled_from(_known) | st.text(max_size=20)
JSON = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=8
)


def edited(text: str, alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw texts that differ from `text` by one edit: something put in, taken out, exchanged, or in the other case."""
    place = st.integers(0, len(text) - 1)
    put_in = st.builds(lambda at, new: text[:at] + new + text[at:], place, alphabet)
    taken_out = st.builds(lambda at, count: text[:at] + text[at + count :], place, st.integers(1, 5))
    exchanged = st.builds(lambda at, new: text[:at] + new + text[at + 1 :], place, alphabet)
    other_case = st.builds(lambda at: text[:at] + text[at].swapcase() + text[at + 1 :], place)
    return (put_in | taken_out | exchanged | other_case).filter(lambda other: other.strip() != text)
