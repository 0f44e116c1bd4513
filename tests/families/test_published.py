"""The largest published checkpoints, without their bytes: every tensor of their lists finds its place on meta."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from math import prod
from pathlib import Path

import pytest
import torch

import brolly
from brolly import models
from brolly.card import Header, TensorInfo
from brolly.checkpoint import Mapped, read_header
from brolly.families import recognise
from brolly.fill import fill, places
from tests.families.layouts import INNER, OUTER

Shapes = dict[str, tuple[int, ...]]
LARGE = dict(  # Mistral Large 2 (2407): 123 billion parameters
    dim=12288, n_layers=88, n_heads=96, n_kv_heads=8, head_dim=128, hidden_dim=28672, vocab_size=32768, norm_eps=1e-5,
    rope_theta=1e6,
)  # fmt: skip
LLAMA_70B = dict(  # params.json of Llama 3.1 70B
    dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, vocab_size=128256, ffn_dim_multiplier=1.3, multiple_of=4096,
    norm_eps=1e-5, rope_theta=500000.0, use_scaled_rope=True,
)  # fmt: skip


def shapes(dim: int, n_layers: int, q: int, kv: int, hidden: int, vocab: int) -> Shapes:
    """Every tensor of a Llama in Hugging Face's names, from the paper's equations."""
    out: Shapes = {
        "model.embed_tokens.weight": (vocab, dim),
        "model.norm.weight": (dim,),
        "lm_head.weight": (vocab, dim),
    }
    parts: Shapes = {
        "input_layernorm": (dim,), "post_attention_layernorm": (dim,), "self_attn.q_proj": (q, dim),
        "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim), "self_attn.o_proj": (dim, q),
        "mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim), "mlp.down_proj": (dim, hidden),
    }  # fmt: skip
    return out | {f"model.layers.{i}.{part}.weight": shape for i in range(n_layers) for part, shape in parts.items()}


def own_names(given: Shapes) -> Shapes:
    """The same in Meta's and Mistral's names."""
    out = {}
    for name, shape in given.items():
        stem = name.removesuffix(".weight")
        if stem in OUTER:
            out[f"{OUTER[stem]}.weight"] = shape
        else:
            _, _, index, part = stem.split(".", 3)
            out[f"layers.{index}.{INNER[part]}.weight"] = shape
    return out


def write_hollow(path: Path, tensors: Shapes, dtype: str = "BF16") -> None:
    """A safetensors file with a true header and a hole where the numbers would be."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def check_fits(header: Header, family: str, n_params: int, n_tensors: int) -> None:
    card = recognise(header)
    assert card.family.name == family
    with torch.device("meta"):
        network = models.build(card.config)
    parameters = dict(network.named_parameters())
    found = places(card, parameters)
    assert len(found) == n_tensors
    for target, (info, _) in found.items():
        assert whole_shape(info, parameters[target].shape) == parameters[target].shape, target
    assert sum(p.numel() for p in parameters.values()) == n_params


def whole_shape(info: TensorInfo, expected: Iterable[int]) -> tuple[int, ...]:
    """The pieces' shape, joined along the one dimension in which they fall short."""
    n = len(info.shards) or 1
    return tuple(have if have == want else have * n for have, want in zip(info.shape, expected, strict=True))


def test_llama_70b_as_hugging_face_publishes_it(shared: Path, tmp_path: Path) -> None:
    published = shared / "data" / "configs" / "llama3.1-70b-reflection"
    index = json.loads((published / "model.safetensors.index.json").read_text())
    for name in ("config.json", "model.safetensors.index.json"):
        (tmp_path / name).write_bytes((published / name).read_bytes())
    sizes = shapes(8192, 80, 8192, 1024, 28672, 128262)
    assert sizes.keys() == index["weight_map"].keys()
    for shard in set(index["weight_map"].values()):
        write_hollow(tmp_path / shard, {n: sizes[n] for n, s in index["weight_map"].items() if s == shard}, "F32")
    header = read_header(tmp_path)
    assert header.n_bytes == index["metadata"]["total_size"]
    check_fits(header, "Llama", 70_553_804_800, 723)


@pytest.mark.parametrize("by_column", [True, False], ids=["embedding by column", "embedding by row"])
def test_llama_70b_as_meta_publishes_it(tmp_path: Path, by_column: bool) -> None:
    """Eight model-parallel ranks."""
    tensors = {}
    for name, shape in own_names(shapes(8192, 80, 8192, 1024, 28672, 128256)).items():
        column = name.endswith(("wo.weight", "w2.weight")) or (by_column and name.startswith("tok_embeddings"))
        cut = list(shape)
        if len(shape) == 2:
            cut[int(column)] //= 8
        files = [tmp_path / f"consolidated.{rank:02d}.pth" for rank in range(8 if len(shape) == 2 else 1)]
        pieces = tuple(TensorInfo(name, "BF16", tuple(cut), file, 0, 2 * prod(cut)) for file in files)
        first = pieces[0]
        tensors[name] = TensorInfo(name, "BF16", first.shape, first.file, 0, first.nbytes, None, pieces)
    check_fits(Header(tmp_path, "meta", tensors, LLAMA_70B), "Llama", 70_553_706_496, 723)


def test_mistral_large_as_mistral_publishes_it(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(LARGE))
    write_hollow(tmp_path / "consolidated.safetensors", own_names(shapes(12288, 88, 12288, 1024, 28672, 32768)))
    check_fits(read_header(tmp_path), "Mistral", 122_610_069_504, 795)


def test_mistral_large_as_hugging_face_publishes_it(tmp_path: Path) -> None:
    config = dict(
        model_type="mistral", architectures=["MistralForCausalLM"], hidden_size=12288, num_hidden_layers=88,
        num_attention_heads=96, num_key_value_heads=8, head_dim=128, intermediate_size=28672, vocab_size=32768,
        max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=1e6, sliding_window=None,
        tie_word_embeddings=False, torch_dtype="bfloat16",
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_hollow(tmp_path / "model.safetensors", shapes(12288, 88, 12288, 1024, 28672, 32768))
    check_fits(read_header(tmp_path), "Mistral", 122_610_069_504, 795)


STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)


@pytest.mark.parametrize("layout", ["stories260K.bin", "transformers"])
def test_a_trained_model_tells_its_published_story(shared: Path, tmp_path: Path, layout: str) -> None:
    """llama2.c prints this story for the same file at temperature 0 (doc/stories260K.md there)."""
    source = shared / "data" / "stories260k"
    folder = tmp_path / "model"
    folder.mkdir()
    files = sorted((source / layout).iterdir()) if layout == "transformers" else [source / layout]
    for path in [*files, source / "tok512.bin"]:
        (folder / path.name).symlink_to(path)
    model = brolly.load(folder if layout == "transformers" else folder / layout)
    assert model.generate("Once upon a time", max_tokens=120, temperature=0).text.startswith(STORY[16:])


def test_the_two_layouts_agree(shared: Path) -> None:
    source = shared / "data" / "stories260k"
    tensors = []
    for path in (source / "stories260K.bin", source / "transformers"):
        card = recognise(read_header(path))
        network, _ = fill(card, Mapped(card.header), torch.device("cpu"), torch.float32)
        tensors.append(dict(network.named_parameters()))
    binary, hugging_face = tensors
    assert binary.keys() == hugging_face.keys()
    assert all(torch.equal(binary[name], hugging_face[name]) for name in binary)
