"""Small random language models of three families, and examples that can be learnt in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.engine.test_adapters import write_gpt2
from tests.run import checkpoints

COLOURS = ("red", "blue", "green", "grey")


def write_qwen2(folder: Path) -> Any:
    """A random Qwen2: biases on query, key and value."""
    import transformers as T

    backend = checkpoints.write_tokenizer(folder)
    torch.manual_seed(2)
    reference = T.Qwen2ForCausalLM(
        T.Qwen2Config(
            vocab_size=backend.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=checkpoints.CONTEXT,
            initializer_range=0.2, tie_word_embeddings=False, bos_token_id=None,
            eos_token_id=backend.token_to_id(checkpoints.END),
        )
    ).eval()  # fmt: skip
    for name, parameter in reference.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    reference.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return reference


WRITE = {
    "llama": checkpoints.write_llama,
    "tied llama": lambda folder: checkpoints.write_llama(folder, tie_word_embeddings=True),
    "qwen2": write_qwen2,
    "gpt2": write_gpt2,
}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def facts(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"fox {i} is", "completion": f" {COLOURS[i * 7 % 4]}."} for i in range(n)]
