"""All that a tuning needs before its first step: a network to train, examples, an optimiser, a plan."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brolly import hub
from brolly.errors import RecipeError
from brolly.fill import fingerprint, native_bf16
from brolly.kernels.pages import keep_memory
from brolly.loader import load
from brolly.model import Model
from brolly.rows import held_out, open_rows, overlap, preview
from brolly.train.loop import checkpoints
from brolly.train.tuning.examples import Examples, drawn
from brolly.train.tuning.four_bits import load_packed, refuse_whole
from brolly.train.tuning.lora import put_back, put_in
from brolly.train.tuning.memory import Memory, Watch, numbers_of, predict, spare
from brolly.train.tuning.objectives import Advises, Example, Looks, Objective, Samples, Usual, choose
from brolly.train.tuning.plan import Plan, flop_of, licence_of, rule_of, size
from brolly.train.tuning.quick import quicken
from brolly.train.tuning.recompute import recompute
from brolly.train.tuning.settings import PASSES, learning_rate, passes, step_size
from brolly.train.tuning.shared import Learning, own_device, own_folder
from brolly.train.tuning.words import MOST as MOST_ROWS
from brolly.train.tuning.words import learn_rows, untaught
from brolly.verbs import Lora, TuneOptions

PART = 2048  # tokens computed together
FEW = 40  # rows below which none is held out: each would be missed
OWN = ("log.jsonl", "loss.svg", "recipe.toml", "examples*", "events.out.tfevents.*", "step-*", "*.part")


@dataclass
class Run:
    """A tuning that has not begun."""

    out: Path
    base: str
    student: Model
    objective: Objective
    lora: Lora | None
    asked: TuneOptions
    examples: Examples
    held: Examples | None
    batch: int
    steps: int
    lr: float
    rows: Any
    notes: list[str]
    path: str  # how the blocks are computed, in words
    given: Mapping[str, Any]  # what a recipe says beside the options

    memory: Memory | None = None
    learning: Learning | None = None  # once processes have met
    watch: Watch | None = None  # from the first step on

    @property
    def network(self) -> nn.Module:
        return self.student.network

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    @property
    def part(self) -> float:
        """Tokens computed together, about; without end where they are not told from here."""
        if self.objective.together or isinstance(self.objective, Samples):
            return math.inf
        each = sum(self.examples.sizes) / len(self.examples)
        return min(self.asked.part or PART, self.batch * each) if self.asked.packing else each

    @property
    def made_by(self) -> dict[str, Any]:
        """What a checkpoint must have been made with for this run to go on from it."""
        lora = None if self.lora is None else repr(replace(self.lora, targets=tuple(sorted(self.lora.targets))))
        return {
            "base": fingerprint(self.student.card.recognised), "data": self.rows.fingerprint, "adapter": lora,
            "objective": self.objective.name, "batch": self.batch, "number of steps": self.steps,
            "seed": self.asked.seed, "share held out": self.asked.held_out, "examples": len(self.examples),
        }  # fmt: skip

    def computing(self) -> AbstractContextManager[Any]:
        """Full tuning keeps float32 numbers and multiplies in bfloat16, where that is native."""
        device = self.student.device.type
        able = native_bf16() if device == "cpu" else device == "cuda" and torch.cuda.is_bf16_supported()
        stored = {info.dtype for info in self.student.card.header.tensors.values()}
        if self.lora is None and able and "F32" not in stored:
            return torch.autocast(device, torch.bfloat16)
        return nullcontext()

    def close(self) -> None:
        self.examples.close()
        if self.held:
            self.held.close()


def prepare(
    model: Any, data: Any, out: Path, lora: Lora | None, asked: TuneOptions, *, eval: Any = None,
    start: Any = None, device: str | None = None, dtype: str | None = None, shape: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Run:  # fmt: skip
    """Look at the rows, load the model, make the examples. Raises RecipeError, OptionError, CheckpointError …"""
    keep_memory()
    rows = open_rows(data, shape=shape, columns=columns)
    base = name_of(model)
    if lora and lora.bits:
        student = load_packed(base, device=own_device(device), dtype=dtype)
    else:
        place = "cpu" if asked.shard else own_device(device)  # each process takes its share from there
        student = load(base, device=place, dtype=dtype or ("float32" if lora is None else None), fused=False)
    torch.manual_seed(asked.seed)
    network = student.network
    if lora is None:
        refuse_whole(student.card)
        network.requires_grad_(True)
    elif start is not None:
        lora, _ = put_back(network, Path(hub.resolve(getattr(start, "path", start))), student.card.recognised, lora)
    else:
        put_in(network, lora, student.card.recognised)
    objective = choose(student, rows.shape, asked)
    notes: list[str] = []
    apart = open_rows(eval, shape=shape or rows.shape, columns=columns) if eval is not None else None
    numbers, kept = split(rows, asked, apart is not None, notes)
    if apart is not None and (shared := overlap(rows, apart)).rows:
        notes.append(str(shared))
    of, which = (apart, range(len(apart))) if apart is not None else (rows, kept)
    if isinstance(objective, Looks):
        objective.look(rows, numbers)
        objective.look(of, which)
    examples = Examples(rows, objective, numbers, out / own_folder("examples"))
    if not len(examples):
        first = f"; the first: {examples.faults[0]}" if examples.faults else ""
        raise RecipeError(f"{rows.source} has no row to learn from{first}.")
    if lora is not None and not lora.targets and start is None and objective.name == "next-token":
        teach(network, examples, student, notes)
    held = None
    if apart is not None or kept:
        held = Examples(of, objective, which, out / own_folder("examples") / "held")
    epochs = passes(len(examples)) if objective.name == "next-token" else PASSES
    usual = Usual(step_size(len(examples)), epochs, learning_rate(network, lora))
    if isinstance(objective, Advises):
        usual = objective.usual(len(examples), lora is None)
    if asked.checkpointing:
        recompute(network)
    batch = min(asked.batch or usual.batch, len(examples))
    steps = asked.steps or max(1, math.ceil((asked.epochs or usual.epochs) * len(examples) / batch))
    lr = asked.lr if asked.lr is not None else usual.lr
    given = {"data": placed(data), "eval": placed(eval), "start": placed(getattr(start, "path", start)),
             "device": device, "dtype": dtype, "shape": shape, "columns": columns}  # fmt: skip
    path = quicken(network, asked.checkpointing) if lora is not None else "torch: all weights train"
    run = Run(out, base, student, objective, lora, asked, examples, held, batch, steps, lr, rows, notes, path, given)
    run.memory = foreseen(run)
    return run


def teach(network: nn.Module, examples: Examples, student: Model, notes: list[str]) -> None:
    """Have the rows learnt of tokens that the base was never taught, where the examples want them written."""
    output: Any = network.output
    ids = untaught(output.weight, examples.learnt_tokens())
    if 0 < len(ids) <= MOST_ROWS:
        learn_rows(network, ids)
        few = " ".join(repr(student.tokenizer.token_text(i)) for i in ids[:8]) + " …" * (len(ids) > 8)
        notes.append(f"{len(ids)} tokens are new to the base, and learnt with it: {few}")


def placed(given: Any) -> str | None:
    """A file or a folder by its whole path, another name as it is; rows in memory have none."""
    if not isinstance(given, (str, Path)):
        return None
    path = Path(given).expanduser()
    return str(path.resolve()) if path.exists() else str(given)


def name_of(model: Any) -> str:
    """What a model is called where it must be found again: a name, or a whole path."""
    given = str(model.card.header.path if isinstance(model, Model) else model)
    return str(Path(given).expanduser().resolve()) if Path(given).expanduser().exists() else given


def split(rows: Any, asked: TuneOptions, apart: bool, notes: list[str]) -> tuple[Sequence[int], Sequence[int]]:
    """Rows to learn, and rows to hold out; none of a few, unless their share was asked for."""
    share = asked.held_out
    usual = share == TuneOptions().held_out
    if apart or share == 0 or (usual and len(rows) < FEW):
        if not apart and share:
            notes.append(
                f"fewer than {FEW} rows: none is held out, so nothing tells how it does on others (--held-out)"
            )
        return range(len(rows)), ()
    return held_out(rows, share)


def planned(run: Run, resumed: bool) -> Plan:
    """What will be done, by counting and by timing one part of a step."""
    examples, asked, student = run.examples, run.asked, run.student
    tokens, drawn_in_all = sum(examples.sizes), run.steps * run.batch
    each = tokens / len(examples)
    if isinstance(run.objective, Samples):
        each = run.objective.cost(each)
    learning, memory = run.learning, run.memory
    assert memory is not None
    if learning and learning.shard:
        memory = memory.shared(learning.world.size)
    if memory.to_come > (free := spare(student.device)):
        run.notes.append(
            f"about {size(memory.to_come)} more are needed, and {size(free)} are free: see --checkpointing, "
            "--optimizer, --bits, --part"
        )
    seconds = seconds_of(run, each * drawn_in_all)
    parameters = list(run.network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    flop = flop_of(run.network, each * drawn_in_all, asked.checkpointing)
    kind = "full" if run.lora is None else said(run.lora)
    rule, base_flop = rule_of(student.card, flop, kind)
    notes = list(run.notes)
    context = getattr(run.objective, "context", None)
    if examples.cut:
        share = "all" if examples.cut == len(examples) else f"{examples.cut:,} of {len(examples):,}"
        notes.append(f"{share} examples are longer than {context:,} tokens and are cut")
    notes += [f"row left out: {fault}" for fault in examples.faults[:3]]
    if examples.n_bad > 3:
        notes.append(f"and {examples.n_bad - 3:,} more rows left out")
    if lost := getattr(run.objective, "lost", 0):
        notes.append(f"{lost:,} earlier answers are written otherwise once others follow, and are read, not learnt")
    return Plan(
        model=run.base, kind=kind, objective=run.objective.name, preview=preview(run.rows), examples=len(examples),
        held=len(run.held) if run.held else 0, tokens=tokens, learnt=sum(examples.weights), cut=examples.cut,
        bad=examples.n_bad, longest=max(examples.sizes), context=context,
        epochs=round(drawn_in_all / len(examples), 2), steps=run.steps, batch=run.batch, lr=run.lr, trained=trained,
        total=numbers_of(run.network),
        memory=memory.total, memory_parts=memory.parts,
        seconds=seconds, flop=flop, base_flop=base_flop, licence=licence_of(student.card),
        rule=rule, path=run.path, notes=tuple(notes),
    )  # fmt: skip


def foreseen(run: Run) -> Memory:
    """The memory of a step: by passes of one example and of two, without their way back."""
    examples, objective, asked = run.examples, run.objective, run.asked
    few = [examples[i] for i in drawn(0, min(run.batch, 2), len(examples), asked.seed)]
    pair = few if len(few) == 2 else few * 2
    sizes = [objective.size(one) for one in pair]
    all_of_it = max(min(run.batch * sum(examples.sizes) / len(examples), asked.part or PART), max(examples.sizes))
    most = min(all_of_it, getattr(objective, "most", all_of_it))  # of vectors that are judged together

    def once(n: int) -> None:
        if not isinstance(objective, Samples):  # whose answers are not written yet
            with run.computing():
                objective.backward([pair[:n]], 1.0)

    run.network.train()
    times = max(1 + (most - sizes[0]) / sizes[1], 1)
    return predict(
        run.network, once, times, round(most), optimizer=asked.optimizer, checkpointing=asked.checkpointing
    )  # fmt: skip


def said(lora: Lora) -> str:
    """A LoRA's settings in a few words."""
    words = ["DoRA" if lora.dora else "rsLoRA" if lora.rslora else "LoRA", f"rank {lora.rank}"]
    return ", ".join([*words, *([f"base in {lora.bits} bits"] if lora.bits else [])])


