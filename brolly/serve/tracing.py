"""Spans and histograms for OpenTelemetry by its GenAI conventions, made when a request ends. Needs the extra "otel"."""

from __future__ import annotations

import os
from typing import Any

from brolly import __version__
from brolly.errors import MissingExtra
from brolly.serve.account import Account

OPERATIONS = {"chat": "chat", "generate": "text_completion", "embed": "embeddings"}  # the conventions know these
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
# the conventions' own bounds of buckets
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
USAGE = tuple(4**n for n in range(14))


def wanted(otel: bool) -> bool:
    """Whether requests are traced: asked for by flag or by OpenTelemetry's own variables."""
    return otel or any(os.environ.get(name) for name in ENDPOINTS)


class Tracing:
    """Where spans and histograms go; `exporter` and `reader` in place of those that OTEL_* variables set up."""

    def __init__(self, exporter: Any = None, reader: Any = None) -> None:
        try:
            from opentelemetry.propagate import extract
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode

            if exporter is None or reader is None:
                from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise MissingExtra("OpenTelemetry", "otel") from error
        named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in os.environ
        about = {"service.version": __version__} | ({} if named else {"service.name": "brolly"})
        resource = Resource.create(about)
        self._spans = TracerProvider(resource=resource)
        self._spans.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter()) if exporter is None else SimpleSpanProcessor(exporter)
        )
        self._meters = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter()) if reader is None else reader], resource
        )
        self._extract, self._kind, self._status = extract, SpanKind.SERVER, lambda text: Status(StatusCode.ERROR, text)
        self._tracer = self._spans.get_tracer("brolly", __version__)
        meter = self._meters.get_meter("brolly", __version__)

        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Any:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("gen_ai.server.request.duration", "s", "From head to end", SECONDS)
        self._first = histogram("gen_ai.server.time_to_first_token", "s", "From head to first token", FIRST)
        self._each = histogram("gen_ai.server.time_per_output_token", "s", "Each token after the first", TOKEN)
        self._usage = histogram("gen_ai.client.token.usage", "{token}", "Tokens read and written", USAGE)

    def end(self, account: Account) -> None:
        """A request's span, with its numbers, and the histograms where a model answered."""
        a = account
        operation = OPERATIONS.get(a.verb, a.verb)
        said: dict[str, Any] = {
            "http.request.method": a.method, "http.route": a.route, "url.path": a.path[:200],
            "http.response.status_code": a.status, "client.address": a.client, "brolly.request_id": a.id,
        }  # fmt: skip
        common: dict[str, Any] = {}
        if a.model:
            common = {
                "gen_ai.operation.name": operation, "gen_ai.provider.name": "brolly", "gen_ai.request.model": a.model,
                "gen_ai.response.model": a.model,
            }  # fmt: skip
            said |= common
        if a.prompt_tokens:
            said["gen_ai.usage.input_tokens"] = a.prompt_tokens
            said["gen_ai.usage.cache_read.input_tokens"] = a.cached_tokens
        if a.completion_tokens:
            said["gen_ai.usage.output_tokens"] = a.completion_tokens
        if a.finish:
            said["gen_ai.response.finish_reasons"] = tuple(a.finish)
        if a.error:
            said["error.type"] = common["error.type"] = a.error
        name = f"{operation} {a.model}" if a.model else f"{a.method} {a.route}"
        start = int(a.at * 1e9)
        parent = self._extract(a.trace)
        span = self._tracer.start_span(name, context=parent, kind=self._kind, attributes=said, start_time=start)
        if a.error and not 400 <= a.status < 499:  # a stream that broke began with 200
            span.set_status(self._status(a.error))
        span.end(start + int(a.seconds * 1e9))
        if a.model:
            self._measure(a, common)

    def _measure(self, a: Account, common: dict[str, Any]) -> None:
        self._duration.record(a.seconds, common)
        for kind, count in (("input", a.prompt_tokens), ("output", a.completion_tokens)):
            if count:
                self._usage.record(count, common | {"gen_ai.token.type": kind})
        if a.time_to_first is None:
            return
        self._first.record(a.time_to_first, common)
        if a.completion_tokens > len(a.last):
            rest = a.completion_tokens - len(a.last)
            self._each.record((max(a.last.values()) - a.started - a.time_to_first) / rest, common)

    def close(self) -> None:
        """Send what waits. Blocks as long as the exporters' own time limits say."""
        self._spans.shutdown()
        self._meters.shutdown()
