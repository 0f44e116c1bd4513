"""Sizes of whole models: from tensors, from a config alone, from the table; what is missing is told, never guessed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import CheckpointError
from brolly.identity.answers import Known
from brolly.identity.sizes import from_known, parameters_of, size_class
from tests.identity.published import TEXT, TOTALS
from tests.identity.published import llama as config_of
from tests.identity.shaped import llama, subject_of

CONFIG = config_of(512, 2, 8, 2, 1024, 3000)
PLAIN = llama(512, 2, 128, 1024, 3000)
TRUE = 7_531_008


@pytest.mark.parametrize("activated,name", [
    (1, "micro"), (749_999_999, "micro"), (750_000_000, "small"), (9_999_999_999, "small"), (10**10, "medium"),
    (4 * 10**10, "large"), (99_999_999_999, "large"), (10**11, "frontier"), (None, None), (0, None),
])  # fmt: skip
def test_classes_are_by_what_a_token_activates(activated: int | None, name: str | None) -> None:
    assert size_class(activated) == name


@pytest.mark.parametrize("name,expected", [
    ("bloom", "frontier"), ("falcon-180b", "frontier"), ("deepseek-r1", "medium"), ("kimi-k2", "medium"),
    ("gpt-oss-120b", "small"), ("qwen2.5-0.5b", "micro"), ("llama-3.1-70b", "large"), ("mistral-large-2", "frontier"),
])  # fmt: skip
def test_known_models_fall_into_their_classes(tmp_path: Path, name: str, expected: str) -> None:
    found = parameters_of(subject_of(tmp_path, TEXT[name], {}, "config"))
    assert found.size_class == expected and found.source == "config" and found.exact


def test_tensors_and_config_agree_and_say_so(tmp_path: Path) -> None:
    found = parameters_of(subject_of(tmp_path, CONFIG, PLAIN))
    assert (found.total, found.exact, found.source, found.precision) == (TRUE, True, "tensors", "BF16")
    assert any("config alone gives the same" in e.rule for e in found.why)
    assert sum(found.components.values()) == TRUE and found.components["embedding"] == 3000 * 512
    assert found.activated == TRUE and found.quantization is None and found.shares == {"BF16": 1.0}


def test_tensors_win_over_a_config_that_says_otherwise(tmp_path: Path) -> None:
    found = parameters_of(subject_of(tmp_path, {**CONFIG, "intermediate_size": 4096}, PLAIN))
    assert found.total == TRUE and any("the tensors are believed" in e.rule for e in found.why)


def test_mixed_precision_is_told_by_share(tmp_path: Path) -> None:
    shapes = {n: ("F32" if "embed" in n or "lm_head" in n else d, s) for n, (d, s) in PLAIN.items()}
    found = parameters_of(subject_of(tmp_path, CONFIG, shapes))
    assert found.precision == "BF16" and found.shares["F32"] == pytest.approx(2 * 3000 * 512 / TRUE)


def test_a_missing_shard_leaves_the_config_to_count(tmp_path: Path) -> None:
    half = dict(list(PLAIN.items())[:10])
    lost = CheckpointError("a shard is missing", "missing-shards")
    found = parameters_of(subject_of(tmp_path, CONFIG, half, faults=[lost]))
    assert (found.total, found.exact, found.source) == (TRUE, True, "config")
    unknown = parameters_of(subject_of(tmp_path, {"model_type": "never_heard_of"}, half, faults=[lost]))
    assert unknown.exact is False and unknown.source == "tensors"


def test_a_broken_file_leaves_the_config_to_count(tmp_path: Path) -> None:
    half = dict(list(PLAIN.items())[:10])
    found = parameters_of(subject_of(tmp_path, CONFIG, half, faults=[CheckpointError("broken")]))
    assert found.total == TRUE and found.source == "config"


def test_unknown_types_without_weights_are_not_guessed(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "never_heard_of"}
    found = parameters_of(subject_of(tmp_path, config, {}, "config"))
    assert (found.total, found.activated, found.exact, found.source) == (None, None, False, None)
    assert parameters_of(subject_of(tmp_path, config, PLAIN)).total == TRUE


def test_a_bare_model_has_no_head(tmp_path: Path) -> None:
    bare = {n: v for n, v in PLAIN.items() if "lm_head" not in n}
    config = {**CONFIG, "architectures": ["LlamaModel"]}
    alone, counted = (
        parameters_of(subject_of(tmp_path, config, {}, "config")),
        parameters_of(subject_of(tmp_path, config, bare)),
    )
    assert alone.total == counted.total == TRUE - 3000 * 512
    assert counted.activated_without_embeddings == TRUE - 2 * 3000 * 512
    judge = parameters_of(
        subject_of(tmp_path, {**CONFIG, "architectures": ["LlamaForSequenceClassification"]}, {}, "config")
    )
    assert not judge.exact


def test_vision_and_language_are_told_apart(tmp_path: Path) -> None:
    shapes: dict[str, Any] = {f"language_model.{n}": v for n, v in PLAIN.items()}
    shapes |= {"vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": ("BF16", (64, 32)),
               "multi_modal_projector.linear_1.weight": ("BF16", (512, 32)),
               "audio_tower.layers.0.fc1.weight": ("BF16", (10, 10))}  # fmt: skip
    found = parameters_of(subject_of(tmp_path, {"model_type": "llava", "text_config": CONFIG}, shapes))
    assert found.total == TRUE + 64 * 32 + 512 * 32 + 100
    assert (found.components["vision"], found.components["projection"], found.components["audio"]) == (2048, 16384, 100)
    assert found.components["lm_head"] == 3000 * 512


def test_parts_of_a_pipeline_are_its_components(tmp_path: Path) -> None:
    shapes: dict[str, Any] = {
        "unet/conv_in.weight": ("F16", (320, 4, 3, 3)),
        "vae/conv_in.weight": ("F16", (512, 4, 3, 3)),
        "text_encoder/text_model.embeddings.token_embedding.weight": ("F16", (49408, 768)),
    }
    found = parameters_of(subject_of(tmp_path, {"components": {}}, shapes, "diffusers"))
    assert found.components == {"text_encoder": 49408 * 768, "vae": 512 * 36, "unet": 320 * 36}
    assert found.activated == found.total and found.exact
    loose = parameters_of(subject_of(tmp_path, {}, {"in/linear/weights": ("F32", (4, 4))}, "npz"))
    assert loose.components == {"other": 16}


def test_a_mixture_whose_config_does_not_say_how_many_is_left_open(tmp_path: Path) -> None:
    shapes = {
        "model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (8, 8)),
        "model.embed_tokens.weight": ("BF16", (9, 8)),
    }
    found = parameters_of(subject_of(tmp_path, {"model_type": "never_heard_of"}, shapes))
    assert found.total == 136 and found.activated is None and found.size_class is None
    told = parameters_of(
        subject_of(tmp_path, {"model_type": "new", "num_experts": 4, "num_experts_per_tok": 1}, shapes)
    )
    assert told.activated == 136 - 48


def test_hundreds_of_tensors_take_milliseconds(tmp_path: Path) -> None:
    shapes = llama(8192, 80, 1024, 28672, 128256)
    subject = subject_of(tmp_path, TEXT["llama-3.1-70b"], shapes)
    parameters_of(subject_of(tmp_path, TEXT["llama-3.1-70b"], {}, "config"))  # tables read
    start = time.perf_counter()
    found = parameters_of(subject)
    assert time.perf_counter() - start < 0.05  # 3 ms on a quiet machine
    assert len(shapes) == 723 and found.total == TOTALS["llama-3.1-70b"]


def test_the_table_of_known_models_is_named_as_source() -> None:
    row = Known("X", "x", "Org", "llm", ("text",), ("text",), parameters=8_000_000_000,
                sources={"parameters": {"url": "https://example.org/x", "date": "2026-01-01"}})  # fmt: skip
    found = from_known(row)
    assert (found.total, found.activated, found.exact, found.source) == (8_000_000_000, 8_000_000_000, False, "table")
    assert found.size_class == "small" and "https://example.org/x" in found.why[0].rule
    assert from_known(Known("Y", "y", "Org", "llm", ("text",), ("text",))).total is None


@pytest.mark.parametrize("config", [
    {"quantization_config": []}, {"quantization_config": {"quant_method": 7}}, {"quantization": {"bits": -1}},
    {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"a": 1, "b": {"weights": []}}}},
    {"quantization_config": {"quant_method": "gptq", "bits": "4", "group_size": 1e300}}, {"torch_dtype": ["x"]},
    {"architectures": [None]}, {"architectures": 3}, {"tie_word_embeddings": "yes"},
    {"num_nextn_predict_layers": 10**9},
    {"text_config": {"quantization_config": {"quant_method": "awq"}}}, {"quantization": {"group_size": 64, "bits": 4}},
])  # fmt: skip
def test_no_config_breaks_the_count(tmp_path: Path, config: dict[str, Any]) -> None:
    assert parameters_of(subject_of(tmp_path, {**CONFIG, **config}, PLAIN)).total
    parameters_of(subject_of(tmp_path, {**CONFIG, **config}, {}, "config"))


ODD: list[Any] = [
    None, True, 0, -1, 2**31, 2**80, 1.5, float("nan"), float("inf"), "", "auto", [], [1], [None] * 64, {}, {"a": 1},
    [[1]],
    {"rope_type": "yarn", "factor": 4}, ["full_attention"] * 5,
]  # fmt: skip


def test_spoilt_configs_and_tensors_end_in_an_answer(tmp_path: Path) -> None:
    """Seeded: published configs with odd values, packed models with odd shapes; none may raise, none may take long."""
    import random

    from brolly.identity.needs import needs_of
    from tests.identity.shaped import packed_linear
    from tests.identity.test_packed import PACKERS

    draw = random.Random(4)
    configs = [*TEXT.values(), *({**CONFIG, **p[2]} for p in PACKERS)]
    models = [{}, PLAIN, *(packed_linear(PLAIN, p[1]) for p in PACKERS)]
    for _ in range(300):
        config, shapes = dict(draw.choice(configs)), dict(draw.choice(models))
        for _ in range(draw.randint(1, 4)):
            config[draw.choice(list(config))] = draw.choice(ODD)
        for name in draw.sample(list(shapes), min(3, len(shapes))):
            shape = draw.choice([(), (0,), (7,), (3, 5), (1, 1, 4, 4), (2, 3, 4)])
            shapes[name] = draw.choice(["BF16", "U8", "I32", "F8_E8M0", "I64", "U32", "Q4_K"]), shape
        subject = subject_of(tmp_path, config, shapes, "safetensors" if shapes else "config")
        start = time.perf_counter()
        needs_of(subject, parameters_of(subject))
        assert time.perf_counter() - start < 1, config


def test_a_list_where_a_factor_belongs_fills_no_memory(tmp_path: Path) -> None:
    config = {**TEXT["lfm2-1.2b"], "block_ff_dim": 2**31, "block_ffn_dim_multiplier": [1]}
    assert parameters_of(subject_of(tmp_path, config, {}, "config")).total is None
