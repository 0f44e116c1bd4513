"""What a run leaves behind: a Hugging Face folder that transformers reads too, and the loss as a picture."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brolly.checkpoint import write_safetensors
from brolly.train.recipe import Recipe


def export(recipe: Recipe, network: nn.Module, tokenizer: Path) -> Path:
    """Write out/model/: config, bfloat16 weights, tokenizer, chat template, generation config, card."""
    folder, words, shape = recipe.out / "model", recipe.tokenizer, recipe.model
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, parameter in network.named_parameters():
        half = parameter.detach().to(torch.bfloat16).cpu().contiguous()
        rows.append((name, "BF16", tuple(half.shape), half.view(torch.int16).numpy()))
    write_safetensors(folder / "model.safetensors", rows, {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": words.vocab_size, "hidden_size": shape.dim, "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads, "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.dim // shape.n_heads, "intermediate_size": shape.hidden_dim, "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps, "rope_theta": shape.rope_theta, "max_position_embeddings": shape.context,
        "tie_word_embeddings": True, "eos_token_id": 0, "bos_token_id": None, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    texts: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": 0, "do_sample": True, **recipe.generation},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": words.special[0], "pad_token": words.special[0],
            "model_max_length": shape.context, "clean_up_tokenization_spaces": False,
            **({"chat_template": words.chat_template} if words.chat_template else {}),
        },
    }  # fmt: skip
    for name, content in texts.items():
        write_whole(folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    shutil.copyfile(tokenizer, folder / "tokenizer.json.part")
    os.replace(folder / "tokenizer.json.part", folder / "tokenizer.json")
    if recipe.card:
        write_whole(folder / "README.md", recipe.card)
    return folder


def write_whole(path: Path, text: str) -> None:
    """A text file that appears under its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)


def plot(log: Path, picture: Path, width: int = 720, height: int = 360) -> None:
    """The loss over the steps as an SVG: training in grey, held-out sources as points."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [(r["step"], r["loss"]) for r in rows if "loss" in r]
    held = [(r["step"], v["loss"]) for r in rows if "held" in r for v in r["held"].values()]
    if not steps:
        return
    low, high = min(y for _, y in steps + held), max(y for _, y in steps + held)
    last = max(x for x, _ in steps)

    def at(x: float, y: float) -> str:
        return f"{50 + (width - 70) * x / last:.1f},{20 + (height - 60) * (high - y) / (high - low or 1):.1f}"

    line = " ".join(at(*p) for p in steps)
    dots = "".join(f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="#c0392b"/>' for p in (at(*h) for h in held))
    ticks = "".join(
        f'<text x="44" y="{at(0, y).split(",")[1]}" text-anchor="end">{y:.2f}</text>'
        for y in (low, (low + high) / 2, high)
    )
    write_whole(
        picture,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/><polyline points="{line}" fill="none" stroke="#555"/>{dots}{ticks}'
        f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">steps to {last}; loss (nats a token), held out in red</text>'
        "</svg>\n",
    )
