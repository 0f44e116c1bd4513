"""TRL's trainers on mini-llm beside our objectives on the same numbers, in float32."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.rows import open_rows
from brolly.train.tuning.lora import put_in, switched_off
from brolly.train.tuning.objectives import Prepares, choose
from brolly.verbs import Lora, TuneOptions

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")


def student(dtype: str = "float32", **lora: Any) -> Any:
    """mini-llm with a LoRA whose every number is drawn, and its layers."""
    model = brolly.load("mini-llm", dtype=dtype, fused=False)
    layers = put_in(model.network, Lora(rank=4, alpha=8, **lora))
    torch.manual_seed(0)
    for layer in layers.values():
        torch.nn.init.normal_(layer.lora_A, std=0.05)
        torch.nn.init.normal_(layer.lora_B, std=0.05)
    return model, layers


def learnt(rows: list[dict[str, Any]], **options: Any) -> Any:
    """An objective whose reference is mini-llm, its examples, the model and its LoRA."""
    model, layers = student()
    read = open_rows(rows)
    objective: Any = choose(model, read.shape, TuneOptions(**options))
    if isinstance(objective, Prepares):
        with switched_off(model.network):
            objective.prepare(read, range(len(rows)))
    return objective, [objective.example(row) for row in read], model, layers


def trl_trainer(
    kind: str, rows: list[dict[str, Any]], layers: dict[str, Any], folder: Path, reward_funcs: Any = None, **config: Any
) -> Any:
    """TRL's trainer on mini-llm in float32 with PEFT's LoRA of the same numbers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if kind == "ORPO":
        import trl.experimental.orpo as home
    else:
        home = trl
    base = Path(brolly.__file__).parent / "minis" / "mini-llm"
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    args = getattr(home, f"{kind}Config")(
        output_dir=str(folder), per_device_train_batch_size=len(rows), use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, **config,
    )  # fmt: skip
    judges = {"reward_funcs": reward_funcs} if reward_funcs else {}
    trainer = getattr(home, f"{kind}Trainer")(
        model=network, **judges, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear"),
    )  # fmt: skip
    theirs = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, layer in layers.items():
            for part in ("A", "B"):
                theirs[f"base_model.model.{name}.lora_{part}.default.weight"].copy_(getattr(layer, f"lora_{part}"))
    return trainer


def check_gradients(layers: dict[str, Any], trainer: Any) -> None:
    theirs = dict(trainer.model.named_parameters())
    for name, layer in layers.items():
        for part in ("A", "B"):
            expected = theirs[f"base_model.model.{name}.lora_{part}.default.weight"].grad
            found = getattr(layer, f"lora_{part}").grad
            scale = float(expected.abs().max())
            assert scale > 0 and float((found - expected).abs().max()) < 1e-5 * max(scale, 1.0), name
            assert float((found - expected).abs().max()) / scale < 1e-3, name
