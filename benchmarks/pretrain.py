"""Pre-training on this CPU: brolly's loop beside transformers' Trainer, the same model, batches and optimiser, in turn.

python benchmarks/pretrain.py [--rounds 3] [--steps 12] [--also-compiled]

The model and the batch are those of recipes/mini-llm.toml, the data are random tokens, and both sides see the same
batches in the same order. Both: weights and AdamW (fused, betas 0.9 and 0.95, decay 0.01) in float32, matrix products
in bfloat16 under autocast, clipping at 1, a rate that falls by a line. Each side runs as it comes: brolly compiles
its loss where there is a C++ compiler (`compile = true`, its default), Trainer does not (`torch_compile=False`, its
default); --also-compiled adds a Trainer that does. A side is a process of its own that sleeps while the other is
timed. A round trains from the start: the first steps (compilation, first touches) are not counted, the rest by the
clock from the end of one step to the end of another, with all that the loop does between. FLOP: 6 a weight of a
matrix and token, and causal attention, forward and backward; the limit is a large bfloat16 matrix product timed
between the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, machine, matmul_flops, median, serve, table

RECIPE = Path(__file__).parent.parent / "recipes" / "mini-llm.toml"
N_UNCOUNTED, N_TOKENS, LR = 4, 2**20, 1e-3
SIDES = {"brolly": "brolly", "trainer": "transformers Trainer", "trainer-compiled": "the same, torch_compile=True"}


def recipe_of(folder: Path, out: str, n_steps: int) -> Any:
    """mini-llm's shape and batch, on `folder`/text.txt, with AdamW and a rate that falls by a line."""
    from brolly.train.recipe import Recipe, Run, Shape, Stage, Words

    raw = tomllib.loads(RECIPE.read_text("utf-8"))
    run = Run(
        steps=n_steps, batch=raw["train"]["batch"], lr=LR, dtype=raw["train"]["dtype"], optimizer="adamw",
        warmup=0, schedule="linear", decay_from=0.0, floor=0.0, eval_every=10**6, save_every=10**6,
    )  # fmt: skip
    return Recipe(
        name="benchmark", model=Shape(**raw["model"]), tokenizer=Words(raw["tokenizer"]["vocab_size"]),
        sources={"random": folder / "text.txt"}, held_out=0.0, stages=(Stage(1.0, {"random": 1.0}),), train=run,
        generation={}, card="", out=folder / out, path=RECIPE,
    )  # fmt: skip


def make_data(folder: Path) -> None:
    """A prepared run whose tokens are random; its tokenizer is only there to be exported."""
    import torch

    from brolly.train.data import prepare

    (folder / "text.txt").write_text("Once upon a time.")
    recipe = recipe_of(folder, "data-of-all", 1)
    ids = torch.randint(recipe.tokenizer.vocab_size, (N_TOKENS,), generator=torch.Generator().manual_seed(0))
    (prepare(recipe) / "random.train").write_bytes(ids.to(torch.uint16).numpy().tobytes())


def train_brolly(folder: Path, name: str, n_steps: int) -> tuple[list[float], float]:
    """The clock at the end of each step, and the mean loss."""
    from brolly.train import loop

    clock: list[float] = []
    losses: list[float] = []

    class Log(loop.Log):
        def step(self, step: int, loss: float, norm: float, lr: float, n_tokens: int) -> None:
            super().step(step, loss, norm, lr, n_tokens)
            clock.append(time.perf_counter())
            losses.append(loss)

    recipe = recipe_of(folder, name, n_steps)
    recipe.out.mkdir()
    (recipe.out / "data").symlink_to(folder / "data-of-all" / "data")
    plain, loop.Log = loop.Log, Log  # type: ignore[misc]
    try:
        loop.train(recipe)
    finally:
        loop.Log = plain  # type: ignore[misc]
    return clock, sum(losses) / len(losses)


