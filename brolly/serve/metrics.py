"""Numbers for Prometheus: of requests as they end, of engines and models as they are asked for.

Names follow vLLM's where it has one, with brolly_ before them. A label is a route's pattern, a served model's own name,
a status or a method that HTTP knows: what clients write never becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from brolly.serve.account import Account
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.house import Entry, House

if TYPE_CHECKING:
    from brolly.engine.engine import Event

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
        self.queue = Histogram(
            "brolly_request_queue_time_seconds", "From a job's coming to its turn", model, buckets=SECONDS, registry=r
        )
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
        self.elsewhere = Histogram(
            "brolly_remote_first_byte_seconds", "From a request to a model elsewhere to its vendor's first byte",
            model, buckets=SECONDS, registry=r,
        )  # fmt: skip
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

    def watch(self, house: House) -> None:
        """Tell of these models too, whenever somebody asks, and hear what their engines tell."""
        self.registry.register(Models(house))
        house.watch = self.heard
        for entry in house.entries.values():
            if entry.target is not None:
                entry.model.first = self.elsewhere.labels(entry.name).observe

    def heard(self, model: str) -> Callable[[Event], None]:
        """What is called with the events of a model's engine, in its thread."""
        queue = self.queue.labels(model)

        def hear(event: Event) -> None:
            if event.name == "queue":
                queue.observe(event.seconds)

        return hear

    def page(self) -> tuple[bytes, str]:
        """All numbers as Prometheus reads them, and the type of that text."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class Models(Collector):
    """What a house's models take and what their engines do, looked up when it is asked for."""

    def __init__(self, house: House) -> None:
        self.house = house

    def collect(self) -> Iterator[Metric]:
        entries = [e for e in self.house.entries.values() if e.target is None]
        yield from self.elsewhere([e for e in self.house.entries.values() if e.target])
        yield one("brolly_memory_bytes", "Memory that models may take", self.house.ledger.total)
        held = gauge("brolly_model_memory_bytes", "Memory that a model takes, with its keys and values")
        uses = gauge("brolly_model_uses", "Requests that run on a model or wait for it")
        loaded = gauge("brolly_model_loaded", "Whether a model is in memory")
        for entry in entries:
            held.add_metric([entry.name], entry.share.n_bytes)
            uses.add_metric([entry.name], entry.share.uses)
            loaded.add_metric([entry.name], entry.model is not None)
        yield from (held, uses, loaded)
        for what, text in COUNTS.items():
            family = counter(f"brolly_model_{what}", text)
            for entry in entries:
                family.add_metric([entry.name], self.house.counts[what, entry.name])
            yield family
        yield from self.engines([(e.name, e.model) for e in entries])

    def elsewhere(self, entries: Iterable[Entry]) -> Iterator[Metric]:
        """What vendors took for it, and how they failed."""
        dollars = counter(
            "brolly_remote_dollars", "US dollars that answers of a model elsewhere cost, where it is known"
        )
        unknown = counter("brolly_remote_unpriced", "Requests to a model elsewhere whose price nobody knows")
        retries = counter("brolly_remote_retries", "Further tries behind the first, with a model's vendor")
        uses = gauge("brolly_remote_uses", "Requests that a model elsewhere is answering")
        names = ["model", "kind"]
        errors = CounterMetricFamily(
            "brolly_remote_errors", "Requests that a model's vendor failed, by kind", labels=names
        )
        for entry in entries:
            model: Elsewhere = entry.model
            dollars.add_metric([entry.name], model.budget.spent)
            unknown.add_metric([entry.name], model.budget.unknown)
            retries.add_metric([entry.name], model.client.retries)
            uses.add_metric([entry.name], entry.share.uses)
            for kind, n in list(model.failed.items()):
                errors.add_metric([entry.name, kind], n)
        yield from (dollars, unknown, retries, uses, errors)

    def engines(self, models: Iterable[tuple[str, Any]]) -> Iterator[Metric]:
        """Of every language model that has begun to write; what is not loaded has no numbers."""
        gauges = [(gauge(f"brolly_{name}", text), of) for name, text, of in GAUGES]
        counters = [(counter(f"brolly_{name}", text), of) for name, text, of in COUNTERS]
        for name, model in models:
            engine = vars(model).get("engine") if model is not None else None  # asking for it would make one
            if engine is None:
                continue
            stats = engine.stats()
            families: Any = (*gauges, *counters)
            for family, of in families:
                family.add_metric([name], of(stats))
        yield from (family for family, _ in (*gauges, *counters))


COUNTS = {
    "loads": "How often a model was loaded", "unloads": "How often a model was unloaded",
    "failures": "How often a model failed to load",
}  # fmt: skip
# name, help, how to read it from engine.Stats
GAUGES: tuple[tuple[str, str, Callable[[Any], float]], ...] = (
    ("num_requests_running", "Answers that are being written together", lambda s: s.running),
    ("num_requests_waiting", "Requests that wait for their turn", lambda s: s.waiting),
    ("kv_blocks_used", "Blocks of keys and values in use", lambda s: s.blocks_used),
    ("kv_blocks_free", "Blocks of keys and values that are free", lambda s: s.blocks_free),
    ("kv_blocks_cached", "Free blocks that still hold a prefix", lambda s: s.blocks_cached),
    (
        "kv_cache_usage_perc", "Share of the blocks in use, 0 to 1",
        lambda s: s.blocks_used / max(1, s.blocks_used + s.blocks_free),
    ),
)  # fmt: skip
COUNTERS: tuple[tuple[str, str, Callable[[Any], float]], ...] = (
    ("prefix_cache_hits", "Prompts whose beginning the cache had", lambda s: s.prefix_hits),
    ("prefix_cache_hit_tokens", "Tokens of prompts that the cache had", lambda s: s.prefix_tokens),
    ("num_preemptions", "Answers that gave their blocks to others and began again", lambda s: s.preemptions),
    ("engine_steps", "Passes through the network", lambda s: s.steps),
    ("engine_tokens_in", "Tokens of prompts that were computed", lambda s: s.tokens_in),
    ("engine_tokens_out", "Tokens that were written", lambda s: s.tokens_out),
)


def gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["model"])


def counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=["model"])


def one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
