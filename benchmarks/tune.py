"""LoRA on this CPU: brolly's tuning beside transformers + peft, the same checkpoint and tokens, in turn in one run.

python benchmarks/tune.py [--size 135M --size 1.1B] [--case equal --case mixed] [--side …] [--rounds 3] [--steps 1]

Weights are random and in the shapes of SmolLM2-135M and TinyLlama-1.1B (benchmarks/llm.py), bfloat16 and frozen; LoRA
of rank 16 on all linear layers of the blocks, its numbers and AdamW's (fused) in float32, gradients clipped at 1.
equal: 4 sequences of 512 tokens, all of them learnt. mixed: 8 of 50 to 512 tokens, drawn evenly, the first half of each
a prompt that is not learnt; peft gets them padded to the longest, as its users' collators do, and brolly packs them.
A step is everything from tokens to moved numbers: brolly's is the body of the loop in brolly.train.tuning.tune, peft's
the model's own loss, backward, clip, AdamW; its adapters are float32, which is its default, and its attention SDPA.
A side is a process of its own that sleeps while others are timed; its first step is not counted. Memory is a process's
highest resident size (VmHWM), with all libraries, loading, and the weights' pages that are mapped from the file.
FLOP are those that must be: 4 a frozen weight of a matrix and token (the head's for learnt tokens alone), 6 a number of
LoRA's, and causal attention, forward and backward; the limit is a bfloat16 product of 4096³ timed between the rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, arguments, matmul_flops, median, seconds, serve, show, table
from benchmarks.llm import SHAPES, make, memory

RANK, LR = 16, 1e-4
CASES = {"equal": "4 × 512 tokens, all learnt", "mixed": "8 × 50 to 512 tokens, half learnt"}
SIDES = {
    "brolly": "brolly", "peft": "transformers + peft", "brolly-checkpointing": "brolly, checkpointing",
    "peft-checkpointing": "transformers + peft, checkpointing",
}  # fmt: skip
OTHER = {"peft": "brolly", "peft-checkpointing": "brolly-checkpointing"}  # which of ours stands beside it


def examples(case: str, step: int, n_words: int) -> list[tuple[list[int], list[bool]]]:
    """A step's sequences: ids, and which of them are learnt. The first never is."""
    draw = Random(step)
    lengths = [512] * 4 if case == "equal" else [draw.randint(50, 512) for _ in range(8)]
    prompts = [1 if case == "equal" else n // 2 for n in lengths]
    return [
        ([draw.randrange(n_words) for _ in range(n)], [i >= m for i in range(n)])
        for n, m in zip(lengths, prompts, strict=True)
    ]


def brolly_step(folder: str, checkpointing: bool) -> tuple[Callable[[Any], float], str]:
    """A function that takes examples through a step and gives the loss before it; and which path it takes."""
    import torch

    from brolly.kernels.pages import keep_memory
    from brolly.loader import load
    from brolly.train.tuning.examples import Tokens
    from brolly.train.tuning.lora import put_in
    from brolly.train.tuning.objectives import choose
    from brolly.train.tuning.prepare import cut
    from brolly.train.tuning.quick import quicken
    from brolly.verbs import Lora, TuneOptions

    keep_memory()
    student = load(folder, dtype="bfloat16", fused=False)
    put_in(student.network, Lora(rank=RANK))
    path = quicken(student.network, checkpointing)
    asked = TuneOptions(lr=LR)
    objective = choose(student, "text", asked)
    trained = [p for p in student.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0, fused=True)
    student.network.train()

    def step(given: Any) -> float:
        batch = [Tokens(*one) for one in given]
        loss = objective.backward(cut(batch, objective, asked), sum(map(objective.weight, batch)))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step, path


def peft_step(folder: str, checkpointing: bool) -> tuple[Callable[[Any], float], str]:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.nn.utils.rnn import pad_sequence

    transformers.utils.logging.disable_progress_bar()
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    base.config.use_cache = False
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, lora)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0, fused=True)
    model.train()

    def step(given: Any) -> float:
        ids = [torch.tensor(one) for one, _ in given]
        labels = [torch.where(torch.tensor(learnt), i, -100) for i, (_, learnt) in zip(ids, given, strict=True)]
        batch = {"input_ids": pad_sequence(ids, True, 0), "labels": pad_sequence(labels, True, -100)}
        if len({len(i) for i in ids}) > 1:
            batch["attention_mask"] = pad_sequence([torch.ones_like(i) for i in ids], True, 0)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step, f"attention: {base.config._attn_implementation}; adapters in {str(trained[0].dtype)}"


