"""What is counted and timed, in a registry of the app's own. No text of a request is."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = tuple(2**power for power in range(0, 17, 2))
_PREFIX = "mlx_stella"


class Metrics:
    """The numbers of one server; each attribute is what /metrics names ``mlx_stella_...``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", "route", "code")
        self.request_seconds = self._seconds("request", "From the request to its answer")
        self.queue_seconds = self._seconds("queue", "From tokens to the first batch")
        self.tokenize_seconds = self._seconds("tokenize", "Tokenizing a request")
        self.forward_seconds = self._seconds("forward", "Batches computed together")
        self.batch_texts = self._sizes("batch_texts", "Texts computed together")
        self.batch_tokens = self._sizes("batch_tokens", "Tokens computed together")
        self.padding_tokens = self._counter("padding_tokens", "Tokens that only fill up a batch")
        self.truncated_texts = self._counter("truncated_texts", "Texts that were cut")
        self.queue_tokens = self._gauge("queue_tokens", "Tokens that wait")
        self.rejected = self._counter("rejected", "Requests refused", "reason")
        self.cancelled = self._counter("cancelled", "Requests dropped, their clients gone")
        self.cached = self._counter("cached_texts", "Texts whose vectors were remembered")
        self.model_loaded = self._gauge("model_loaded", "Whether a model is in memory", "model")
        self.memory_bytes = self._gauge("memory_bytes", "Weights in memory")

    def text(self) -> bytes:
        """All of it, in Prometheus's format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", help, labels, registry=self.registry)

    def _seconds(self, name: str, help: str) -> Histogram:
        full = f"{_PREFIX}_{name}_seconds"
        return Histogram(full, help, buckets=_SECONDS, registry=self.registry)

    def _sizes(self, name: str, help: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", help, buckets=_SIZES, registry=self.registry)
