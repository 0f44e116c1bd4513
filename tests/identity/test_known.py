"""The table of known models: valid row by row; found by repository, name and shape, never with a wrong certainty."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from brolly.card import Header, TensorInfo
from brolly.errors import NotFound
from brolly.identity import from_table, identify
from brolly.identity.answers import Known
from brolly.identity.known import agreed, by_name, compute, find, key, known, raw, suggest
from brolly.identity.shapes import matching, told
from brolly.identity.subject import Subject

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "brolly/identity/data"
TABLE = json.loads((DATA / "models.json").read_text())
ROWS: list[dict[str, Any]] = TABLE["models"]
NUMBER = {row["name"]: n for n, row in enumerate(ROWS)}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("known_models", ROOT / "scripts/known_models.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str) -> Known:
    return known(NUMBER[name])


def subject(config: dict[str, Any], folder: Path, name: str | None = None, **more: Any) -> Subject:
    header = Header(folder, more.pop("format", "config"), more.pop("tensors", {}), config, more.pop("metadata", {}))
    return Subject(folder, header, [], name)


def config_of(shape: dict[str, Any]) -> dict[str, Any]:
    """A config that says what a shape says: "vision_config.hidden_size" lies within vision_config."""
    config: dict[str, Any] = {}
    for name, value in shape.items():
        outer, _, inner = name.rpartition(".")
        (config.setdefault(outer, {}) if outer else config)[inner] = value
    return config


LLAMA_31_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rope_theta": 500000.0, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
QWEN3_8B = {
    "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 12288, "vocab_size": 151936, "head_dim": 128,
}  # fmt: skip


# ---- the table


def test_the_table_has_no_fault_and_its_indexes_are_its_own(script: ModuleType) -> None:
    assert script.check(ROWS, TABLE["sources"]) == []
    for name, index in script.indexes(ROWS).items():
        assert json.loads((DATA / name).read_text()) == json.loads(json.dumps(index)), (
            f"run scripts/known_models.py: {name}"
        )


def test_compute_in_the_table_is_epochs(script: ModuleType) -> None:
    rows = json.loads((DATA / "compute.json").read_text())
    columns = {r[0]: dict(zip(rows["columns"], r, strict=True)) for r in rows["models"]}
    assert all(script.filled(r, columns) == r for r in ROWS)
    assert all("epoch" in r for r in ROWS if "flop" in r)
    assert all(r["epoch"] in columns for r in ROWS if "epoch" in r)


def test_running_the_script_changes_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (*DATA.glob("models*.json"), DATA / "compute.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(script, "DATA", tmp_path)
    script.main()
    assert all(file.read_bytes() == (DATA / file.name).read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kind": "chatbot"}, "the kind chatbot is unknown"),
        ({"modalities_in": ["smell"]}, "smell is no modality"),
        ({"flavours": ["sweet"]}, "sweet is no flavour"),
        ({"released": "July 2024"}, "expected a date"),
        ({"parameters": 8e9, "sources": {"memory": "identity parameters"}}, "parameters is from memory"),
        ({"parameters": 8e9, "sources": {"memory": "identity"}}, "parameters has no source"),
        ({"open": "closed", "parameters": 8e9, "sources": {"widely": "parameters"}}, "a closed model's parameters"),
        ({"sources": {"hearsay": "identity"}}, "the source hearsay is unknown"),
        ({"parameters": 1e9, "activated": 2e9, "sources": {"widely": "parameters activated"}}, "more is activated"),
        ({"aliases": ["gpt 5"]}, "'gpt 5' names"),
        ({"ids": ["openai-community/gpt2"]}, "the repository openai-community/gpt2"),
        ({"derived_from": "Nobody"}, "which is no row"),
        ({"name": "GPT-5"}, "the name occurs twice"),
    ],
)
def test_the_check_finds(script: ModuleType, change: dict[str, Any], fault: str) -> None:
    plain = {
        "name": "Probe 1", "family": "Probe", "organization": "Nobody", "kind": "llm", "modalities_in": ["text"],
        "modalities_out": ["text"], "open": "weights", "sources": {"memory": "identity"},
    }  # fmt: skip
    found = script.check([*ROWS, plain | change], TABLE["sources"])
    assert any(fault in f for f in found), found


def test_every_row_becomes_a_known_model_with_its_sources_spelt_out() -> None:
    assert len(ROWS) >= 250
    kinds = {r["kind"] for r in ROWS}
    assert kinds >= {
        "llm", "lmm", "image", "video", "vision", "vision-language-embedding", "text-encoder", "speech", "audio",
        "music", "protein", "scientific", "robotics", "time-series",
    }  # fmt: skip
    for number in range(len(ROWS)):
        one = known(number)
        for fact in ("parameters", "activated", "context", "tokens", "flop", "licence", "released"):
            if getattr(one, fact) is not None:
                assert one.sources[fact]["date"], (one.name, fact)
        assert not isinstance(one.parameters, float) or one.parameters == int(one.parameters)


def test_closed_models_have_no_parameters_but_those_their_makers_told() -> None:
    for name in ("GPT-4", "GPT-4o", "GPT-5", "o3", "Claude Opus 4.1", "Gemini 2.5 Pro", "Grok 4", "Veo 3", "DALL·E 3"):
        assert row(name).open == "closed" and row(name).parameters is None and row(name).activated is None
    assert row("GPT-3 davinci").parameters == 175_000_000_000


def test_epochs_table_is_large_and_attributed() -> None:
    table = json.loads((DATA / "compute.json").read_text())
    assert len(table["models"]) >= 300 and table["about"]["licence"] == "CC-BY-4.0"
    assert "Epoch AI" in (DATA / "README.md").read_text() and "creativecommons.org" in (DATA / "README.md").read_text()
    assert all(len(r) == len(table["columns"]) for r in table["models"])
    lines = (DATA / "compute.json").read_text().splitlines()
    assert len(lines) >= len(table["models"])  # a row a line


# ---- its numbers, against counts and published facts


def count(shape: dict[str, Any], *, tied: bool, head_dim: int | None, topk: int) -> tuple[int, int]:
    """Parameters of a Llama, Mistral, Qwen2 or Qwen3, total and touched for one token."""
    d, n_layers, heads = shape["hidden_size"], shape["num_hidden_layers"], shape["num_attention_heads"]
    kv, kind = shape.get("num_key_value_heads", heads), shape["model_type"]
    width = head_dim or d // heads
    attention = 2 * d * heads * width + 2 * d * kv * width
    attention += (heads + 2 * kv) * width if kind == "qwen2" else 0
    attention += 2 * width if kind in ("qwen3", "qwen3_moe") else 0
    outer = shape["vocab_size"] * d * (1 if tied else 2) + d
    n = shape.get("num_experts") or shape.get("num_local_experts")
    if not n:
        total = outer + n_layers * (attention + 3 * d * shape["intermediate_size"] + 2 * d)
        return total, total
    one = 3 * d * shape.get("moe_intermediate_size", shape["intermediate_size"])
    return tuple(outer + n_layers * (attention + k * one + n * d + 2 * d) for k in (n, topk))  # type: ignore[return-value]


@pytest.mark.parametrize("name", [r["name"] for r in ROWS if r.get("shape", {}).get("model_type") in (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe") and "parameters" in r and "vocab_size" in r["shape"]
    and r["parameters"] % 10**8])  # fmt: skip
def test_parameters_are_those_of_the_shape(name: str) -> None:
    here = row(name)
    shape = dict(here.shape)
    head = {"Mistral Nemo 12B": 128, "Mistral Small 3 24B": 128}.get(name) or (
        256 if name.startswith("Falcon3") else None
    )
    head = 128 if shape["model_type"] in ("qwen3", "qwen3_moe") else head
    small = ("0.5B", "0.6B", "1.5B", "1.7B", "3B", "4B", "135M", "360M", "1B")
    tied = name.startswith(("Qwen2", "Qwen3", "SmolLM", "Llama 3.2", "Qwen1.5")) and name.endswith(
        tuple(f" {n}" for n in small)
    )
    tied = tied and name != "Qwen1.5 4B" or name.startswith("Qwen3 Embedding")
    total, touched = count(shape, tied=tied, head_dim=head, topk=2 if shape["model_type"] == "mixtral" else 8)
    assert here.parameters == total
    assert here.activated in (None, touched)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Llama 3.1 8B", {"parameters": 8030261248, "tokens": 15e12, "licence": "llama3.1", "released": "2024-07-23"}),
        ("gpt-oss 120B", {"parameters": 116829156672, "activated": 5711982912}),
        ("DeepSeek-V3", {"parameters": 671026419200, "tokens": 14.8e12}),
        ("Kimi K2", {"parameters": 1026408232448, "activated": 32861500928}),
        ("BLOOM 176B", {"parameters": 176247271424, "licence": "bigscience-bloom-rail-1.0"}),
        ("Qwen2.5 72B", {"parameters": 72706203648, "tokens": 18e12, "licence": "qwen"}),
        ("Qwen3 0.6B", {"tokens": 36e12}),
        ("Whisper large v3", {"kind": "speech", "flop": 2.7e23}),
        ("Llama 3.1 405B", {"flop": 3.8e25, "flop_source": "Epoch AI (confident)"}),
        ("GPT-4o", {"kind": "lmm", "modalities_out": ("text", "audio"), "open": "closed"}),
        ("GPT-5", {"released": "2025-08-07", "flop_source": "Epoch AI (speculative)"}),
        ("Galactica 120B", {"scope": "domain", "kind": "llm"}),
        ("BloombergGPT", {"scope": "domain", "open": "none"}),
        ("ESM-2 650M", {"kind": "protein", "scope": "domain"}),
        ("CLIP ViT-L/14", {"kind": "vision-language-embedding", "scope": "foundation"}),
        ("GraphCast", {"modalities_in": ("weather",), "scope": "domain"}),
    ],
)
def test_published_facts(name: str, facts: dict[str, Any]) -> None:
    assert {k: getattr(row(name), k) for k in facts} == facts


# Worked examples of annex A.3 of the Commission's guidelines that have parameters and tokens of models in the table.
@pytest.mark.parametrize(
    ("name", "flop"),
    [("Phi-3 mini", 7.5e22), ("Qwen3 0.6B", 1.3e23), ("Qwen2.5 1.5B", 1.66e23), ("Qwen3 1.7B", 3.7e23)],
)
def test_the_guidelines_worked_examples_come_out(name: str, flop: float) -> None:
    here = row(name)
    assert here.parameters and here.tokens
    assert math.isclose(6 * here.parameters * here.tokens, flop, rel_tol=0.02)


# ---- by name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt-5", "GPT-5"), ("GPT 5", "GPT-5"), ("openai:gpt-5", "GPT-5"), ("gpt-5-2025-08-07", "GPT-5"),
        ("gpt4o", "GPT-4o"), ("gpt-4o-2024-08-06", "GPT-4o"), ("Claude Opus 4.1", "Claude Opus 4.1"),
        ("claude-opus-4-1", "Claude Opus 4.1"), ("claude-opus-4-1-20250805", "Claude Opus 4.1"),
        ("Claude 4.1 Opus", "Claude Opus 4.1"), ("anthropic/claude-sonnet-4-5", "Claude Sonnet 4.5"),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", "Claude Opus 4.1"),
        ("claude-3-7-sonnet-latest", "Claude 3.7 Sonnet"),
        ("alphafold", "AlphaFold 2"), ("AlphaFold3", "AlphaFold 3"), ("sd 3.5 large", "Stable Diffusion 3.5 Large"),
        ("dall-e 3", "DALL·E 3"), ("DALL·E 2", "DALL·E 2"), ("gemini-2.5-pro", "Gemini 2.5 Pro"), ("o3", "o3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1 8B"), ("llama 3.1 8b instruct", "Llama 3.1 8B"),
        ("META LLAMA/../Llama-3.1-8B", "Llama 3.1 8B"), ("gpt2", "GPT-2"), ("tinyllama", "TinyLlama 1.1B"),
        ("bloomberg gpt", "BloombergGPT"), ("pi0", "π0"), ("opus 4.1", "Claude Opus 4.1"), ("kimi-k2", "Kimi K2"),
        ("sora", "Sora"), ("deepseek r1", "DeepSeek-R1"), ("facebook/esm2_t33_650M_UR50D", "ESM-2 650M"),
    ],
)  # fmt: skip
def test_a_name_is_known_however_it_is_spelt(text: str, name: str) -> None:
    assert by_name(text)[0].name == name


def test_an_exact_name_stands_alone_and_an_open_one_gives_several() -> None:
    assert [r.name for r in by_name("GPT-5")] == ["GPT-5"]
    several = [r.name for r in by_name("llama")]
    assert len(several) > 5 and all("Llama" in name for name in several[:5])
    assert by_name("llama")[0].family == "Llama"  # not Llama Guard, though that is newer


@pytest.mark.parametrize(
    "text", ["gpt-6", "nonsense", "", "   ", "/", "🦙", "a" * 100_000, "llama-3.1-8b-by-nobody", "x/y/z"]
)
def test_a_name_that_is_none_is_not_made_one(text: str) -> None:
    assert by_name(text) == []


def test_a_close_miss_is_suggested() -> None:
    assert "Claude Opus 4.1" in suggest("claud opus 4.1")
    assert suggest("qwertyuiopasdfghjkl") == []
    assert len(suggest("a" * 100_000)) <= 5


def test_spellings_that_name_different_models_stay_apart() -> None:
    for one, other in (
        ("Llama 3 8B", "Llama 3.1 8B"),
        ("GPT-4", "GPT-4o"),
        ("o1", "o1-mini"),
        ("Qwen3 8B", "Qwen3 0.6B"),
    ):
        assert key(one) != key(other)
        assert by_name(one)[0].name == one and by_name(other)[0].name == other


def test_epochs_row_by_its_name() -> None:
    found = compute("llama 3.1 405b")
    assert found and found["flop"] == 3.8e25 and found["confidence"] == "Confident"
    assert compute("llama") is None and compute("") is None


def test_the_card_of_a_name_says_that_it_is_from_the_table() -> None:
    card = identify("Claude Opus 4.1")
    assert card.from_table and card.known and card.known.name == "Claude Opus 4.1"
    with pytest.raises(NotFound, match="Did you mean"):
        identify("claud opus 4.1")
    assert from_table("no such model") is None


# ---- by files


def test_a_bare_config_is_its_lineage(tmp_path: Path) -> None:
    found = find(subject(LLAMA_31_8B, tmp_path))
    assert found and (found.name, found.matched) == ("Llama 3.1 8B", "shape")
    assert (find(subject(QWEN3_8B, tmp_path)) or row("GPT-2")).name == "Qwen3 8B"


def test_the_architecture_is_not_the_identity(tmp_path: Path) -> None:
    def name(shape: dict[str, Any]) -> str | None:
        found = find(subject(config_of(shape), tmp_path))
        return found.name if found else None

    for model in ("SmolLM2 135M", "TinyLlama 1.1B", "Yi 6B", "Llama 2 7B", "Chronos T5 small", "T5 small", "Kimi K2"):
        assert name(dict(raw(NUMBER[model])["shape"])) == model
    qwen = dict(raw(NUMBER["Qwen3 8B"])["shape"]) | {"vocab_size": 151665}
    assert name(qwen) == "Qwen3 Embedding 8B"


def test_long_context_tells_llama_3_from_3_1(tmp_path: Path) -> None:
    short = LLAMA_31_8B | {"max_position_embeddings": 8192}
    assert (find(subject(short, tmp_path)) or row("GPT-2")).name == "Llama 3 8B"
    silent = {k: v for k, v in LLAMA_31_8B.items() if k != "max_position_embeddings"}
    both = find(subject(silent, tmp_path))
    assert both and both.name == "Llama 3 8B or Llama 3.1 8B" and both.licence is None and both.family == "Llama"
    assert both.parameters == 8030261248  # what they agree on


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 128258}, {"hidden_size": 4095}, {"num_hidden_layers": 31}, {"num_key_value_heads": 4},
        {"model_type": "mistral"}, {"model_type": None}, {"hidden_size": "4096"}, {"vocab_size": {"n": 1}},
        {"intermediate_size": None},
    ],
)  # fmt: skip
def test_a_shape_that_differs_anywhere_is_nobodys(tmp_path: Path, change: dict[str, Any]) -> None:
    assert find(subject(LLAMA_31_8B | change, tmp_path)) is None


def test_models_of_several_families_with_one_shape_are_nobodys(tmp_path: Path) -> None:
    shared = {}
    for name in ("GPT-2 large", "BERT base uncased", "LLaMA 7B"):
        config = config_of(dict(raw(NUMBER[name])["shape"]))
        shared[name] = len(matching(told(subject(config, tmp_path))))
        assert find(subject(config, tmp_path)) is None
    assert all(n > 1 for n in shared.values())


def test_the_repositorys_name_tells_which_of_a_shape(tmp_path: Path) -> None:
    for name, expected, flavour in (
        ("meta-llama/Llama-3.1-8B", "Llama 3.1 8B", "base"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1 8B", "instruct"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-Distill-Llama-8B", "reasoning"),
        ("META-LLAMA/llama-3.1-8b-instruct", "Llama 3.1 8B", "instruct"),
    ):
        found = find(subject(LLAMA_31_8B, tmp_path, name))
        assert found and found.name == expected and found.matched == "id" and flavour in found.flavours
    base = find(subject(QWEN3_8B, tmp_path, "Qwen/Qwen3-8B-Base"))
    tuned = find(subject(QWEN3_8B, tmp_path, "Qwen/Qwen3-8B"))
    assert base and "base" in base.flavours and tuned and "instruct" in tuned.flavours


def test_a_mirrors_or_a_folders_name_needs_the_shape_to_agree(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-3.1-8B-Instruct"
    folder.mkdir()
    found = find(subject(LLAMA_31_8B, folder))
    assert found and (found.name, found.matched) == ("Llama 3.1 8B", "name") and "instruct" in found.flavours
    mirror = find(subject(LLAMA_31_8B, tmp_path, "someone/DeepSeek-R1-Distill-Llama-8B"))
    assert mirror and (mirror.name, mirror.matched) == ("DeepSeek-R1-Distill-Llama-8B", "name")
    assert (find(subject(QWEN3_8B, folder)) or row("GPT-2")).name == "Qwen3 8B"


def test_files_that_gainsay_the_name_win(tmp_path: Path) -> None:
    found = find(subject(QWEN3_8B, tmp_path, "meta-llama/Llama-3.1-8B"))
    assert found and found.name == "Qwen3 8B" and found.matched == "shape"
    unknown = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2}
    assert find(subject(unknown, tmp_path, "meta-llama/Llama-3.1-8B")) is None


def test_a_base_models_path_in_the_config_is_no_identity(tmp_path: Path) -> None:
    tuned = {"_name_or_path": "meta-llama/Llama-3.1-8B-Instruct", "model_type": "llama", "hidden_size": 64}
    assert find(subject(tuned, tmp_path)) is None


def gguf(arch: str, vocab: int, **numbers: Any) -> dict[str, Any]:
    metadata = {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in numbers.items()}
    embedding = TensorInfo("token_embd.weight", "Q4_K", (vocab, numbers["embedding_length"]), Path("m.gguf"), 0, 0)
    return {"metadata": metadata, "tensors": {"token_embd.weight": embedding}, "format": "gguf"}


def llama_gguf(**more: Any) -> dict[str, Any]:
    numbers = {
        "embedding_length": 4096, "block_count": 32, "feed_forward_length": 14336, "attention.head_count": 32,
        "attention.head_count_kv": 8, "context_length": 131072, "rope.freq_base": 500000.0,
    }  # fmt: skip
    return gguf("llama", more.pop("vocab", 128256), **(numbers | more))


def test_a_gguf_is_known_by_its_shape_and_by_its_own_name(tmp_path: Path) -> None:
    assert (find(subject({}, tmp_path, **llama_gguf())) or row("GPT-2")).name == "Llama 3.1 8B"
    named = llama_gguf()
    named["metadata"] |= {"general.name": "DeepSeek R1 Distill Llama 8B", "general.size_label": "8B"}
    found = find(subject({}, tmp_path, **named))
    assert found and found.name == "DeepSeek-R1-Distill-Llama-8B" and found.matched == "name"
    sized = llama_gguf()
    sized["metadata"] |= {"general.name": "Meta Llama 3.1 8B Instruct", "general.basename": "Meta-Llama-3.1"}
    found = find(subject({}, tmp_path, **sized))
    assert found and found.name == "Llama 3.1 8B" and found.matched == "name"


def test_experts_tell_mixtral_from_mistral_in_a_gguf(tmp_path: Path) -> None:
    dense = llama_gguf(vocab=32000, **{"context_length": 32768, "rope.freq_base": 1000000.0})
    moe = llama_gguf(vocab=32000, **{"context_length": 32768, "rope.freq_base": 1000000.0, "expert_count": 8})
    assert (find(subject({}, tmp_path, **dense)) or row("GPT-2")).name == "Mistral 7B v0.2"
    assert (find(subject({}, tmp_path, **moe)) or row("GPT-2")).name == "Mixtral 8x7B"


def test_a_gguf_whose_name_lies_is_told_by_its_shape(tmp_path: Path) -> None:
    lying = llama_gguf()
    lying["metadata"]["general.name"] = "Qwen3 8B"
    assert (find(subject({}, tmp_path, **lying)) or row("GPT-2")).name == "Llama 3.1 8B"
    for broken in ({"general.architecture": 5}, {"general.architecture": "llama"}, {}):
        assert find(subject({}, tmp_path, metadata=broken, format="gguf")) is None


def test_metas_own_params_are_read(tmp_path: Path) -> None:
    params = {"dim": 16384, "n_layers": 126, "n_heads": 128, "n_kv_heads": 8, "vocab_size": 128256, "norm_eps": 1e-5}
    assert (find(subject(params, tmp_path, format="meta")) or row("GPT-2")).name == "Llama 3.1 405B"
    unsized = {"dim": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": -1}
    assert find(subject(unsized, tmp_path, format="meta")) is None  # Llama 1 and 2, Yi …: files do not tell


def test_whisper_in_openais_own_words(tmp_path: Path) -> None:
    dims = {"n_mels": 128, "n_vocab": 51866, "n_audio_ctx": 1500, "n_audio_state": 1280, "n_audio_layer": 32,
            "n_text_ctx": 448, "n_text_state": 1280, "n_text_layer": 4}  # fmt: skip
    for config in (dims, {"dims": dims}):
        assert (find(subject(config, tmp_path)) or row("GPT-2")).name == "Whisper large v3 turbo"


@pytest.mark.parametrize("junk", [[], {}, "x" * 10**6, True, None, -1, 1e308, [[]] * 1000, {"a": {"b": []}}, "\ud800"])
def test_junk_in_a_config_or_a_header_names_nobody(tmp_path: Path, junk: Any) -> None:
    for config in (
        {k: junk for k in LLAMA_31_8B},
        {"model_type": "llama", "text_config": junk, "rope_parameters": junk, "hidden_size": junk},
        {"dims": junk, "n_audio_state": junk},
        {"dim": junk, "n_layers": junk, "n_heads": junk, "vocab_size": junk, "moe": junk},
    ):
        assert find(subject(config, tmp_path)) is None
    fields = ("general.name", "general.basename", "general.size_label", "llama.block_count", "llama.embedding_length")
    metadata = {"general.architecture": "llama"} | dict.fromkeys(fields, junk)
    assert find(subject({}, tmp_path, format="gguf", metadata=metadata)) is None


def test_a_diffusers_folder_is_known_by_its_denoiser(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (tmp_path / "transformer").mkdir()
    denoiser = {"_class_name": "FluxTransformer2DModel", "num_layers": 19, "num_single_layers": 38, "in_channels": 64}
    for guided, name in ((True, "FLUX.1 dev"), (False, "FLUX.1 schnell")):
        (tmp_path / "transformer/config.json").write_text(json.dumps(denoiser | {"guidance_embeds": guided}))
        here = subject({}, tmp_path, format="diffusers")
        assert (find(here) or row("GPT-2")).name == name


def test_every_shape_leads_to_its_own_row_or_to_none_with_a_reason(tmp_path: Path) -> None:
    for number, one in enumerate(ROWS):
        if "shape" not in one or "_class_name" in one["shape"]:
            continue
        here = told(subject(config_of(one["shape"]), tmp_path))
        assert number in matching(here), one["name"]
        found = agreed([known(n) for n in matching(here) if not raw(n).get("derived_from")])
        assert found is None or found.family == one["family"] or one.get("derived_from"), one["name"]


def test_what_rows_do_not_agree_on_is_left_out() -> None:
    one, other = row("Codestral 22B"), row("Mistral Small 22B 2409")
    both = agreed([one, other])
    assert both and both.parameters == one.parameters and both.licence is None and both.flavours == ()
    assert agreed([one, row("GPT-5")]) is None and agreed([]) is None and agreed([one]) == one


def test_finding_costs_no_more_than_some_milliseconds(tmp_path: Path) -> None:
    code = (
        "import json, sys, time; from pathlib import Path; from brolly.card import Header\n"
        "from brolly.identity.subject import Subject; from brolly.identity import known, shapes\n"
        "here = Subject(Path(sys.argv[2]), Header(Path(sys.argv[2]), 'config', {}, json.loads(sys.argv[1])), [])\n"
        "began = time.process_time(); found = known.find(here)\n"
        "print(time.process_time() - began, found.name)"
    )
    runs = []
    for _ in range(3):
        argv = [sys.executable, "-c", code, json.dumps(LLAMA_31_8B), str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True)
        seconds, name = done.stdout.split(" ", 1)
        assert name.strip() == "Llama 3.1 8B", done.stderr
        runs.append(float(seconds))
    assert min(runs) < 0.015  # 3 ms on the machine it was written on
