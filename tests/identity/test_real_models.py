"""Real, well-known models, told right: each row's files as published, its numbers with their sources.

A row of real_models.jsonl has the config's keys that matter, a layout that names every tensor (tests/identity/real/),
what is expected, and where each number is from: a key of SOURCES, or the words themselves. Numbers marked "memory" have
no better source; "config" follows from the config by the formula of `kv`; "same" is the total.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brolly.identity import examine, identify
from tests.identity.real.files import Row, cached, written

ROWS: list[Row] = [json.loads(line) for line in (Path(__file__).parent / "real_models.jsonl").open(encoding="utf-8")]
SOURCES = {
    "hfjs": "https://github.com/huggingface/huggingface.js packages/hub/src/lib/parse-safetensors-metadata.spec.ts, "
    "commit 00d37b2d, read 2026-11-25: counts of real headers, by dtype",
    "keras-hub": "https://github.com/keras-team/keras-hub, presets, snapshot of 2026-08-21, read 2026-11-25",
    "catalogue": "a public catalogue of the Hub's safetensors.total and configs, checked there 2026-09-24, read 2026-11-25",
    "insights": "arXiv:2505.09343, table 1: KV cache per token of DeepSeek-V3, Qwen2.5 72B, Llama 3.1 405B",
    "epoch": "https://epoch.ai/data/ai-models, CC-BY, copy of 2026-05-02",
    "card": "the model's card",
    "config": "the row's config: layers that keep a cache · 2 · key-value heads · head size · 2 bytes",
    "hub4221": "https://github.com/huggingface/huggingface_hub/issues/4221",
    "llmfit1045": "https://github.com/AlexsJones/llmfit/issues/1045",
    "llmfit622": "https://github.com/AlexsJones/llmfit/issues/622",
    "omlx3489": "https://github.com/jundot/omlx/issues/3489",
    "hubdocs2704": "https://github.com/huggingface/hub-docs/issues/2704",
    "kimi-audit": "a public audit of seven Kimi checkpoints' shard headers, read 2026-11-25",
}
# kinds of finding that a row may have without naming them: none is about the numbers here
QUIET = ("info",)
NUMBERS = ("total", "activated", "without", "context", "kv", "flop", "components", "memory")


def near(found: Any, wanted: Any) -> bool:
    """Equal; or within the part that [number, part] allows."""
    if isinstance(wanted, list) and len(wanted) == 2 and isinstance(wanted[0], (int, float)):
        return isinstance(found, (int, float)) and abs(found - wanted[0]) <= wanted[1] * wanted[0]
    return bool(found == wanted)


def differences(card: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What is not as expected, each in a line."""
    size, licence = card["parameters"], card["licence"]
    found = {
        "total": size["total"], "activated": size["activated"], "without": size["activated_without_embeddings"],
        "exact": size["exact"], "context": card["context_length"], "kv": card["kv_bytes_per_token"],
        "licence": licence["id"], "commercial": licence["commercial"], "flop": card["training"]["flop"],
        "memory": card["needs"]["memory"].get("as stored"), "total_or_none": size["total"],
        "modalities_in": card["modalities"]["in"],
    }  # fmt: skip
    wrong = []

    def check(key: str, value: Any, right: bool, wanted: Any) -> None:
        if not right:
            wrong.append(f"{key}: {value!r}, expected {wanted!r}")

    for key, wanted in expected.items():
        value = found.get(key, card.get(key))
        if key == "family":
            check(key, value, wanted.lower() in (value or "").lower(), wanted)
        elif key == "has":
            check("flavours", card["flavours"], set(wanted) <= set(card["flavours"]), wanted)
        elif key == "rules":
            outcomes = {rule["id"]: rule["outcome"] for rule in card["rules"]}
            for name, outcome in wanted.items():
                check(f"rules.{name}", outcomes[name], outcomes[name] == outcome, outcome)
        elif key == "components":
            for name, n in wanted.items():
                part = size["components"].get(name)
                check(f"components.{name}", part, near(part, n), n)
        elif key == "not_relation":
            check("relation", card["relation"], card["relation"] not in wanted, f"not {wanted}")
        elif key == "modalities":
            into, out = wanted
            check(key, card["modalities"], into in card["modalities"]["in"] and out in card["modalities"]["out"], wanted)
        elif key == "modalities_in":
            check(key, value, sorted(value) == sorted(wanted), wanted)
        elif key == "base_model":
            names = value if isinstance(value, list) else [value]
            wanted = wanted if isinstance(wanted, list) else [wanted]
            check(key, value, set(names) == set(wanted), wanted)
        elif key == "findings":
            ids = sorted({f["id"] for f in card["findings"] if f["severity"] not in QUIET or f["id"] in wanted})
            check(key, ids, ids == sorted(wanted), wanted)
        elif key.endswith("_in") and key != "modalities_in":
            value = found.get(key[:-3], card.get(key[:-3]))
            check(key[:-3], value, value in wanted, f"one of {wanted}")
        elif key == "total_or_none":
            check("total", value, value is None or near(value, wanted), wanted)
        else:
            check(key, value, near(value, wanted), wanted)
    if "findings" not in expected:
        loud = [f"{f['id']}: {f['message']}" for f in card["findings"] if f["severity"] not in QUIET]
        check("findings", loud, not loud, "none")
    return wrong


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_a_real_model_is_told_right(row: Row, tmp_path: Path) -> None:
    where = written(row, cached(tmp_path, row["name"]))
    assert not differences(identify(where).json(), row["expected"])


def test_every_number_has_a_source_and_no_model_stands_twice() -> None:
    names = [row["name"] for row in ROWS]
    assert len(names) == len(set(names)) >= 80
    for row in ROWS:
        unsourced = [k for k in NUMBERS if row["expected"].get(k) and k not in row["sources"]]
        assert not unsourced, (row["name"], unsourced)


def test_the_rows_are_of_every_kind() -> None:
    from brolly.identity.answers import KINDS

    assert {row["expected"].get("kind") for row in ROWS} >= set(KINDS) - {"other"}
