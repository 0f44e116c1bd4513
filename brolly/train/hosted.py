"""`tune` for a model that runs elsewhere: its vendor learns the rows, and keeps what came of them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brolly.errors import OptionError, RemoteError
from brolly.remote import Remote
from brolly.remote.dialect import Job
from brolly.remote.tuning import Hosted, named
from brolly.rows import held_out, open_rows
from brolly.rows.hosted import lines
from brolly.verbs import Adapter, TuneOptions, read_options

OBJECTIVES = {"supervised": "the answers, by what follows what", "dpo": "which of two answers is the better (DPO)"}


@dataclass(frozen=True)
class HostedPlan:
    """A hosted tuning beforehand."""

    model: str
    host: str
    method: str
    examples: int
    held: int
    n_bytes: int  # that are uploaded
    options: Mapping[str, Any]
    notes: tuple[str, ...]

    def event(self) -> dict[str, Any]:
        return {"event": "plan", **asdict(self), "cost": None}

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return "\n".join([
            f"model      {self.model}, tuned at {self.host}",
            f"objective  {OBJECTIVES[self.method]}",
            f"examples   {self.examples:,} to learn, {self.held:,} held out for evaluation",
            f"upload     {self.n_bytes / 1e6:,.2f} MB, about {max(self.n_bytes // 4, 1):,} tokens an epoch",
            f"options    {said or 'all chosen there'}",
            "cost       unknown here: tuning has prices of its own, which the vendor's pages tell",
            *(f"note       {note}" for note in self.notes), "",
        ])  # fmt: skip


def tune(
    model: str | Remote, data: Any, *, eval: Any = None, shape: str | None = None,
    columns: Mapping[str, str] | None = None, suffix: str | None = None, lr_multiplier: float | None = None,
    approve: Callable[[HostedPlan], bool] | None = None, progress: Callable[[dict[str, Any]], None] | None = None,
    every: float | None = None, **options: Any,
) -> Adapter:  # fmt: skip
    """Have rows learnt where the model runs, and wait for the end; the result's `path` is the tuned model's reference.

    Options are those of TuneOptions (and Lora) that the vendor has words for; others are refused. Whoever stops waiting
    stops nothing: `follow` goes on. Raises RecipeError, OptionError and RemoteError's kinds.
    """
    remote = model if isinstance(model, Remote) else Remote(model)
    hosted, tell = Hosted(remote), progress or (lambda event: None)
    rows = open_rows(data, shape=shape, columns=columns)
    share = options.pop("held_out", None) or 0.0
    if eval is not None and share:
        raise OptionError("eval names rows to evaluate on, and held_out takes a share of the others; leave one out.")
    numbers, kept = held_out(rows, share) if share else (None, [])
    learnt = lines(rows, numbers)
    held = lines(rows, kept) if kept else None
    if eval is not None:
        held = lines(open_rows(eval, shape=rows.shape, columns=columns))
    chosen = chosen_of(options, learnt.method)
    chosen |= {"suffix": suffix} if suffix else {}
    chosen |= {"lr_multiplier": lr_multiplier} if lr_multiplier is not None else {}
    hosted.check(chosen)
    if remote.budget.most is not None:
        raise OptionError(f"what tuning {remote.target} costs is not known here, so max_cost cannot be kept.")
    notes = [f"row left out: {fault}" for fault in rows.faults[:3]]
    notes += [f"and {rows.n_bad - 3:,} more rows left out"] if rows.n_bad > 3 else []
    if rows.shape == "completion":
        notes.append("a prompt goes as a user's turn, a completion as the assistant's")
    n_bytes = len(learnt.data) + (len(held.data) if held else 0)
    plan = HostedPlan(
        str(remote.target), remote.target.host, learnt.method, learnt.n, held.n if held else 0, n_bytes, chosen,
        tuple(notes),
    )  # fmt: skip
    tell(plan.event())
    if approve is not None and not approve(plan):
        raise OptionError("nothing was begun.")
    job = hosted.start(learnt.data, held.data if held else b"", learnt.method, chosen)
    tell({"event": "job", "id": job.id})
    return follow(remote, job.id, progress=tell, every=every)


def follow(
    model: str | Remote,
    job: str,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
    every: float | None = None,
) -> Adapter:
    """Wait for a job that was begun before, as `tune` does."""
    remote = model if isinstance(model, Remote) else Remote(model)
    tell = progress or (lambda event: None)
    steps, measures, end = 0, {}, Job(job, "failed")
    for event in Hosted(remote).follow(job, every=every):
        if isinstance(event, Job):
            end = event
            break
        tell(event)
        steps = max(steps, event.get("step", 0))
        if "loss" in event:
            measures["loss" if event["event"] == "step" else "held_loss"] = float(event["loss"])
    if end.state != "done" or not end.model:
        raise RemoteError(
            f"the job {job} has {ENDS.get(end.state, 'no model')}{f': {end.message}' * bool(end.message)}"
        )
    reference = named(remote.target, end.model)
    tell({"event": "done", "path": reference, "steps": steps, **measures})
    return Adapter(reference, str(remote.target), "hosted", steps, measures)


ENDS = {"failed": "failed", "cancelled": "been cancelled"}


def chosen_of(options: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What was said of how to learn, checked. Raises OptionError."""
    lora = {name: options[name] for name in ("rank", "alpha") if options.get(name) is not None}
    said = {name: value for name, value in options.items() if name not in lora and value is not None}
    read_options(TuneOptions, said)
    if (objective := said.pop("objective", None)) is not None and objective != method:
        raise OptionError(f"objective is {objective}; these rows are learnt by {method} where the model runs.")
    if "beta" in said and method != "dpo":
        raise OptionError("beta is for preferences, and these rows hold none.")
    if (epochs := said.get("epochs")) is not None:
        if epochs != int(epochs) or epochs < 1:
            raise OptionError(f"epochs is {epochs:g}; expected a whole number where the model runs elsewhere.")
        said["epochs"] = int(epochs)
    return {**said, **lora}