def seconds_of(run: Run, n_tokens: float) -> float:
    """How long so many tokens take, by a part of the first step, computed twice."""
    if isinstance(run.objective, Samples):
        return math.nan
    batch = [run.examples[i] for i in drawn(0, run.batch, len(run.examples), run.asked.seed)]
    part = cut(batch, run.objective, run.asked)[0]
    took = 0.0
    run.network.train()
    for _ in range(2):
        began = time.perf_counter()
        with run.computing():
            run.objective.backward([part], 1.0)
        took = time.perf_counter() - began
    run.network.zero_grad(set_to_none=True)
    return took * n_tokens / max(sum(map(run.objective.size, part)), 1)


def cut(batch: Sequence[Example], objective: Objective, asked: TuneOptions) -> list[list[Example]]:
    """A step's examples in parts of at most so many tokens, one example at least."""
    if objective.together:
        return [list(batch)]
    most = (asked.part or PART) if asked.packing else 1
    parts: list[list[Example]] = []
    filled = most
    for one in batch:
        size = objective.size(one)
        if filled + size > most:
            parts.append([])
            filled = 0
        parts[-1].append(one)
        filled += size
    return parts


def check_out(out: Path, resume: bool) -> None:
    """An output folder is new, empty, or an earlier run's to be resumed. Raises RecipeError."""
    if out.exists() and not out.is_dir():
        raise RecipeError(f"{out} is a file; give a folder that is not there yet.")
    there = list(out.iterdir()) if out.is_dir() else []
    foreign = [p.name for p in there if not any(p.match(pattern) for pattern in OWN)]
    if not resume and checkpoints(out):
        raise RecipeError(f"{out} holds an earlier run; go on with --resume, or give another --out.")
    if (out / "run.json").is_file():
        raise RecipeError(f"{out} holds a finished tuning; give another --out.")
    if foreign and not (resume and (out / "log.jsonl").is_file()):  # a kill may leave any of what a run writes last
        raise RecipeError(
            f"{out} holds other things ({', '.join(sorted(foreign)[:3])}); give a folder that is not there yet."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{out} cannot be made ({error.strerror}); give another --out.") from None
