"""What a tuning leaves: the adapter or the model, its card, its recipe, the loss as a picture."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brolly.checkpoint import json_object
from brolly.errors import CheckpointError
from brolly.families.heads import Headed
from brolly.identity.compute import spoken
from brolly.train.export import plot, write_whole
from brolly.train.tuning.examples import full
from brolly.train.tuning.layout import write_adapter, write_model
from brolly.train.tuning.memory import whole_life
from brolly.train.tuning.plan import Plan, duration, size
from brolly.train.tuning.prepare import Run
from brolly.train.tuning.recipe import write_recipe
from brolly.train.tuning.state import forget
from brolly.verbs import Adapter

RUN = "run.json"


def finish(run: Run, plan: Plan, measures: Mapping[str, float], seconds: float) -> Adapter:
    """Write everything; what is needed to go on from the middle goes. Raises DiskFull, CheckpointError."""
    kind = "full" if run.lora is None else "lora"
    try:
        write(run, measures)
        given = {"model": run.base, "out": str(run.out.resolve()), **run.given}
        write_whole(run.out / "recipe.toml", write_recipe(given, run.lora, run.asked))
        write_whole(run.out / "README.md", card(run, plan, measures, seconds))
        plot(run.out / "log.jsonl", run.out / "loss.svg", run.out.name)
        said = {"base": run.base, "kind": kind, "verb": verb_of(run), "shape": run.rows.shape, "steps": run.steps,
                "measures": dict(measures), "flop": plan.flop,
                "data": run.rows.fingerprint, "seconds": round(seconds, 1), "peak_memory": peak(run)}  # fmt: skip
        write_whole(run.out / RUN, json.dumps(said, indent=1) + "\n")
    except OSError as error:
        raise full(error, run.out) from None
    tidy(run.out)
    return Adapter(run.out, run.base, kind, run.steps, dict(measures))


def write(run: Run, measures: Mapping[str, float]) -> None:
    """The numbers themselves, and how to write with them."""
    recognised = run.student.card.recognised
    head: Headed | None = getattr(run.objective, "head", None)  # a new classifier
    if run.lora is None:
        learnt = run.learning.parameter if run.learning else run.trained.get
        whole = (head, run.network.get_parameter) if head else None
        write_model(run.out, recognised, lambda name, _: learnt(name), None, head=whole)
    else:
        if run.learning:
            run.learning.put_together()
        write_adapter(run.out, recognised, run.base, run.lora, run.network, run.objective.name, head)
    if run.rows.shape in ("completion", "chat") and "generate" in recognised.tasks:
        defaults = run.student.defaults if run.lora is None else {}
        sampling = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        kept = {k: v for k, v in defaults.items() if k not in sampling}
        said = {
            **kept,
            "do_sample": False,
            "temperature": 0.0,
            "repetition_penalty": 1.0,
        }  # what was learnt is what is likeliest
        write_whole(run.out / "generation_config.json", json.dumps(said, indent=1) + "\n")


def tidy(out: Path) -> None:
    """Delete what only an unfinished run needs, and what a killed one left half written."""
    forget(out, 0)
    shutil.rmtree(out / "examples", ignore_errors=True)
    for part in out.glob("*.part"):
        part.unlink(missing_ok=True)


def finished(out: Path) -> Adapter | None:
    """The result of a run that came to its end. Raises CheckpointError."""
    path = out / RUN
    if not path.is_file():
        return None
    tidy(out)
    said = json_object(path)
    base, kind, steps, measures = (said.get(key) for key in ("base", "kind", "steps", "measures"))
    if (
        not isinstance(base, str)
        or not isinstance(kind, str)
        or type(steps) is not int
        or not isinstance(measures, dict)
    ):
        raise CheckpointError(f"{path} is broken; give another --out.")
    return Adapter(out, base, kind, steps, measures)


def verb_of(run: Run) -> str:
    """The command that shows what was learnt."""
    sees = getattr(run.network.config, "vision", None) is not None
    known = {"speech": "transcribe", "labels": "classify", "contrastive": "classify" if sees else "embed"}
    return known.get(run.objective.name, "run")


def card(run: Run, plan: Plan, measures: Mapping[str, float], seconds: float) -> str:
    """README.md, as the Hub reads it."""
    licence, base = run.student.card.licence.id, hub_name(run)
    front: dict[str, Any] = {
        "base_model": base, "base_model_relation": "finetune" if run.lora is None else "adapter",
        "library_name": "peft" if run.lora else None, "license": licence,
        "tags": ["brolly"] + ["lora"] * bool(run.lora),
    }  # fmt: skip
    matter = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items() if value is not None)
    found = "".join(f"| {name}, held out | {value:.4f} |\n" for name, value in measures.items()) if run.held else ""
    verb = verb_of(run)
    name = run.out.resolve().name
    words = ["brolly", verb, *([run.base, "--adapter", name] if run.lora else [name])]
    use = re.sub(r"[\x00-\x1f`]", "?", shlex.join(words)).encode(errors="replace").decode()
    return f"""---
{matter}
---

# {plainly(name)}

{plainly(run.base)}, fine-tuned by [brolly](https://github.com/brolly-ai/brolly): {plan.kind}, {plan.objective}.

```
{use} "…"
```

| | |
|---|---|
| base | {plainly(run.base)} |
| data | {plainly(Path(run.rows.source).name)}: {len(run.rows):,} rows, SHA-256 `{run.rows.fingerprint}` |
| learnt from | {plan.examples:,} examples, {plan.held:,} held out |
| steps | {run.steps:,} of {run.batch} examples, {plan.epochs:g} epochs, learning rate {run.lr:g} |
| learnt parameters | {plan.trained:,} |
| compute | {spoken(plan.flop)} FLOP, {duration(seconds)}, {size(peak(run))} of memory at most |
| licence | {plainly(plan.licence)} |
| EU AI Act | {plan.rule} |
{found}
Every option is in `recipe.toml`, every step in `log.jsonl` and `loss.svg`.
"""


def plainly(text: str) -> str:
    """A name as Markdown shows it, whatever is in it: one line, no markup."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return re.sub(r"([\\`|<>\[\]*])", r"\\\1", re.sub(r"[\x00-\x1f\x7f]", "", line))


def peak(run: Run) -> int:
    """Bytes of memory that the steps took at most: of the process, or of the GPU."""
    return run.watch.peak if run.watch else whole_life()


def hub_name(run: Run) -> str | None:
    """The base's name where others would find it."""
    named = run.student.card.subject.name or run.base
    return named if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", named) else Path(named).name
