"""What is counted, for Prometheus. No label ever holds a secret, a prompt, a path or an id."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "grokpool_requests", "HTTP requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "grokpool_request_seconds", "Time to the answer", ("route",), buckets=SECONDS, registry=self._registry
        )
        self._jobs = Counter("grokpool_jobs_ended", "Jobs ended", ("state", "error"), registry=self._registry)
        self._exchanges = Counter(
            "grokpool_exchanges_failed", "Upstream exchanges that failed", ("step", "outcome"), registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def job_ended(self, state: str, error: str | None) -> None:
        self._jobs.labels(state, error or "").inc()

    def exchange_failed(self, step: str, outcome: str) -> None:
        self._exchanges.labels(step, outcome).inc()

    def watch(self, name: str, help_: str, value: Callable[[], int]) -> None:
        """Show `value()` at each scrape."""
        Gauge(f"grokpool_{name}", help_, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """Return the text exposition format, version 0.0.4."""
        return generate_latest(self._registry)
