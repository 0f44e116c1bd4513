"""Predicts and measures tunings' memory in forks of one process, for test_memory.py: a JSON line each."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

from brolly import models
from brolly.configs import GPT2Config, LlamaConfig, Rope
from brolly.kernels import adam8, tuning
from brolly.kernels.pages import keep_memory
from brolly.train.tuning.entropy import token_losses
from brolly.train.tuning.lora import put_in
from brolly.train.tuning.memory import Watch, predict
from brolly.train.tuning.optimizers import make
from brolly.train.tuning.packing import Packed, positions
from brolly.train.tuning.quick import quicken
from brolly.train.tuning.recompute import recompute
from brolly.verbs import Lora, TuneOptions

LLAMA = LlamaConfig(
    4000, 384, 5, 6, 3, 64, 1024, 1e-5, 1024, Rope(), (None,) * 5, tied_head=True, qkv_bias=False, o_bias=False,
    mlp_bias=False, qk_norm=False,
)  # fmt: skip
GPT2 = GPT2Config(4000, 384, 5, 6, 64, 1536, 1e-5, 1024, True)
TOKENS, TIMES = 128, 6  # of a sequence; sequences of a part
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama", {"lora": Lora(rank=8)}),
    "LoRA, checkpointing": ("llama", {"lora": Lora(rank=8), "checkpointing": True}),
    "full": ("llama", {}),
    "full, checkpointing": ("llama", {"checkpointing": True}),
    "full, 8 bits, four parts": ("llama", {"optimizer": "adamw8bit", "parts": 4, "checkpointing": True}),
}


def weigh(name: str, small: bool = False) -> dict[str, Any]:
    """Bytes predicted by part, and by how much the process grew."""
    kind, options = CASES[name]
    watch = Watch(torch.device("cpu"))
    torch.manual_seed(0)
    config: Any = LLAMA if kind == "llama" else GPT2
    if small:
        config = config._replace(dim=64, n_layers=1, n_heads=2, head_dim=32, hidden_dim=64, vocab_size=4000)
        config = config._replace(n_kv_heads=2, windows=(None,)) if kind == "llama" else config
    network: Any = models.build(config)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.02)
    lora, checkpointing = options.get("lora"), bool(options.get("checkpointing"))
    if lora:
        put_in(network, lora)
        quicken(network, checkpointing)
    if checkpointing:
        recompute(network)
    network.train()
    ids = torch.randint(0, 4000, (TOKENS * TIMES,))

    def once(n: int) -> None:
        lengths = [TOKENS] * n
        some = ids[: TOKENS * n]
        hidden = network(some[None], positions(lengths), Packed(config, lengths))[0]
        token_losses(hidden, network.output.weight, some).sum().backward()

    optimizer = options.get("optimizer", "adamw")
    told = predict(network, once, TIMES, TOKENS * TIMES, optimizer=optimizer, checkpointing=checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        trained = [p for p in network.parameters() if p.requires_grad]
        mover = make(trained, TuneOptions(optimizer=optimizer), 1e-4, Path(folder))
        for _ in range(2):
            for _ in range(options.get("parts", 1)):
                once(TIMES)
            mover.step()
            mover.zero_grad()
    return {"name": name, **told.parts, "total": told.total, "measured": watch.peak - watch.before}


def main() -> None:
    torch.set_num_threads(1)
    keep_memory()
    tuning.library(), adam8.library("adam8")  # compiled, if need be, before anything is weighed
    for name in sys.argv[1:] or CASES:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            try:
                weigh(name, small=True)  # torch's own code and tables are in memory now
                print(json.dumps(weigh(name)), flush=True)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


if __name__ == "__main__":
    main()
