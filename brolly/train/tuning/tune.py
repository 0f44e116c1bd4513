"""The tuning loop: rows to examples, examples to parts, parts to gradients, gradients to an adapter's folder."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from brolly.errors import OptionError, RecipeError
from brolly.remote import Remote, is_remote
from brolly.train.hosted import tune as elsewhere
from brolly.train.tuning.alone import alone
from brolly.train.tuning.examples import Examples, drawn
from brolly.train.tuning.finish import finish, finished, write
from brolly.train.tuning.memory import Watch
from brolly.train.tuning.objectives import Example, Prepares, Samples
from brolly.train.tuning.optimizers import make
from brolly.train.tuning.plan import Plan
from brolly.train.tuning.prepare import Run, check_out, cut, planned, prepare
from brolly.train.tuning.recipe import read_recipe
from brolly.train.tuning.report import Progress, Report, Silence
from brolly.train.tuning.shared import World, joined, meet
from brolly.train.tuning.state import restore, save, tensors_of
from brolly.train.tuning.threads import threads_for
from brolly.verbs import Adapter, Lora, TuneOptions, read_options

SAVE_EVERY = 300.0  # seconds


class Stopped(KeyboardInterrupt):
    """Somebody asked for an end; the run was saved after `step` steps."""

    def __init__(self, out: Path, step: int, steps: int) -> None:
        super().__init__(f"stopped and saved after step {step:,} of {steps:,}; go on with --resume and --out {out}.")
        self.step = step


def tune(
    model: Any = None, data: Any = None, *, out: str | Path | None = None, lora: Lora | None = Lora(),  # noqa: B008
    recipe: str | Path | None = None, eval: Any = None, start: Any = None, resume: bool = False,
    device: str | None = None, dtype: str | None = None, shape: str | None = None,
    columns: Mapping[str, str] | None = None, report_to: Sequence[str] = (),
    approve: Callable[[Plan], bool] | None = None, progress: Progress | None = None, **options: Any,
) -> Adapter:  # fmt: skip
    """Fine-tune a model on rows and write what was learnt to `out`; `lora=None` trains all of it.

    `data` and `eval` are as `brolly.rows.open_rows` takes them, `start` an adapter to go on from, `recipe` a file that
    holds what is not given here. `approve` sees the plan before the first step; `progress` gets an event, a dict, for
    the plan, each step, evaluation and checkpoint. Raises RecipeError, OptionError, CheckpointError, DiskFull.
    A model that runs elsewhere is tuned there, and what came of it stays there: see `brolly.train.hosted.tune`.
    """
    if isinstance(model, Remote) or is_remote(model):
        here = {"out": out, "recipe": recipe, "start": start, "resume": resume, "device": device, "dtype": dtype,
                "report_to": report_to, "lora": lora != Lora()}  # fmt: skip
        if name := next((name for name, value in here.items() if value), None):
            raise OptionError(f"{name} is for a model on this computer; {model} is tuned where it runs.")
        return elsewhere(
            model, data, eval=eval, shape=shape, columns=columns, approve=cast(Any, approve), progress=progress,
            **options,
        )  # fmt: skip
    given = {"model": model, "data": data, "out": out, "eval": eval, "start": start, "device": device, "dtype": dtype,
             "shape": shape, "columns": columns}  # fmt: skip
    if recipe is not None:
        said = read_recipe(recipe)
        kept = said.pop("lora")
        if kept is None or lora is None:
            lora = None if lora in (None, Lora()) else lora
        else:
            asked_for = {f.name: getattr(lora, f.name) for f in fields(Lora)}
            lora = Lora(**kept | {k: v for k, v in asked_for.items() if v != getattr(Lora(), k)})
        given |= {key: said.pop(key) for key in list(said) if key in given and given[key] is None}
        options = {k: v for k, v in said.items() if k not in given} | options
    for key in ("model", "data", "out"):
        if given[key] is None:
            raise OptionError(f"{key} is not given; name it, or a recipe that does.")
    asked: TuneOptions = read_options(TuneOptions, options)
    folder = Path(given.pop("out")).expanduser()
    if resume and (found := finished(folder)):
        return found
    check_out(folder, resume)
    with alone(folder):
        run = prepare(given.pop("model"), given.pop("data"), folder, lora, asked, **given)
        try:
            with joined() as world, threads_for(run.network, run.part):
                meet(run, world)
                plan = planned(run, resume)
                if progress and world.first:
                    progress(plan.event())
                if not world.told(not approve or bool(approve(plan))):
                    raise RecipeError("nothing was trained.")
                return train(run, plan, resume, progress, report_to, world)
        finally:
            run.close()


def train(
    run: Run, plan: Plan, resume: bool, progress: Progress | None, report_to: Sequence[str], world: World
) -> Adapter:  # fmt: skip
    """The loop: a step is a function of the checkpoint before it and its number."""
    objective, asked, learning = run.objective, run.asked, run.learning
    assert learning is not None
    optimizer = make(list(learning.moved.values()), asked, run.lr, run.out)
    if isinstance(objective, Prepares):
        for some in (run.examples, run.held):
            if some:
                with run.computing():
                    objective.prepare(some.rows, some.numbers)
    begun = restore(run.out, learning.moved, optimizer, run.made_by, learning) if resume else 0
    report: Any = Silence()
    if world.first:
        report = Report(run.out, begun, progress, report_to, {"base": run.base, **vars(asked)})
    run.watch = Watch(run.student.device)
    measures: dict[str, float] = {}
    saved, began = time.monotonic(), time.monotonic()
    try:
        with stopping() as stop:
            for step in range(begun, run.steps):
                report.begin()
                lr = run.lr * pace(step, run.steps, asked)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                torch.manual_seed(hash((asked.seed, step)) & 0x7FFFFFFF)
                run.network.train()
                places = drawn(step, run.batch, len(run.examples), asked.seed)
                batch = [run.examples[i] for i in places]
                if isinstance(objective, Samples):
                    batch = objective.sample(batch, step)
                total = sum(map(objective.weight, batch))
                with run.computing():
                    mine = batch if objective.together else batch[world.rank :: world.size]
                    parts = cut(mine, objective, asked)
                    loss = learning.backward(objective, parts, batch[0], total)
                norm = learning.clip(asked.clip)
                if not (math.isfinite(float(loss)) and math.isfinite(norm)):
                    raise broken(run, step, float(loss), norm, places, batch, measures)
                optimizer.step()
                learning.forget()
                done = step + 1
                more = objective.noted if isinstance(objective, Samples) else {}
                report.step(done, run.steps, float(loss), norm, lr, sum(map(objective.size, batch)), more)
                if run.held and (done % (asked.eval_every or max(run.steps // 10, 1)) == 0 or done == run.steps):
                    measures = evaluate(run, run.held)
                    report.held(done, measures)
                due = time.monotonic() - saved > SAVE_EVERY if asked.save_every is None else not done % asked.save_every
                stopped, saving = world.sums([len(stop), due and world.first], learning.device)
                if done < run.steps and (saving or stopped):
                    there, rest = tensors_of(learning.moved, optimizer), (optimizer, run.made_by, learning)
                    learning.lead(there, partial(save, run.out, done, learning.moved, *rest))
                    report.say({"event": "saved", "step": done})
                    saved = time.monotonic()
                if stopped and done < run.steps:
                    raise Stopped(run.out, done, run.steps)
        measures = measures or {"loss": float(loss)}
        work = partial(finish, run, plan, measures, time.monotonic() - began)
        written = learning.lead(tensors_of(learning.moved, optimizer), work)
        kind = "full" if run.lora is None else "lora"
        adapter = written or Adapter(run.out, run.base, kind, run.steps, measures)
        report.say({"event": "done", "path": str(adapter.path), "steps": run.steps, **measures})
        return adapter
    finally:
        report.close()


def pace(step: int, steps: int, asked: TuneOptions) -> float:
    """The learning rate's share at a step: up over the warm-up, then as the schedule says."""
    warmup = round(asked.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    at = (step - warmup) / max(steps - warmup, 1)
    return {"constant": 1.0, "linear": 1 - at, "cosine": 0.5 * (1 + math.cos(math.pi * at))}[asked.schedule]


@torch.no_grad()
def evaluate(run: Run, held: Examples) -> dict[str, float]:
    """The objective's measures of examples that are not learnt: means by name."""
    run.network.eval()
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    size = 64 if run.objective.together else max(run.batch, 8)  # no more memory than a step takes
    for start in range(0, len(held), size):
        batch = [held[i] for i in range(start, min(start + size, len(held)))]
        for part in cut(batch, run.objective, run.asked):
            with run.computing():
                found = run.objective.measure(part)
            for name, (value, weight) in found.items():
                sums[name] = sums.get(name, 0.0) + value
                weights[name] = weights.get(name, 0.0) + weight
    return {name: sums[name] / weights[name] for name in sums if weights[name]}


def broken(
    run: Run, step: int, loss: float, norm: float, places: Sequence[int], batch: Sequence[Example],
    measures: Mapping[str, float],
) -> RecipeError:  # fmt: skip
    """What to tell of a loss that is no number; what was learnt until then is kept."""
    guilty = []
    run.network.eval()
    for i, one in zip(places, batch, strict=False):
        apart = not (run.objective.together or isinstance(run.objective, Samples))
        value = run.objective.measure([one])["loss"][0] if apart else 0.0
        if not math.isfinite(value):
            guilty.append(run.examples.where(i))
    rows = guilty or [run.examples.where(i) for i in places]
    kept = ""
    learning = run.learning
    assert learning is not None
    (spoilt,) = learning.world.sums([sum(not p.isfinite().all() for p in learning.moved.values())], learning.device)
    if step and not spoilt:
        there = {f"network.{name}": p for name, p in learning.moved.items()}
        learning.lead(there, partial(write, replace(run, out=run.out / "before"), measures))
        kept = f" What was learnt until then is in {run.out / 'before'}."
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {norm}"
    few = ", ".join(rows[:3]) + f" and {len(rows) - 3} more" * (len(rows) > 3)
    return RecipeError(
        f"{what} at step {step + 1}, of {few}; nothing was changed by it.{kept} Look at these rows, or lower --lr "
        f"({run.lr:g})."
    )


@contextmanager
def stopping() -> Iterator[list[int]]:
    """A list that holds something once ^C or SIGTERM came: the step that runs is ended and saved. The second stops."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
