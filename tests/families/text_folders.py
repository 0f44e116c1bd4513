"""Small folders of text encoders as their publishers lay them out, with a vocabulary that a test can read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.test_language import noisy

T = pytest.importorskip("transformers")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *LETTERS, *".,!?':-", *(f"##{c}" for c in LETTERS), "the", "dog", "cat", "##ing", "query", "東"]
SIZES: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40
)
TEXTS = ["the dog", "cat", "The Cat, dogging: é!", "", "a " * 60, "東京 the 'the' cat-dog?"]


def write(path: Path, found: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def vocabulary(folder: Path, words: list[str] = WORDS) -> Path:
    """BERT's vocab.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def bert(folder: Path, kind: str = "BertModel", **changes: Any) -> Path:
    """A BERT and its tokenizer, as transformers writes them."""
    torch.manual_seed(0)
    model = noisy(getattr(T, kind)(T.BertConfig(vocab_size=len(WORDS), **(SIZES | changes))))
    T.BertTokenizer.from_pretrained(vocabulary(folder)).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    model.save_pretrained(folder)
    return folder


def qwen3(folder: Path, tied: bool = True) -> Path:
    """A Qwen3 of random weights, and a tokenizer that ends each text as Qwen3-Embedding's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate([*alphabet, "yes", "no", "ye"])}, [("y", "e"), ("ye", "s"), ("n", "o")]
        )
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(marks)
    end = marks[0], backend.token_to_id(marks[0])
    backend.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    T.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=marks[2], pad_token=marks[0]).save_pretrained(folder)
    torch.manual_seed(0)
    config = T.Qwen3Config(
        vocab_size=backend.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
        tie_word_embeddings=tied,
    )  # fmt: skip
    noisy(T.Qwen3ForCausalLM(config)).save_pretrained(folder)
    return folder


def modules(folder: Path, *rows: tuple[str, str, Mapping[str, Any] | None], **said: Any) -> Path:
    """modules.json of (folder, type, config) rows, and config_sentence_transformers.json where anything is `said`."""
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind, _) in enumerate(rows)]
    write(folder / "modules.json", listed)
    for path, _, config in rows:
        if config is not None:
            write(folder / path / "config.json", config)
    if said:
        write(folder / "config_sentence_transformers.json", {"__version__": {}, **said})
    return folder


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


GGUF = {
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
    "mlp.fc11": "ffn_up", "mlp.fc12": "ffn_gate", "mlp.fc2": "ffn_down", "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output", "norm1": "attn_output_norm", "norm2": "layer_output_norm",
    "emb_ln": "token_embd_norm",
}  # fmt: skip


def gguf_file(path: Path, tensors: Mapping[str, Any], arch: str, pooling: int, theta: float | None = None) -> Path:
    """An encoder and its vocabulary as llama.cpp's converter writes them."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(40)
    writer.add_embedding_length(32)
    writer.add_block_count(3)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    if theta:
        writer.add_rope_freq_base(theta)
    words = [w if w in SPECIAL else w.removeprefix("##") if w.startswith("##") else f"▁{w}" for w in WORDS]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(words)
    writer.add_token_types([3 if w in SPECIAL else 1 for w in WORDS])
    for word, role in zip(
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), ("pad", "unk", "bos", "sep", "mask"), strict=True
    ):
        getattr(writer, f"add_{role}_token_id")(WORDS.index(word))
    for name, tensor in tensors.items():
        stem, _, leaf = name.removeprefix("pooler.").rpartition(".")
        parts = stem.split(".")
        block = f"blk.{parts[2]}." if parts[0] == "encoder" else ""
        known = GGUF.get(".".join(parts[3:]) if block else stem)
        if known and not name.startswith("pooler."):
            writer.add_tensor(f"{block}{known}.{leaf}", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
