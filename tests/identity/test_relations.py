"""What a model was made from: adapters, quantisations, merges, drafts, fine-tunes; and what tells no relation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brolly.card import Header, TensorInfo
from brolly.identity.answers import Kind, Known
from brolly.identity.kinds import kind_of
from brolly.identity.subject import Subject

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
META = "meta-llama/Llama-3.1-8B"


def told(
    path: Path,
    config: dict[str, Any] | None = None,
    readme: str = "",
    tensors: dict[str, tuple[str, tuple[int, ...]]] | None = None,
    metadata: dict[str, Any] | None = None,
    name: str | None = None,
    known: Known | None = None,
    form: str = "safetensors",
    file: str = "model.safetensors",
    **others: Any,
) -> Kind:
    """The kind of a folder with these files; `tensors` are dtype and shape by name, without bytes."""
    for stem, content in others.items():
        (path / f"{stem}.json").write_text(json.dumps(content))
    if readme:
        (path / "README.md").write_text(f"---\n{readme}\n---\n")
    rows = {n: TensorInfo(n, dtype, shape, path / file, 0, 0) for n, (dtype, shape) in (tensors or {}).items()}
    files = (path / file,) if rows else ()
    return kind_of(Subject(path, Header(path, form, rows, config or {}, metadata or {}, files), [], name), known)


def lora(base: str, **more: Any) -> dict[str, Any]:
    return {
        "adapter_config": {"peft_type": "LORA", "base_model_name_or_path": base, **more},
        "file": "adapter_model.safetensors",
    }


PAIR = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", (8, 64)),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": ("F32", (64, 8)),
}


@pytest.mark.parametrize(
    ("base", "task", "kind", "family"),
    [
        ("meta-llama/Llama-2-7b-hf", "CAUSAL_LM", "llm", "Llama"),
        ("mistralai/Mistral-7B-v0.1", "CAUSAL_LM", "llm", "Mistral"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "CAUSAL_LM", "lmm", "Qwen2.5-VL"),
        ("google/flan-t5-large", "SEQ_2_SEQ_LM", "llm", "Flan-T5"),
        ("openai/whisper-large-v2", None, "speech", "Whisper"),
        ("stabilityai/stable-diffusion-xl-base-1.0", None, "image", "SDXL"),
        ("google-bert/bert-base-uncased", "SEQ_CLS", "text-encoder", "BERT"),
        ("meta-llama/Llama-2-7b-hf", "SEQ_CLS", "other", "Llama"),
        ("/home/me/some-model", "CAUSAL_LM", "llm", None),
    ],
)
def test_a_peft_adapter_is_told_with_its_base(
    tmp_path: Path, base: str, task: str | None, kind: str, family: str | None
) -> None:
    found = told(tmp_path, tensors=PAIR, **lora(base, task_type=task))
    assert (found.relation, found.kind, found.family) == ("adapter", kind, family)
    assert found.base_model == (base.strip("/"),)
    if kind == "llm":
        assert found.sentence.startswith("A part of one: an adapter")


def test_adapter_tensors_alone_tell_the_relation_and_the_kind(tmp_path: Path) -> None:
    alone = told(tmp_path, tensors=PAIR)
    assert (alone.relation, alone.kind, alone.base_model) == ("adapter", "llm", ())
    flux = {"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": ("BF16", (16, 3072)),
            "transformer.single_transformer_blocks.0.attn.to_k.lora_B.weight": ("BF16", (3072, 16))}  # fmt: skip
    assert (told(tmp_path, tensors=flux).relation, told(tmp_path, tensors=flux).family) == ("adapter", "FLUX")
    block = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    for width, family in ((768, "Stable Diffusion"), (2048, "SDXL")):
        kohya = {f"{block}.lora_down.weight": ("F16", (16, width)), f"{block}.lora_up.weight": ("F16", (640, 16))}
        assert told(tmp_path, tensors=kohya).family == family
    unknown = {"zork.lora_A.weight": ("F16", (8, 8)), "zork.lora_B.weight": ("F16", (8, 8))}
    assert (told(tmp_path, tensors=unknown).relation, told(tmp_path, tensors=unknown).kind) == ("adapter", None)


def test_a_published_lora_of_stable_diffusion_is_told(shared: Path) -> None:
    from brolly.checkpoint import read_header

    path = shared / "data" / "lora" / "lora_disney.safetensors"
    found = kind_of(Subject(path, read_header(path), [], None), None)
    assert (found.relation, found.kind, found.family) == ("adapter", "image", "Stable Diffusion")


def test_an_adapter_config_left_beside_whole_weights_makes_no_adapter(tmp_path: Path) -> None:
    whole = {"model.layers.0.self_attn.q_proj.weight": ("BF16", (64, 64))}
    others = lora(META) | {"file": "model.safetensors"}
    assert told(tmp_path, LLAMA, tensors=whole, **others).relation is None


QUANTISED = {"model.layers.0.self_attn.q_proj.qweight": ("I32", (8, 64)), "model.norm.weight": ("F16", (64,))}
PLAIN = {"model.layers.0.self_attn.q_proj.weight": ("BF16", (64, 64)), "model.norm.weight": ("BF16", (64,))}


@pytest.mark.parametrize(
    "extra",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
        {"quantization": {"group_size": 64, "bits": 4}},
    ],
)
def test_a_quantised_copy_is_told_by_its_config(tmp_path: Path, extra: dict[str, Any]) -> None:
    found = told(tmp_path, LLAMA | extra, tensors=QUANTISED)
    assert (found.relation, found.base_model, found.kind) == ("quantized", (), "llm")
    based = told(tmp_path, LLAMA | extra, readme=f"base_model: {META}", tensors=QUANTISED)
    assert (based.relation, based.base_model) == ("quantized", (META,))


def test_bits_that_the_tensors_do_not_have_make_no_quantised_copy(tmp_path: Path) -> None:
    config = LLAMA | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    assert told(tmp_path, config, tensors=PLAIN).relation is None  # QLoRA, merged and saved in full


@pytest.mark.parametrize(
    ("model_type", "method"),
    [
        ("gpt_oss", "mxfp4"),
        ("deepseek_v3", "fp8"),
        ("kimi_k2", "fp8"),
        ("kimi_k25", "compressed-tensors"),
        ("bitnet", "bitnet"),
    ],
)
def test_models_published_in_few_bits_are_no_quantised_copies(tmp_path: Path, model_type: str, method: str) -> None:
    config = {"model_type": model_type, "quantization_config": {"quant_method": method}}
    assert told(tmp_path, config, tensors=QUANTISED).relation is None
    stated = told(tmp_path, config, tensors=QUANTISED, readme="base_model: a/b\nbase_model_relation: quantized")
    assert (stated.relation, stated.base_model) == ("quantized", ("a/b",))


def gguf(path: Path, dtype: str, readme: str = "", **metadata: Any) -> Kind:
    keys = {"general.architecture": "llama"} | {k.replace("__", "."): v for k, v in metadata.items()}
    tensors = {"blk.0.attn_q.weight": (dtype, (256, 256)), "output_norm.weight": ("F32", (256,))}
    return told(path, metadata=keys, tensors=tensors,
                form="gguf", file="model.gguf", readme=readme)  # fmt: skip


def test_gguf_blocks_of_few_bits_are_a_quantised_copy_and_full_numbers_are_not(tmp_path: Path) -> None:
    assert gguf(tmp_path, "Q4_K").relation == "quantized"
    assert gguf(tmp_path, "F16").relation is None and gguf(tmp_path, "BF16").relation is None
    keys = {"general.base_model.count": 1, "general.base_model.0.repo_url": f"https://huggingface.co/{META}"}
    found = gguf(tmp_path, "Q8_0", **keys)
    assert (found.relation, found.base_model) == ("quantized", (META,))
    named = {
        "general.base_model.count": 1,
        "general.base_model.0.name": "Qwen3 8B",
        "general.base_model.0.organization": "Qwen",
    }
    assert gguf(tmp_path, "Q8_0", **named).base_model == ("Qwen/Qwen3 8B",)
    native = {"general.architecture": "gpt-oss"}
    assert gguf(tmp_path, "MXFP4", **native).relation is None
    assert gguf(tmp_path, "F16", **{"general.type": "adapter"} | keys).relation == "adapter"


def test_the_card_of_a_quantised_copy_names_the_base_before_ggufs_keys_do(tmp_path: Path) -> None:
    keys = {"general.base_model.count": 1, "general.base_model.0.repo_url": f"https://huggingface.co/{META}"}
    found = gguf(tmp_path, "Q4_K", readme=f"base_model: {META}-Instruct\nbase_model_relation: quantized", **keys)
    assert (found.relation, found.base_model) == ("quantized", (f"{META}-Instruct",))


def test_a_merge_is_told_by_its_recipe_its_tags_or_its_several_bases(tmp_path: Path) -> None:
    for i, readme in enumerate(("base_model:\n- a/one\n- b/two", "base_model:\n- a/one\ntags:\n- mergekit\n- merge")):
        (tmp_path / str(i)).mkdir()
        found = told(tmp_path / str(i), LLAMA, readme=readme)
        assert found.relation == "merge" and found.base_model[0] == "a/one"
    recipe = "merge_method: slerp\nbase_model: a/one\nslices:\n- sources:\n  - model: a/one\n  - model: b/two\n"
    (tmp_path / "mergekit_config.yml").write_text(recipe)
    found = told(tmp_path, LLAMA)
    assert (found.relation, set(found.base_model)) == ("merge", {"a/one", "b/two"})


def test_drafts_are_told_with_their_target(tmp_path: Path) -> None:
    eagle = {"fc.weight": ("F16", (64, 128)), "layers.0.self_attn.q_proj.weight": ("F16", (64, 64))}
    assert told(tmp_path, LLAMA, tensors=eagle).relation == "draft"
    eagle3 = {"d2t": ("I64", (100,)), "t2d": ("BOOL", (1000,)), "midlayer.mlp.up_proj.weight": ("F16", (8, 8))}
    assert told(tmp_path, LLAMA | {"architectures": ["LlamaForCausalLMEagle3"]}, tensors=eagle3).relation == "draft"
    medusa = told(tmp_path, {"medusa_num_heads": 5, "base_model_name_or_path": "lmsys/vicuna-7b-v1.3"})
    assert (medusa.relation, medusa.base_model, medusa.kind) == ("draft", ("lmsys/vicuna-7b-v1.3",), "llm")
    speculator = {"speculators_model_type": "eagle3", "speculators_config": {"verifier": {"name_or_path": META}}}
    found = told(tmp_path, speculator | {"architectures": ["Eagle3Speculator"]})
    assert (found.relation, found.base_model) == ("draft", (META,))
    assert found.sentence.startswith("A part of one: a draft")


def test_a_base_on_the_card_makes_a_fine_tune_unless_the_card_says_more(tmp_path: Path) -> None:
    found = told(tmp_path, LLAMA, readme=f"base_model: {META}", tensors=PLAIN)
    assert (found.relation, found.base_model) == ("finetune", (META,))
    assert any(e.line == "relation" and e.file == "README.md" for e in found.why)
    assert told(tmp_path, LLAMA, readme=f"base_model: https://huggingface.co/{META}").base_model == (META,)
    merged = told(tmp_path, LLAMA, readme=f"base_model: {META}\nbase_model_relation: merge")
    assert merged.relation == "merge"


def test_a_model_is_not_its_own_base(tmp_path: Path) -> None:
    found = told(tmp_path, LLAMA, readme=f"base_model: {META}", name=META)
    assert (found.relation, found.base_model) == (None, ())


def test_nothing_said_is_no_relation(tmp_path: Path) -> None:
    found = told(tmp_path, LLAMA | {"_name_or_path": META}, tensors=PLAIN)
    assert (found.relation, found.base_model) == (None, ())
    assert any(e.key == "_name_or_path" for e in found.why)  # told as evidence, and nothing concluded


def test_hostile_cards_and_configs_are_bounded(tmp_path: Path) -> None:
    many = "base_model:\n" + "\n".join(f"- a/{'x' * 5000}{i}" for i in range(500))
    found = told(tmp_path, LLAMA, readme=many)
    assert len(found.base_model) <= 16 and all(len(b) <= 200 for b in found.base_model)
    evil = {
        "model_type": "llama",
        "quantization_config": {"quant_method": "gptq\n\x1b[31m" * 1000},
        "speculators_config": 7,
    }
    assert told(tmp_path, evil).kind == "llm"
    assert (
        told(tmp_path, {"adapter_config": 1}, adapter_config={"peft_type": ["x"], "base_model_name_or_path": {}})
        is not None
    )
    counts = {"general.base_model.count": 2**31, "general.architecture": "llama"}
    assert told(tmp_path, metadata=counts, form="gguf", tensors={"x": ("Q4_K", (256, 256))}).relation is not None
