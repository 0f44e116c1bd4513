"""What an independent review found wrong, each with what was expected; the configs are as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import brolly
from tests.identity.hollow import gguf_header, hollow_files, llama_shapes, safetensors_header, write_hollow

TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100,
}  # fmt: skip


def folder(path: Path, **texts: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        name = {"config": "config.json", "readme": "README.md"}.get(name, name)
        (path / name).write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def sizes(hidden: int, layers: int, heads: int, kv: int, inner: int, vocab: int, **more: object) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": inner, "vocab_size": vocab, **more,
    }  # fmt: skip


def test_a_class_says_more_than_another_models_type(tmp_path: Path) -> None:
    shape = sizes(8192, 64, 64, 8, 32768, 131072, num_local_experts=8, num_experts_per_tok=2)
    grok = brolly.identify(
        folder(tmp_path / "g", config={"architectures": ["Grok1ForCausalLM"], "model_type": "git"} | shape)
    )
    assert (grok.kind.family, grok.kind.kind, grok.parameters.activated) == ("Grok", "llm", 115_000_000_000)
    shape = sizes(3072, 62, 48, 8, 1536, 200064, head_dim=128, num_local_experts=256, num_experts_per_tok=8)
    config = {"architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax", "use_qk_norm": True} | shape
    minimax = brolly.identify(folder(tmp_path / "m", config=config))
    assert minimax.kind.family == "MiniMax-M2"
    assert round(minimax.parameters.total or 0, -8) == 228_700_000_000
    assert minimax.needs.kv_bytes_per_token == 2 * 62 * 8 * 128 * 2


def test_a_card_without_files_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    text = "---\nlicense: mit\npipeline_tag: text-generation\nbase_model: Qwen/Qwen3-8B\n---\n# X"
    card = brolly.identify(folder(tmp_path / "x", readme=text))
    assert (card.kind.kind, card.licence.id, card.kind.base_model) == ("llm", "mit", ("Qwen/Qwen3-8B",))
    assert card.parameters.total is None and not card.findings and not card.verbs
    with pytest.raises(brolly.errors.BrollyError):
        brolly.identify(folder(tmp_path / "y", readme="# Notes\n"))


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "x")
    (place / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(TINY).encode())
    assert brolly.identify(place).kind.family == "Llama"


def test_a_repository_of_the_cache_is_its_main_revision(tmp_path: Path) -> None:
    root = tmp_path / "models--org--name"
    source = write_hollow(tmp_path / "source", hollow_files(llama_shapes(64, 2, 32, 128, 100), 2, TINY))
    commit = root / "snapshots" / "abc"
    for part in (root / "blobs", commit, root / "snapshots" / "old", root / "refs"):
        part.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        file.rename(root / "blobs" / f"b{number}")
        (commit / file.name).symlink_to(f"../../blobs/b{number}")
    (root / "refs" / "main").write_text("abc")
    card = brolly.identify(root)
    assert (card.name, card.parameters.exact, card.findings) == ("org/name", True, ())


def gguf(path: Path, title: str) -> None:
    pairs = {"general.architecture": "llama", "general.name": title, "llama.block_count": 1}
    head, size = gguf_header(pairs, {"token_embd.weight": ((100, 64), 0)}, {"token_embd.weight": 25600})
    path.write_bytes(head + bytes(size - len(head)))


def test_ggufs_of_several_models_are_told_apart_from_quantisations_of_one(tmp_path: Path) -> None:
    for name in ("Alpha-7B-Q4_K_M.gguf", "Alpha-7B.IQ2_XXS.gguf", "alpha-7b-ud-q8_0.gguf", "mmproj-alpha-f16.gguf"):
        gguf(tmp_path / name, "Alpha")
    assert brolly.identify(tmp_path).findings == ()
    gguf(tmp_path / "beta-q4_0.gguf", "Beta")
    assert [f.id for f in brolly.identify(tmp_path).findings] == ["several-models"]


@pytest.mark.parametrize(
    ("name", "kind", "family", "licence"),
    [
        ("flux", "image", "FLUX", None),
        ("flux schnell", "image", "FLUX", "apache-2.0"),
        ("stable diffusion", "image", "Stable Diffusion", None),
        ("granite 4", "llm", "Granite", "apache-2.0"),
        ("granite 3.3", "llm", "Granite", "apache-2.0"),
        ("udio", "music", "Udio", None),
        ("xlm-r", "text-encoder", "XLM-RoBERTa", "mit"),
        ("kosmos-2", "lmm", "KOSMOS-2", "mit"),
    ],
)
def test_a_name_that_could_be_several_tells_what_they_share(name: str, kind: str, family: str, licence: str) -> None:
    card = brolly.identify(name)
    assert (card.kind.kind, card.kind.family, card.licence.id) == (kind, family, licence)


def test_an_adapter_of_an_image_model_is_of_its_bases_kind(tmp_path: Path) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q.lora_"
    tensors = {f"{name}A.weight": (16, 64), f"{name}B.weight": (64, 16)}
    (head, size) = safetensors_header(tensors)
    for base, kind in (("black-forest-labs/FLUX.1-dev", "image"), ("someone/something", "image"), ("", None)):
        place = folder(tmp_path / f"x{len(base)}")
        (place / "pytorch_lora_weights.safetensors").write_bytes(head + bytes(size - len(head)))
        tags = "tags: [text-to-image, lora]\n" if base == "someone/something" else ""
        stated = f"base_model: {base}\n" if base else "license: mit\n"
        card = brolly.identify(folder(place, readme=f"---\n{stated}{tags}---\n"))
        assert (card.kind.kind, card.kind.relation) == (kind, "adapter")


@pytest.mark.parametrize(
    ("name", "kind", "is_llm"),
    [("facebook/nllb-200-3.3B", "other", False), ("nllb 200", "other", False), ("florence-2 large", "lmm", False)],
)
def test_the_table_agrees_with_the_files(name: str, kind: str, is_llm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    card = brolly.identify(name)
    assert (card.kind.kind, card.kind.is_llm) == (kind, is_llm)


@pytest.mark.parametrize(
    "name", ["openai/gpt-4o", "x-ai/grok-4", "google/gemini-2.5-pro", "mistralai/mistral-medium-3"]
)
def test_a_closed_model_is_known_by_its_makers_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert brolly.identify(name).row
    with pytest.raises(brolly.errors.BrollyError):
        brolly.identify("someone/" + name.partition("/")[2])


def test_broken_yaml_names_no_base(tmp_path: Path) -> None:
    text = "---\nlicense: mit\nbase_model: : :\n\t- '{x'\n---\n"
    card = brolly.identify(folder(tmp_path, config=TINY, readme=text))
    assert (card.kind.base_model, card.kind.relation) == ((), None)


def test_an_adapter_in_gguf_names_its_base(tmp_path: Path) -> None:
    pairs = {
        "general.architecture": "llama", "general.type": "adapter", "general.base_model.count": 1,
        "general.base_model.0.repo_url": "https://huggingface.co/meta-llama/Llama-3.1-8B",
    }  # fmt: skip
    tensors = {f"blk.0.attn_q.weight.lora_{x}": (shape, 0) for x, shape in (("a", (8, 64)), ("b", (64, 8)))}
    head, size = gguf_header(pairs, tensors, dict.fromkeys(tensors, 2048))
    (tmp_path / "lora.gguf").write_bytes(head + bytes(size - len(head)))
    card = brolly.identify(tmp_path / "lora.gguf")
    assert (card.kind.relation, card.kind.base_model) == ("adapter", ("meta-llama/Llama-3.1-8B",))


@pytest.mark.parametrize("task", ["text-generation", "text-to-speech"])
def test_a_shape_is_no_name(tmp_path: Path, task: str) -> None:
    shape = sizes(4096, 32, 32, 8, 14336, 128256, max_position_embeddings=131072)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"} | shape
    card = brolly.identify(folder(tmp_path, config=config, readme=f"---\nlicense: mit\npipeline_tag: {task}\n---\n"))
    assert (card.name, card.json()["name"], card.shaped_as) == (None, None, "Llama 3.1 8B")


@pytest.mark.parametrize(
    ("config", "total"),
    [
        ({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}}, 129_135_360),
        (
            {"d_model": 2560, "n_layer": 64, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}, "d_intermediate": 0,
             "pad_vocab_size_multiple": 16, "attn_layer_idx": []},
            2_702_599_680,
        ),
        ({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "attn_layer_idx": [3]}, None),
        ({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 0}, None),
    ],
)  # fmt: skip
def test_mambas_own_config_is_counted(tmp_path: Path, config: dict[str, Any], total: int | None) -> None:
    assert brolly.identify(folder(tmp_path, config=config)).parameters.total == total


def test_siglip_2_is_told_by_its_vocabulary(tmp_path: Path) -> None:
    config = {"architectures": ["SiglipModel"], "model_type": "siglip", "vision_config": {"hidden_size": 768}}
    for vocab, family in ((256_000, "SigLIP 2"), (32_000, "SigLIP")):
        card = brolly.identify(folder(tmp_path, config=config | {"text_config": {"vocab_size": vocab}}))
        assert card.kind.family == family


def test_a_motion_adapter_is_no_controlnet(tmp_path: Path) -> None:
    kind = brolly.identify(folder(tmp_path, config={"_class_name": "MotionAdapter"})).kind
    assert (kind.family, kind.kind, "controlnet" in kind.flavours) == ("AnimateDiff", "video", False)
