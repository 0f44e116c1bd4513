"""What each of two processes does in test_shared.py: several tunings, one after the other, in one group."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from brolly.train.tuning import tune
from brolly.train.tuning.shared import joined
from brolly.train.tuning.tune import Stopped
from brolly.verbs import Lora

HOW: dict[str, Any] = {
    "steps": 6, "batch": 7, "part": 30, "dtype": "float32", "lr": 2e-3, "held_out": 0.1, "eval_every": 3,
    "device": "cpu",
}  # fmt: skip
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama", {"lora": Lora(rank=4)}),
    "LoRA, sharded": ("llama", {"lora": Lora(rank=4), "shard": True}),
    "GPT-2 in 4 bits, sharded": ("gpt2", {"lora": Lora(rank=4, bits=4), "shard": True}),
    "full, sharded": ("llama", {"lora": None, "shard": True, "checkpointing": True}),
    "full, an example too few": ("gpt2", {"lora": None, "batch": 1}),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    data = folder / "d.jsonl"
    with joined() as world:
        for name, (base, options) in RUNS.items():
            tune(folder / base, data, out=folder / "two" / name, **HOW | options)
        again = {**HOW, **RUNS["full, sharded"][1]}
        tune(folder / "llama", data, out=folder / "begun by one", resume=True, save_every=2, **again)

        def stop(event: dict[str, Any]) -> None:
            if event["event"] == "step" and event["step"] == 3:
                os.kill(os.getpid(), signal.SIGTERM)  # to the first alone: both must end

        try:
            tune(folder / "llama", data, out=folder / "begun by two", progress=stop, **again)
        except Stopped as told:
            (folder / f"stopped {world.rank}").write_text(f"{told.step}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
