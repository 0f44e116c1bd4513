"""Numbers for Prometheus: of requests as they end, of engines and models as they are asked for.

Names follow vLLM's where it has one, with brolly_ before them. A label is a route's pattern, a served model's own name,
a status or a method that HTTP knows: what clients write never becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from brolly.serve.account import Account

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10)
TOKENS = (1, 8, 32, 128, 512, 2048, 8192, 32768, 131072)


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        where, model = ["route", "method", "status", "model"], ["model"]
        self.requests = Counter("brolly_requests", "Requests that have ended", where, registry=r)
        self.in_flight = Gauge("brolly_requests_in_flight", "Requests being answered", registry=r)
        self.duration = Histogram(
            "brolly_e2e_request_latency_seconds", "From a request's head to the end of its answer",
            ["route", "model"], buckets=SECONDS, registry=r,
        )  # fmt: skip
        self.first = Histogram(
            "brolly_time_to_first_token_seconds", "From a request's head to its first text",
            model, buckets=SECONDS, registry=r,
        )  # fmt: skip
        self.between_tokens = Histogram(
            "brolly_inter_token_latency_seconds", "From one token of an answer to its next",
            model, buckets=BETWEEN, registry=r,
        )  # fmt: skip
        self.prompt_tokens = Counter("brolly_prompt_tokens", "Tokens read", model, registry=r)
        self.cached_tokens = Counter("brolly_prompt_tokens_cached", "Tokens read that the cache had", model, registry=r)
        self.generation_tokens = Counter("brolly_generation_tokens", "Tokens written", model, registry=r)
        self.prompt_length = Histogram(
            "brolly_request_prompt_tokens", "Tokens read by a request", model, buckets=TOKENS, registry=r
        )
        self.answer_length = Histogram(
            "brolly_request_generation_tokens", "Tokens written for a request", model, buckets=TOKENS, registry=r
        )
        self.finished = Counter(
            "brolly_request_success", "Answers that came to an end", ["model", "finished_reason"], registry=r
        )
        self.errors = Counter("brolly_errors", "Requests refused or failed, by what was wrong", ["kind"], registry=r)
        self.listener = lru_cache(maxsize=1024)(self._listener)

    def _listener(self, model: str) -> Callable[[float], Any]:
        return self.between_tokens.labels(model).observe

    def begin(self, account: Account) -> None:
        """A request has come."""
        self.in_flight.inc()
        account.listen = self.listener

    def end(self, account: Account) -> None:
        """It has been answered, or its client has gone."""
        a = account
        self.in_flight.dec()
        method = a.method if a.method in METHODS else "other"
        self.requests.labels(a.route, method, str(a.status), a.model).inc()
        self.duration.labels(a.route, a.model).observe(a.seconds)
        if a.error:
            self.errors.labels(a.error).inc()
        if not a.model:
            return
        if a.time_to_first is not None:
            self.first.labels(a.model).observe(a.time_to_first)
            self.answer_length.labels(a.model).observe(a.completion_tokens)
        if a.prompt_tokens:
            self.prompt_length.labels(a.model).observe(a.prompt_tokens)
        self.prompt_tokens.labels(a.model).inc(a.prompt_tokens)
        self.cached_tokens.labels(a.model).inc(a.cached_tokens)
        self.generation_tokens.labels(a.model).inc(a.completion_tokens)
        for reason in a.finish:
            self.finished.labels(a.model, reason).inc()

    def page(self) -> tuple[bytes, str]:
        """All numbers as Prometheus reads them, and the type of that text."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
