"""What a run leaves behind: a Hugging Face folder that transformers reads too, and the loss as a picture."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly.checkpoint import write_safetensors
from brolly.train.recipe import Recipe


def export(recipe: Recipe, network: nn.Module, tokenizer: Path) -> Path:
    """Write out/model/: config, bfloat16 weights, tokenizer, chat template, generation config, card."""
    folder, words, shape = recipe.out / "model", recipe.tokenizer, recipe.model
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.part"):  # of an export that was killed
        stale.unlink()
    rows = []
    for name, parameter in network.named_parameters():
        rows.append((name, "BF16", tuple(parameter.shape), partial(as_bytes, parameter.detach(), torch.bfloat16)))
    write_safetensors(folder / "model.safetensors", rows, {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": words.vocab_size, "hidden_size": shape.dim, "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads, "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.dim // shape.n_heads, "intermediate_size": shape.hidden_dim, "hidden_act": "silu",
        "rms_norm_eps": shape.norm_eps, "rope_theta": shape.rope_theta, "max_position_embeddings": shape.context,
        "tie_word_embeddings": True, "eos_token_id": 0, "bos_token_id": None, "attention_bias": False,
        "mlp_bias": False,
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


def as_bytes(tensor: Tensor, dtype: torch.dtype) -> bytearray:
    """The tensor's numbers in `dtype`, row-major."""
    out = bytearray(tensor.numel() * dtype.itemsize)
    if out:
        torch.frombuffer(out, dtype=dtype).view(tensor.shape).copy_(tensor)
    return out


def write_whole(path: Path, text: str) -> None:
    """A text file that appears under its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)


def read_log(log: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl; a line cut short by a kill is left out."""
    rows = []
    for line in log.read_text("utf-8").splitlines() if log.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def plot(log: Path, picture: Path, title: str, width: int = 760, height: int = 400) -> None:
    """The loss over the steps as an SVG: training in grey, each held-out source in a colour of its own."""
    rows = read_log(log)
    lines: dict[str, list[tuple[int, float]]] = {"training": [(r["step"], r["loss"]) for r in rows if "loss" in r]}
    for row in rows:
        for name, found in row.get("held", {}).items():
            lines.setdefault(f"{name}, held out", []).append((row["step"], found["loss"]))
    points = [p for line in lines.values() for p in line]
    if not lines["training"]:
        return
    shown = "".join(filter(str.isprintable, title))  # XML holds no control characters
    low, high, last = min(y for _, y in points), max(y for _, y in points), max(x for x, _ in points)
    left, top, right, bottom = 50, 40, width - 20, height - 40
    colours = ("#aaaaaa", "#c0392b", "#2471a3", "#1e8449", "#9a7d0a", "#7d3c98", "#117a65", "#a04000")

    def across(x: float) -> float:
        return left + (right - left) * x / last

    def down(y: float) -> float:
        return top + (bottom - top) * (high - y) / (high - low or 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="22" font-size="15">{escape(shown)}: loss, nats a token</text>',
    ]
    for part in range(5):
        y, x = low + (high - low) * part / 4, round(last * part / 4)
        out.append(f'<path d="M{left} {down(y):.1f}H{right}" stroke="#eeeeee"/>')
        out.append(f'<text x="{left - 6}" y="{down(y) + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        out.append(f'<text x="{across(x):.1f}" y="{bottom + 20}" text-anchor="middle">{x:,}</text>')
    for n, (name, line) in enumerate(lines.items()):
        colour, thin = colours[n % len(colours)], line[:: max(1, len(line) // 2000)]
        way = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in thin)
        out.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="{1 if n == 0 else 2}"/>')
        out.append(f'<text x="{right - 8}" y="{top + 16 + 16 * n}" fill="{colour}" text-anchor="end">')
        out.append(f"{escape(name)} {line[-1][1]:.3f}</text>")
    out.append(f'<text x="{width / 2}" y="{height - 5}" text-anchor="middle">steps</text></svg>')
    write_whole(picture, "\n".join(out) + "\n")
