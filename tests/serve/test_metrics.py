"""Numbers for Prometheus and spans for OpenTelemetry."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from brolly.engine.engine import Event, Stats  # noqa: E402
from brolly.errors import MissingExtra  # noqa: E402
from brolly.serve.account import Account  # noqa: E402
from brolly.serve.metrics import Metrics  # noqa: E402
from brolly.serve.tracing import Tracing, wanted  # noqa: E402
from tests.serve.small import client  # noqa: E402


def numbers(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values) → number, but what the process itself tells."""
    text = metrics.page()[0].decode()
    return {
        (s.name, *s.labels.values()): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("brolly_") and not s.name.endswith(("_bucket", "_created"))
    }


def test_a_stream_is_counted_by_route_status_and_model() -> None:
    caller: Any = client()
    caller.post("/v1/stream", json={"tokens": 5})
    found = numbers(caller.app.state.metrics)
    assert found["brolly_requests_total", "POST", "mini-llm", "/v1/stream", "200"] == 1
    assert found["brolly_prompt_tokens_total", "mini-llm"] == 7
    assert found["brolly_prompt_tokens_cached_total", "mini-llm"] == 3
    assert found["brolly_generation_tokens_total", "mini-llm"] == 5
    assert found["brolly_time_to_first_token_seconds_count", "mini-llm"] == 1
    assert found["brolly_inter_token_latency_seconds_count", "mini-llm"] == 4
    assert found["brolly_request_success_total", "stop", "mini-llm"] == 1
    assert found[("brolly_requests_in_flight",)] == 0


def test_what_clients_write_never_becomes_a_label() -> None:
    caller: Any = client()
    for n in range(50):
        caller.get(f"/no/{n}")
        caller.post("/v1/echo", json={"model": f"model-{n}"})
        caller.request(f"METHOD{n}", "/health")
        caller.post("/v1/echo", json={f"field-{n}": n, "model": "m"})
    names = {key for key in numbers(caller.app.state.metrics) if key[0] == "brolly_requests_total"}
    assert len(names) < 8, names
    kinds = {key for key in numbers(caller.app.state.metrics) if key[0] == "brolly_errors_total"}
    assert len(kinds) < 6, kinds


def test_engines_and_memory_are_told_by_model_and_an_engine_is_not_made_for_it() -> None:
    stats = Stats(3, 2, 10, 30, 5, 4, 64, 1, 100, 500, 200)
    busy = SimpleNamespace(engine=SimpleNamespace(stats=lambda: stats))
    share = SimpleNamespace(n_bytes=4096, uses=2)
    entries = {
        "a": SimpleNamespace(name="a", model=busy, share=share, target=None),
        "b": SimpleNamespace(name="b", model=SimpleNamespace(), share=share, target=None),
        "c": SimpleNamespace(name="c", model=None, share=SimpleNamespace(n_bytes=0, uses=0), target=None),
    }
    metrics = Metrics()
    house = SimpleNamespace(entries=entries, ledger=SimpleNamespace(total=1 << 30), counts=Counter({("loads", "a"): 2}))
    metrics.watch(house)  # type: ignore[arg-type]
    house.watch("a")(Event("queue", 0.2, None))  # type: ignore[arg-type, attr-defined]
    found = numbers(metrics)
    assert found["brolly_num_requests_running", "a"] == 3 and found["brolly_num_requests_waiting", "a"] == 2
    assert found["brolly_kv_cache_usage_perc", "a"] == 0.25
    assert found["brolly_num_preemptions_total", "a"] == 1
    assert found["brolly_model_loads_total", "a"] == 2 and found["brolly_model_loads_total", "b"] == 0
    assert found["brolly_request_queue_time_seconds_sum", "a"] == 0.2
    assert found["brolly_model_memory_bytes", "a"] == 4096 and found["brolly_model_loaded", "c"] == 0
    assert found[("brolly_memory_bytes",)] == 1 << 30
    assert ("brolly_num_requests_running", "b") not in found


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = client(), client()
    one.get("/health")
    assert not any(k[0] == "brolly_requests_total" for k in numbers(other.app.state.metrics))  # type: ignore[attr-defined]


def test_the_names_are_those_that_prometheus_takes() -> None:
    text = Metrics().page()[0].decode()
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert names and all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in names)


@pytest.fixture
def traced() -> tuple[Any, Any, Any]:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    return spans, reader, client(tracing=Tracing(spans, reader))


def test_a_request_is_a_span_of_its_callers_trace(traced: tuple[Any, Any, Any]) -> None:
    spans, _, caller = traced
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    caller.post("/v1/stream", json={"tokens": 3}, headers={"traceparent": parent})
    (span,) = spans.get_finished_spans()
    assert span.name == "chat mini-llm" and span.kind.name == "SERVER"
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    said = dict(span.attributes)
    assert said["gen_ai.operation.name"] == "chat" and said["gen_ai.request.model"] == "mini-llm"
    assert said["gen_ai.usage.input_tokens"] == 7 and said["gen_ai.usage.output_tokens"] == 3
    assert said["gen_ai.response.finish_reasons"] == ("stop",) and said["http.route"] == "/v1/stream"
    assert 0 < span.end_time - span.start_time < 60e9


def test_a_broken_traceparent_begins_a_trace_of_its_own(traced: tuple[Any, Any, Any]) -> None:
    spans, _, caller = traced
    caller.post("/v1/echo", json={"model": "m"}, headers={"traceparent": "00-xyz"})
    (span,) = spans.get_finished_spans()
    assert span.parent is None and span.name == "POST /v1/echo"


def test_a_failure_marks_its_span(traced: tuple[Any, Any, Any]) -> None:
    spans, _, caller = traced
    caller.post("/v1/fail", json={})
    (span,) = spans.get_finished_spans()
    assert span.status.status_code.name == "ERROR" and span.attributes["error.type"] == "ZeroDivisionError"


@pytest.mark.parametrize(("status", "error", "failed"), [(200, "upstream_bad_answer", True), (400, "x", False)])
def test_a_stream_that_broke_has_failed(status: int, error: str, failed: bool) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    Tracing(spans, InMemoryMetricReader()).end(Account("r", status=status, error=error))
    (span,) = spans.get_finished_spans()
    assert (span.status.status_code.name == "ERROR") is failed


def test_the_conventions_histograms_are_measured(traced: tuple[Any, Any, Any]) -> None:
    _, reader, caller = traced
    caller.post("/v1/stream", json={"tokens": 4})
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    found = {m.name: m.data.data_points for m in data}
    assert set(found) == {
        "gen_ai.server.request.duration", "gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token",
        "gen_ai.client.token.usage",
    }  # fmt: skip
    usage = {p.attributes["gen_ai.token.type"]: p.sum for p in found["gen_ai.client.token.usage"]}
    assert usage == {"input": 7, "output": 4}


def test_tracing_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not wanted(False) and wanted(True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert wanted(False)


def test_tracing_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra, match=r"brolly\[otel\]"):
        Tracing()


def test_an_account_without_a_model_is_told_too() -> None:
    metrics, account = Metrics(), Account("r", "GET", "/health")
    metrics.begin(account)
    metrics.end(account)
    assert numbers(metrics)["brolly_requests_total", "GET", "", "unmatched", "0"] == 1