def train_transformers(folder: Path, name: str, n_steps: int, compiled: bool) -> tuple[list[float], float]:
    """The clock at the end of each step, and the mean loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from brolly.train.data import Tokens, prepare

    recipe = recipe_of(folder, "data-of-all", n_steps)
    tokens, shape, run = Tokens(recipe, prepare(recipe)), recipe.model, recipe.train
    examples = [
        {"input_ids": ids, "labels": ids}  # Trainer's model moves the labels by one itself
        for step in range(n_steps)
        for ids in tokens.batch(step, range(run.batch))[0]
    ]
    torch.manual_seed(run.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.tokenizer.vocab_size, hidden_size=shape.dim, intermediate_size=shape.hidden_dim,
            num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, num_key_value_heads=shape.n_kv_heads,
            max_position_embeddings=shape.context, rms_norm_eps=shape.norm_eps, tie_word_embeddings=True,
            use_cache=False, bos_token_id=None, eos_token_id=0,
        )
    )  # fmt: skip
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(folder / name), max_steps=n_steps, per_device_train_batch_size=run.batch, learning_rate=LR,
        adam_beta1=0.9, adam_beta2=0.95, weight_decay=run.weight_decay, max_grad_norm=run.clip,
        lr_scheduler_type="linear", warmup_steps=0, optim="adamw_torch_fused", bf16=True, use_cpu=True,
        train_sampling_strategy="sequential", save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=n_steps, torch_compile=compiled, seed=run.seed,
    )  # fmt: skip
    done = Trainer(model, arguments, train_dataset=examples, callbacks=[Clock()]).train()
    return clock, done.training_loss


def flop_per_token(shape: Any, vocab_size: int) -> float:
    """Forward and backward: 6 a weight of a matrix (the tied head once), and half of all pairs for attention."""
    head_dim = shape.dim // shape.n_heads
    weights = 2 * shape.dim**2 + 2 * shape.dim * shape.n_kv_heads * head_dim + 3 * shape.dim * shape.hidden_dim
    pairs = shape.context / 2 * shape.dim  # products of queries and keys; as many again with the values
    return 6 * (shape.n_layers * weights + vocab_size * shape.dim) + 3 * 2 * 2 * shape.n_layers * pairs


def work(side: str, folder: Path) -> None:
    """A side's process: train when asked, answer with tokens a second and the mean loss."""

    def answer(question: dict[str, Any]) -> dict[str, float]:
        name, n_steps = question["name"], question["steps"]
        train = (folder, f"{side}-{name}", n_steps + N_UNCOUNTED)
        clock, loss = train_brolly(*train) if side == "brolly" else train_transformers(*train, side != "trainer")
        recipe = recipe_of(folder, "data-of-all", 1)
        n_tokens = n_steps * recipe.train.batch * recipe.model.context
        return {"tokens_per_s": n_tokens / (clock[-1] - clock[N_UNCOUNTED - 1]), "loss": loss}

    serve(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="pairs, in turn (default: 3)")
    parser.add_argument("--steps", type=int, default=12, help="steps that are counted, a side and round (default: 12)")
    parser.add_argument("--also-compiled", action="store_true", help="measure Trainer with torch_compile=True too")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], Path(args.worker[1]))
        return
    sides = list(SIDES)[: 3 if args.also_compiled else 2]
    print(machine("brolly", "torch", "transformers", "accelerate"))
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        workers = {side: Worker(__file__, side, folder) for side in sides}
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        limits = [matmul_flops()]
        for n in range(args.rounds):
            for side in sides:
                found[side].append(workers[side].ask(name=str(n), steps=args.steps))
                limits.append(matmul_flops())
            speeds = ", ".join(f"{side} {found[side][-1]['tokens_per_s']:,.0f}" for side in sides)
            print(f"round {n + 1}: {speeds} tokens/s", file=sys.stderr, flush=True)
        for worker in workers.values():
            worker.close()
        recipe = recipe_of(Path(folder), "data-of-all", 1)
    limit, flop = max(limits), flop_per_token(recipe.model, recipe.tokenizer.vocab_size)
    rows = [["loop", "tokens/s", "slowest to fastest", "share of the FLOP limit", "mean loss", "brolly is faster by"]]
    for side in sides:
        speeds_of = sorted(r["tokens_per_s"] for r in found[side])
        pairs = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(found["brolly"], found[side], strict=True)]
        speed = median(speeds_of)
        rows.append(
            [
                SIDES[side], f"{speed:,.0f}", f"{speeds_of[0]:,.0f} to {speeds_of[-1]:,.0f}",
                f"{speed * flop / limit:.0%}", f"{found[side][-1]['loss']:.3f}",
                f"{median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})" if side != "brolly" else "",
            ]
        )  # fmt: skip
    print(table(rows))
    print(f"{flop / 1e6:.1f} MFLOP a token; limit {limit / 1e12:.2f} TFLOP/s; medians of {args.rounds} rounds.")


if __name__ == "__main__":
    main()
