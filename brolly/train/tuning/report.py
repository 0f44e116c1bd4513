"""Where a run's numbers go: log.jsonl, TensorBoard's events, the caller's function, and services by name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import MissingExtra, OptionError
from brolly.train.export import read_log, write_whole
from brolly.train.tuning.examples import full
from brolly.train.tuning.tensorboard import Events

Progress = Callable[[dict[str, Any]], None]
Sink = Callable[[int, Mapping[str, float]], None]


class Report:
    """A run's events, each a dict with "event": plan, step, held, saved, done; to a file and to whoever listens."""

    def __init__(self, out: Path, start: int, tell: Progress | None, to: Sequence[str], settings: Any) -> None:
        self.tell, self.clock, self.spent = tell, time.perf_counter(), 0.0
        path = out / "log.jsonl"
        try:
            rows = [row for row in read_log(path) if row["step"] <= start]
            write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
            self.file, self.events = path.open("a"), Events(out)
        except OSError as error:
            raise full(error, path) from None
        self.sinks = [sink(name, out, settings) for name in to]

    def begin(self) -> None:
        """A step begins now."""
        self.clock = time.perf_counter()

    def step(
        self, step: int, n_steps: int, loss: float, norm: float, lr: float, n_tokens: int,
        more: Mapping[str, float],
    ) -> None:  # fmt: skip
        """`more`: what the objective tells of it beside the loss."""
        seconds = time.perf_counter() - self.clock
        self.spent += seconds
        row = {"step": step, "loss": loss, "norm": norm, "lr": lr, "tokens_per_s": round(n_tokens / seconds)}
        row |= more
        self._write(row, {f"train/{k}": v for k, v in row.items() if k not in ("step", "tokens_per_s")})
        self.say({"event": "step", "steps": n_steps, **row})

    def held(self, step: int, found: Mapping[str, float]) -> None:
        self._write({"step": step, "held": {"rows": dict(found)}}, {f"held/{k}": v for k, v in found.items()})
        self.say({"event": "held", "step": step, **found})

    def say(self, event: dict[str, Any]) -> None:
        """An event for the caller alone."""
        if self.tell:
            self.tell(event)

    def _write(self, row: dict[str, Any], numbers: Mapping[str, float]) -> None:
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
            self.events.scalars(row["step"], numbers)
        except OSError as error:
            raise full(error, Path(self.file.name)) from None
        for send in self.sinks:
            send(row["step"], numbers)

    def close(self) -> None:
        for file in (self.file, self.events):
            try:
                file.close()
            except OSError:  # a full disk, which was told where the bytes were written
                continue


class Silence:
    """The report of a process that is not the first."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def sink(name: str, out: Path, settings: Mapping[str, Any]) -> Sink:
    """A service that keeps runs. Raises OptionError, MissingExtra."""
    try:
        if name in ("wandb", "trackio"):
            from importlib import import_module

            service = import_module(name)
            service.init(project="brolly", name=out.name, config=dict(settings))
            return lambda step, numbers: service.log(dict(numbers), step=step)
        if name == "mlflow":
            import mlflow  # type: ignore[import-not-found,unused-ignore]

            mlflow.set_experiment("brolly")
            mlflow.start_run(run_name=out.name)
            mlflow.log_params(dict(settings))
            return lambda step, numbers: mlflow.log_metrics(dict(numbers), step=step)
    except ImportError:
        raise MissingExtra(f"reporting to {name}", name) from None
    raise OptionError(f"report_to is {name!r}; expected wandb, mlflow or trackio.")