def work(side: str, folder: str, case: str, n_words: str) -> None:
    """A side's process: steps when asked."""
    name, _, checkpointing = side.partition("-")
    step, path = (brolly_step if name == "brolly" else peft_step)(folder, bool(checkpointing))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        batches = [examples(case, i, int(n_words)) for i in question["steps"]]
        losses: list[float] = []
        took = seconds(lambda: losses.extend(map(step, batches)))
        n_tokens = sum(len(ids) for batch in batches for ids, _ in batch)
        return {"speed": n_tokens / took, "losses": losses, "memory": memory("VmHWM"), "path": path}

    serve(answer)


def flop_per_token(shape: dict[str, Any], case: str, steps: list[int]) -> float:
    """What must be computed for a token of these steps, on average."""
    dim, hidden, n_layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    kv_dim = dim // shape["num_attention_heads"] * shape["num_key_value_heads"]
    sides = [(dim, dim), (dim, kv_dim), (dim, kv_dim), (dim, dim), (dim, hidden), (dim, hidden), (hidden, dim)]
    frozen, low = sum(a * b for a, b in sides), RANK * sum(a + b for a, b in sides)
    sequences = [one for step in steps for one in examples(case, step, 2)]
    n_tokens, n_learnt = sum(len(ids) for ids, _ in sequences), sum(sum(learnt) for _, learnt in sequences)
    pairs = sum(len(ids) * (len(ids) + 1) / 2 for ids, _ in sequences)  # 2 products forward, 5 backward
    head = 4 * shape["vocab_size"] * dim * n_learnt
    return n_layers * (4 * frozen + 6 * low) + (head + n_layers * 7 * 2 * dim * pairs) / n_tokens


def measure(size: str, case: str, sides: list[str], rounds: int, n_steps: int, folder: Path) -> dict[str, Any]:
    shape = SHAPES[size]
    make(folder, shape)
    first: dict[str, Any] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    limits, steps = [matmul_flops()], [list(range(1 + i * n_steps, 1 + (i + 1) * n_steps)) for i in range(rounds)]
    pairs = [[s for s in sides if ("-" in s) is twice] for twice in (False, True)]  # all four would not fit in memory
    for pair in filter(None, pairs):
        workers = {side: Worker(__file__, side, str(folder), case, str(shape["vocab_size"])) for side in pair}
        first |= {side: worker.ask(steps=[0]) for side, worker in workers.items()}
        for numbers in steps:
            for side in pair:
                found.setdefault(side, []).append(workers[side].ask(steps=numbers))
                limits.append(matmul_flops())
            speeds = ", ".join(f"{side} {found[side][-1]['speed']:,.0f}" for side in pair)
            print(f"{size} {case}: {speeds} tokens/s", file=sys.stderr, flush=True)
        for worker in workers.values():
            worker.close()
    flop = flop_per_token(shape, case, [i for numbers in steps for i in numbers])
    return dict(size=size, case=case, first=first, found=found, limit=max(limits), flop=flop)


def report(result: dict[str, Any]) -> str:
    rows = [["", "tokens/s", "share of the FLOP limit", "peak memory", "first loss", "brolly: faster by", "memory"]]
    found, first = result["found"], result["first"]
    for side, measured in found.items():
        speed, peak = median([one["speed"] for one in measured]), measured[-1]["memory"]
        share = f"{speed * result['flop'] / result['limit']:.0%}"
        beside = ["", ""]
        if ours := found.get(OTHER.get(side, "")):
            pairs = [a["speed"] / b["speed"] for a, b in zip(ours, measured, strict=True)]
            beside = [
                f"{median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})",
                f"{ours[-1]['memory'] / peak:.2f}×",
            ]
        rows.append(
            [
                SIDES[side], f"{speed:,.0f}", share, f"{peak / 2**30:.2f} GiB", f"{first[side]['losses'][0]:.4f}",
                *beside,
            ]
        )  # fmt: skip
    losses = [one["losses"][0] for one in first.values()]
    if max(losses) - min(losses) > 0.01 * min(losses):
        raise SystemExit(f"the sides do not compute the same: their first losses are {losses}")
    lines = [f"### {result['size']}, {CASES[result['case']]}", "", table(rows), ""]
    lines.append(f"{result['flop'] / 1e9:.2f} GFLOP a token; limit {result['limit'] / 1e12:.2f} TFLOP/s in this run.")
    return "\n".join(lines + [f"{side}: {one['path']}." for side, one in first.items()])


def main() -> None:
    parser = arguments(__doc__, "--size", SHAPES)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--side", action="append", choices=SIDES, help="default: all")
    parser.add_argument("--steps", type=int, default=1, help="a side and round (default: 1)")
    given = parser.parse_args()
    sides = [side for side in SIDES if side in (given.side or SIDES)]
    ways = [
        (lambda size, folder, case=case: measure(size, case, sides, given.rounds, given.steps, folder), report)
        for case in given.case or CASES
    ]
    show(given.size or SHAPES, given.json, ("torch", "transformers", "peft"), *ways)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
